from datetime import date

import pytest

from roadcast.api.accuracy import accuracy, accuracy_document
from roadcast.domain.units import Units
from roadcast.storage.scores import Score

DAY = date(2024, 1, 15)


def score(model: str, errors: list[float], *, jam: bool = False, day: date = DAY, **more: object) -> Score:
    """Sums as they are stored, from the errors themselves; every truth is 50."""
    values: dict = {
        "day": day, "model": model, "horizon_minutes": 30, "jam": jam, "n": len(errors),
        "absolute": sum(map(abs, errors)), "square": sum(e * e for e in errors), "error": sum(errors),
        "relative_n": len(errors), "relative": sum(abs(e) / 50 for e in errors), "interval_n": 0, "covered_80": 0,
        "width_80": 0.0, "confidence_n": [0] * 10, "confidence_sum": [0.0] * 10, "within_n": [0] * 10,
    }  # fmt: skip
    return Score(**(values | more))


def test_errors_are_averaged_over_days_and_states():
    found = accuracy(
        [
            score("served", [2, -4]),
            score("served", [6], jam=True, day=date(2024, 1, 16)),
            score("last_value", [8, 8]),
            score("last_value", [4], jam=True),
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


def test_intervals_and_confidence_are_checked_for_the_served_one():
    tenths = {"confidence_n": [0] * 8 + [4, 0], "confidence_sum": [0.0] * 8 + [3.4, 0], "within_n": [0] * 8 + [3, 0]}
    [served, other] = accuracy(
        [
            score("served", [1] * 10, interval_n=10, covered_80=8, width_80=120.0, **tenths),
            score("served", [1] * 10, interval_n=10, covered_80=6, width_80=80.0, jam=True, **tenths),
            score("last_value", [1]),
        ],
        Units.US,
    )
    assert served["interval"] == {"count": 20, "coverage_80": 0.7, "width_80": 10.0}
    assert served["reliability"][8] == {
        "confidence_from": 0.8, "confidence_to": 0.9, "count": 8, "mean_confidence": 0.85, "within_tolerance": 0.75,
    }  # fmt: skip
    assert served["reliability"][0]["within_tolerance"] is None
    assert (other["interval"], other["reliability"]) == (None, None)


def test_metric_errors_are_kilometres_and_shares_stay():
    [us], [metric] = (accuracy([score("served", [10, -6])], units) for units in Units)
    assert metric["mae"] == pytest.approx(us["mae"] * 1.609344, abs=1e-3)
    assert (metric["mape"], metric["skill"]) == (us["mape"], None)


def test_without_scores_there_is_nothing_to_say():
    assert accuracy_document([], 7, Units.METRIC) == {"days": 7, "unit": "km/h", "models": []}
