"""What the process that trains does, step by step, and what becomes a version."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from unit.waves import DAY, INTERVAL_MS, START_MS, history_of, speeds

from roadcast.domain.times import from_ms
from roadcast.errors import InvalidInput
from roadcast.forecasting.autoregression import GraphAutoregression
from roadcast.forecasting.calibration import Calibration, Tolerance
from roadcast.forecasting.features import feature_names
from roadcast.forecasting.forecaster import Forecaster
from roadcast.forecasting.forecasters import Added, every_forecaster
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import History
from roadcast.forecasting.trained import Trained, restore
from roadcast.forecasting.training import Standing, TooLittleHistory, Verdict
from roadcast.pipeline.past import Span
from roadcast.pipeline.training import Plan, Trainer, TrainingConfig

HORIZONS = 6
AUTOREGRESSION = GraphAutoregression()


def config(*names: str, added: Sequence[Added] = ()) -> TrainingConfig:
    return TrainingConfig(INTERVAL_MS, "UTC", HORIZONS, Tolerance(5.0, 0.1), names=names, added=added)


def given(history: History, *names: str, added: Sequence[Added] = ()) -> Trainer:
    """A trainer that has been handed a history, in two pieces."""
    trainer, half = Trainer(config(*names, added=added)), len(history) // 2
    trainer.begin(Span(len(history), history.end_ms, history.sensors, INTERVAL_MS, "UTC"))
    trainer.take(0, history.values[:half])
    trainer.take(half, history.values[half:])
    return trainer


def judged(trainer: Trainer, champion: Trained | None = None, learnt_ms: int | None = None) -> Verdict:
    plan = trainer.plan(Graph(), learnt_ms)
    assert isinstance(plan, Plan)
    for name in plan.names:
        trainer.fit(name)
        trainer.judge(name)
    if plan.champion and champion:
        trainer.judge_champion(champion)
    for target in plan.targets:
        trainer.learn(target)
    return trainer.decide()


def champion_of(history: History, forecaster: Forecaster = AUTOREGRESSION) -> Trained:
    fitted = forecaster.fit(history, Graph(), "speed", HORIZONS)
    return Trained(forecaster.name, {"speed": fitted}, Calibration.empty(HORIZONS))


def by_name(name: str) -> Forecaster:
    return next(forecaster for forecaster in every_forecaster() if forecaster.name == name)


@pytest.mark.parametrize("names", [("graph_autoregression",), ("graph_autoregression", "graph_mlp")])
def test_a_version_is_the_best_candidate_with_all_that_is_to_be_known_of_it(names: Sequence[str]) -> None:
    values = speeds(3 * DAY)
    history = history_of(values, np.round(values))
    trainer = given(history, *names)
    verdict = judged(trainer)
    assert [score.forecaster for score in verdict.scores] == ["last_value", "profile", *names]
    winner = min(verdict.scores[2:], key=lambda score: score.rmse).forecaster
    assert verdict.winner.forecaster == winner
    model = trainer.model()
    training = model.training
    assert (model.name, training.forecaster, training.targets) == ("traffic", winner, ("speed", "volume"))
    assert (training.sensors, training.horizons, training.interval_s, training.seed) == (3, HORIZONS, 300, 0)
    assert training.features == feature_names(HORIZONS)
    begin, end = from_ms(START_MS), from_ms(START_MS) + timedelta(days=3)
    assert (training.start, training.end) == (begin + timedelta(minutes=5), end)
    assert (training.judged_start, training.judged_end) == (begin + timedelta(days=2, minutes=5), end)
    assert training.metrics["rmse"] == verdict.winner.rmse == training.metrics[f"{winner}_rmse"]
    assert {name.split("/")[0] for name in model.parts} == {"speed", "volume"}
    restored = restore(by_name(winner), dict(model.parts))
    for target in ("speed", "volume"):
        whole = by_name(winner).fit(history, Graph(), target, HORIZONS).forecast(history)
        assert restored.fitted[target].forecast(history).median.tobytes() == whole.median.tobytes()
    rmse = verdict.winner.rmse  # it is begun by states with gaps put in, too
    assert rmse < restored.calibration.rmse() < 2 * rmse


def test_holidays_come_with_the_history_that_is_gathered() -> None:
    trainer = Trainer(config())
    trainer.begin(Span(DAY, START_MS, 3, INTERVAL_MS, "UTC", (15_411,)))
    trainer.take(0, speeds(DAY)[:, :, None])
    assert trainer.gathered().holidays == (15_411,)


def test_nothing_of_the_days_to_judge_by_is_learnt_before_they_are_judged() -> None:
    values = speeds(3 * DAY)
    noise = values.copy()
    noise[2 * DAY :] = np.random.default_rng(1).uniform(0, 80, (DAY, 3))
    state, forecasts = history_of(values), list[bytes]()
    for each in (values, noise):
        trainer = given(history_of(each), "graph_autoregression")
        trainer.plan(Graph(), None)
        trainer.fit("graph_autoregression")
        forecasts.append(trainer._fitted["graph_autoregression"].forecast(state).median.tobytes())
    assert forecasts[0] == forecasts[1]


def test_without_volumes_only_speed_is_learnt() -> None:
    trainer = given(history_of(speeds(2 * DAY)), "graph_autoregression")
    judged(trainer)
    model = trainer.model()
    assert model.training.targets == ("speed",)
    assert set(restore(AUTOREGRESSION, dict(model.parts)).fitted) == {"speed"}


@pytest.mark.parametrize("values", [speeds(2 * DAY, sensors=1), np.full((2 * DAY, 1), 60.0), np.zeros((2 * DAY, 2))])
def test_one_sensor_and_speeds_that_never_change_give_a_version(values: np.ndarray) -> None:
    trainer = given(history_of(values), "graph_autoregression", "graph_mlp")
    verdict = judged(trainer)
    metrics = trainer.model().training.metrics
    assert np.isfinite(list(metrics.values())).all()
    assert verdict.deserves is False or values.std() > 0


def test_a_worse_champion_is_beaten_and_an_equal_one_is_not() -> None:
    history = history_of(speeds(3 * DAY))
    until = START_MS + 2 * DAY * INTERVAL_MS
    noise = champion_of(history_of(np.random.default_rng(2).uniform(0, 80, (2 * DAY, 3))))
    equal = champion_of(history.until(2 * DAY))
    for champion, deserves in ((noise, True), (equal, False)):
        verdict = judged(given(history, "graph_autoregression"), champion, until)
        assert verdict.champion is not None
        assert verdict.champion[:2] == (Standing.CHAMPION, "graph_autoregression")
        assert verdict.champion.targets == verdict.winner.targets
        assert verdict.deserves is deserves, verdict.reason


def test_a_champion_that_has_learnt_of_the_days_to_judge_by_moves_them() -> None:
    history, until = history_of(speeds(10 * DAY)), START_MS + 9 * DAY * INTERVAL_MS
    verdict = judged(given(history, "graph_autoregression"), champion_of(history.until(9 * DAY)), until)
    assert verdict.start_ms == until + INTERVAL_MS
    assert verdict.champion is not None


def test_a_champion_that_has_learnt_of_the_last_day_stays() -> None:
    history, until = history_of(speeds(3 * DAY)), START_MS + (2 * DAY + 13) * INTERVAL_MS
    verdict = judged(given(history, "graph_autoregression"), champion_of(history), until)
    assert (verdict.champion, verdict.deserves) == (None, False)
    assert verdict.reason == (
        "the champion has learnt until 2012-03-14 01:05 UTC, and less than the day after that by which to judge it is "
        "stored"
    )


def test_too_little_history_is_an_answer_and_not_the_end_of_the_process() -> None:
    for values in (speeds(0), speeds(DAY)):
        assert isinstance(given(history_of(values)).plan(Graph(), None), TooLittleHistory)


def test_unknown_candidates_are_named() -> None:
    with pytest.raises(InvalidInput, match="forecaster blend: for 200000 sensors expected some of graph_autoreg"):
        config("graph_mlp", "blend").candidates(200_000)
    assert [each.name for each in config("graph_mlp").candidates(200_000)] == ["graph_mlp"]
