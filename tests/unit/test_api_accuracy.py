import pytest

from roadcast.api.accuracy import Filters, accuracy
from roadcast.domain.units import Units
from roadcast.scoreboard import Score


def score(model: str, errors: list[float], *, state: str = "low", tenths: dict | None = None, **more: object) -> Score:
    """Sums as they are stored, from the errors themselves; every truth is 50."""
    sums = {
        "n": len(errors), "absolute": sum(map(abs, errors)), "square": sum(e * e for e in errors), "error": sum(errors),
        "relative_n": len(errors), "relative": sum(abs(e) / 50 for e in errors),
    }  # fmt: skip
    hour = more.pop("hour", None)
    return Score(model, 30, {**sums, **more}, tenths or {}, state, hour)


def test_errors_are_averaged_over_days_and_states():
    found = accuracy(
        [
            score("served", [2, -4]),
            score("served", [6], state="high"),
            score("last_value", [8, 8]),
            score("last_value", [4], state="high"),
            score("profile", [10]),
        ],
        Units.US,
    )
    assert [document["model"] for document in found] == ["served", "last_value", "profile"]
    served = found[0]
    assert (served["count"], served["mae"], served["bias"]) == (3, 4.0, pytest.approx(4 / 3, abs=1e-3))
    assert served["rmse"] == pytest.approx((56 / 3) ** 0.5, abs=1e-3)
    assert served["mape"] == 8.0
    assert served["skill"] == pytest.approx(1 - 4 / (20 / 3), abs=1e-4)  # last_value is the better naive one
    assert (served["jam"]["count"], served["jam"]["mae"], served["jam"]["skill"]) == (1, 6.0, -0.5)


def test_a_jam_is_high_or_severe_and_the_onset_stands_beside_the_states():
    [served] = accuracy(
        [
            score("served", [1] * 8),
            score("served", [2], state="medium"),
            score("served", [3], state="high"),
            score("served", [5], state="severe"),
            score("served", [7], state="unknown"),
            score("served", [9, 9], state="onset"),
        ],
        Units.US,
    )
    assert (served["count"], served["jam"]["count"], served["jam"]["mae"]) == (12, 2, 4.0)
    assert (served["onset"]["count"], served["onset"]["mae"]) == (2, 9.0)


def test_one_state_has_no_strata_of_its_own():
    scores = [score("served", [9, 9], state="onset"), score("last_value", [12, 12], state="onset")]
    served, _ = accuracy(scores, Units.US, Filters(state="onset"))
    assert (served["count"], served["mae"], served["skill"]) == (2, 9.0, 0.25)
    assert (served["jam"], served["onset"]) == (None, None)
    by_state = accuracy([*scores, score("served", [1])], Units.US, Filters(by="state", model="served"))
    assert [(d["state"], d["count"], d["skill"]) for d in by_state] == [("low", 1, None), ("onset", 2, 0.25)]


def test_hours_are_told_apart_in_their_order():
    hours = [score("served", [hour], hour=hour) for hour in (10, 9, 2)]
    onset = score("served", [50], hour=9, state="onset")
    found = accuracy([*hours, onset], Units.US, Filters(by="hour"))
    assert [(d["hour"], d["mae"], d["onset"]["count"]) for d in found] == [(2, 2.0, 0), (9, 9.0, 1), (10, 10.0, 0)]


@pytest.mark.parametrize(
    ("naive", "better"),
    [([4, -4], False), ([3, 3], True), ([0, 5.2], True), ([0, 5.7], True), ([0, 8.2], False), ([], None)],
)
def test_a_naive_forecast_is_better_by_mae_or_by_rmse(naive: list[float], better: bool | None):
    found = accuracy([score("served", [4, -4]), score("last_value", naive)], Units.US)
    assert [document["baseline_better"] for document in found] == [better, None]


def test_intervals_and_confidence_are_checked_for_the_served_one():
    tenths = {"confidence_n": [0] * 8 + [4, 0], "confidence_sum": [0.0] * 8 + [3.4, 0], "within_n": [0] * 8 + [3, 0]}
    told = {
        "interval_n": 10, "covered_80": 8, "covered_90": 9, "width_80": 120.0, "width_90": 150.0, "winkler_80": 200.0,
        "winkler_90": 300.0,
    }  # fmt: skip
    [served, other] = accuracy(
        [
            score("served", [1] * 10, **told, tenths=tenths),
            score("served", [1] * 10, **{**told, "covered_80": 6, "width_80": 80.0}, state="high", tenths=tenths),
            score("last_value", [1]),
        ],
        Units.US,
    )
    assert served["interval"] == {
        "count": 20, "coverage_80": 0.7, "coverage_90": 0.9, "width_80": 10.0, "width_90": 15.0, "winkler_80": 20.0,
        "winkler_90": 30.0,
    }  # fmt: skip
    assert served["reliability"][8] == {
        "confidence_from": 0.8, "confidence_to": 0.9, "count": 8, "mean_confidence": 0.85, "within_tolerance": 0.75,
    }  # fmt: skip
    assert served["reliability"][0]["within_tolerance"] is None
    assert served["ece"] == 0.1
    assert (other["interval"], other["ece"], other["reliability"]) == (None, None, None)


def test_metric_errors_are_kilometres_and_shares_stay():
    [us], [metric] = (accuracy([score("served", [10, -6])], units) for units in Units)
    assert metric["mae"] == pytest.approx(us["mae"] * 1.609344, abs=1e-3)
    assert (metric["mape"], metric["skill"]) == (us["mape"], None)


def test_without_scores_there_is_nothing_to_say():
    assert accuracy([], Units.METRIC) == []


def test_who_was_judged_by_other_targets_is_not_compared():
    """A model that served a quiet night, beside a whole day of the naive forecaster."""
    scores = [score("blend", [1] * 19), score("last_value", [2] * 20), score("served", [1] * 10)]
    found = {each["model"]: each for each in accuracy(scores, Units.US)}
    assert (found["served"]["skill"], found["served"]["baseline_better"]) == (None, None)
    assert (found["blend"]["skill"], found["blend"]["baseline_better"]) == (None, None)
    [blend] = accuracy([score("blend", [1] * 20), score("last_value", [2] * 21)], Units.US, Filters(model="blend"))
    assert (blend["skill"], blend["baseline_better"]) == (0.5, False)
