"""The parts of forecasters, against brute force and against processes whose best forecast is known."""

from dataclasses import replace

import numpy as np
import pytest

from roadcast.forecasting.autoregression import GraphAutoregression
from roadcast.forecasting.blend import Blend
from roadcast.forecasting.boosting import GradientBoosting
from roadcast.forecasting.deviations import fill, fit_decay
from roadcast.forecasting.forecaster import MEDIAN, Forecaster
from roadcast.forecasting.graph import LEAST_CORRELATION, LINKS, Graph, learn_links
from roadcast.forecasting.graph_mlp import GraphMlp
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.perceptron import Training
from roadcast.forecasting.profile import Profile
from roadcast.forecasting.typical_day import learn_typical_day

NAN = np.nan
DAY = 288
MONDAY_NOON_MS = 1_331_553_600_000
"""2012-03-12T12:00Z, a Monday."""


def history_of(speed: np.ndarray, end_ms: int = MONDAY_NOON_MS) -> History:
    return History(speed[:, :, None].astype(np.float32), ("speed",), end_ms, 300_000, "UTC")


def days_of(levels: list[float], sensors: int = 1) -> np.ndarray:
    """Whole days at constant levels."""
    return np.repeat(np.array(levels, float)[:, None], sensors, axis=1).repeat(DAY, axis=0)


MIDNIGHT_MS = MONDAY_NOON_MS - 43_200_000


def test_typical_day_draws_each_type_to_all_days() -> None:
    """Wednesday to Sunday at 60, 62, 64, 30, 40: the mean of all is 51.2, and counts as one day."""
    typical, _ = learn_typical_day(history_of(days_of([60, 62, 64, 30, 40]), MIDNIGHT_MS), "speed")
    expected = [(60 + 62 + 64 + 51.2) / 4, (30 + 51.2) / 2, (40 + 51.2) / 2]
    np.testing.assert_allclose(typical.values[:, 100, 0], expected, rtol=1e-5)


def test_deviations_leave_the_own_day_out() -> None:
    """Of Thursday 60, Friday 62, Saturday 64, Sunday 30: Friday is measured by Thursday and the other days' mean."""
    history = history_of(days_of([60, 62, 64, 30]), MIDNIGHT_MS)
    deviations = history.of("speed") - learn_typical_day(history, "speed")[1]
    others = (60 + 64 + 30) / 3
    assert deviations[DAY + 100, 0] == pytest.approx(62 - (60 + others) / 2, abs=1e-4)
    assert deviations[3 * DAY + 100, 0] == pytest.approx(30 - (60 + 62 + 64) / 3, abs=1e-4)


def test_one_day_alone_deviates_from_nothing() -> None:
    typical, of_others = learn_typical_day(history_of(days_of([60]), MIDNIGHT_MS), "speed")
    assert np.isnan(of_others).all()
    np.testing.assert_allclose(typical.values, 60, rtol=1e-5)


def test_typical_day_is_smoothed_by_a_gaussian_of_15_minutes_around_the_clock() -> None:
    speed = days_of([0, 0])
    speed[[0, DAY]] = 100
    typical, _ = learn_typical_day(history_of(speed, MIDNIGHT_MS), "speed")
    distance = np.minimum(np.arange(DAY), DAY - np.arange(DAY))
    bell = np.exp(-((distance / 3) ** 2) / 2)
    np.testing.assert_allclose(typical.values[2, :, 0], 100 * bell / bell.sum(), atol=1e-3)


def test_times_of_day_never_seen_are_not_typical() -> None:
    typical, _ = learn_typical_day(history_of(days_of([60])[: DAY // 2]), "speed")
    known = ~np.isnan(typical.values[0, :, 0])
    assert known[: DAY // 2].all()
    assert known[DAY // 2 + 3 : -3].sum() == 0


def test_decay_is_least_squares_at_each_lag() -> None:
    random = np.random.default_rng(3)
    deviations = random.normal(0, 1, (300, 4)).cumsum(axis=0).astype(np.float32)
    deviations[random.random((300, 4)) < 0.2] = NAN
    decay = fit_decay(deviations, 3)
    for lag in (1, 2, 3):
        early, late = deviations[:-lag].ravel(), deviations[lag:].ravel()
        both = ~np.isnan(early + late)
        slope = np.linalg.lstsq(early[both, None], late[both], rcond=None)[0][0]
        assert decay[lag] == pytest.approx(min(slope, 1), rel=1e-4)
    assert decay[0] == 1


def test_decay_without_pairs_holds_on() -> None:
    np.testing.assert_array_equal(fit_decay(np.full((5, 2), NAN, np.float32), 7), np.ones(8))


def test_missing_deviations_decay_and_end() -> None:
    filled = fill(np.array([[NAN], [8], [NAN], [NAN], [NAN], [2]], np.float32), np.array([1, 0.5, 0.25, 0.1]), reach=3)
    assert filled.ravel().tolist() == [0, 8, 4, 2, 0, 2]


def test_neighbours_of_a_chain_up_and_down_one_and_two_hops() -> None:
    chain = Graph(np.arange(3), np.arange(1, 4), np.ones(3, np.float32))
    means = chain.neighbourhood(4).means(np.array([[1, 2, 3, 4]], np.float32))[0]
    assert means.T.tolist() == [[0, 1, 2, 3], [2, 3, 4, 0], [0, 0, 1, 2], [3, 4, 0, 0]]


def test_neighbours_are_weighted_and_unlinked_newcomers_have_none() -> None:
    merge = Graph(np.array([0, 1, 2]), np.array([2, 2, 2]), np.array([3, 1, 9], np.float32))
    means = merge.neighbourhood(3).means(np.array([[10, 20, 5, 7]], np.float32))[0]
    assert means[:, 0].tolist() == [0, 0, (3 * 10 + 20) / 4, 0]
    assert means[:, 1].tolist() == [5, 5, 0, 0]


def test_sensors_both_one_and_two_hops_away_count_once() -> None:
    triangle = Graph(np.array([0, 1, 0]), np.array([1, 2, 2]), np.ones(3, np.float32))
    means = triangle.neighbourhood(3).means(np.array([[1, 2, 4]], np.float32))[0]
    assert means[2].tolist() == [1.5, 0, 0, 0]


def test_links_are_learnt_from_what_leads() -> None:
    """Of deviations that travel down a chain, in one tick each: every link of the chain and no other."""
    deviation = travelling(np.random.default_rng(9), 3, 10).astype(np.float32)
    deviation[np.random.default_rng(10).random(deviation.shape) < 0.1] = NAN
    links = learn_links(deviation)
    assert sorted(zip(links.upstream.tolist(), links.downstream.tolist(), strict=True)) == [
        (i, i + 1) for i in range(9)
    ]
    assert (links.weight > 0.7).all()


def test_learnt_links_are_those_of_highest_correlation() -> None:
    random = np.random.default_rng(11)
    common = random.normal(0, 1, (1_000, 1)).cumsum(axis=0)
    deviation = (common + random.normal(0, 1, (1_000, 20)) * np.linspace(1, 40, 20)).astype(np.float32)
    links = learn_links(deviation)
    lagged = np.corrcoef(deviation[:-1].T, deviation[1:].T)[:20, 20:]
    np.fill_diagonal(lagged, 0)
    for sensor in range(20):
        best = [j for j in np.argsort(-lagged[:, sensor])[:LINKS] if lagged[j, sensor] >= LEAST_CORRELATION]
        assert sorted(links.upstream[links.downstream == sensor]) == sorted(best)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 3), (50, 1), (50, 3)])
def test_nothing_links_what_never_changes(shape: tuple[int, int]) -> None:
    assert len(learn_links(np.ones(shape, np.float32)).weight) == 0


def around_rush_hours(days: int, deviation: np.ndarray) -> np.ndarray:
    """A typical day with two rush hours, and deviations from it."""
    of_day = np.arange(days * DAY) % DAY / DAY
    return (50 + 15 * np.cos(4 * np.pi * of_day))[:, None] + deviation


def test_profile_forecasts_a_decaying_deviation() -> None:
    """Deviations that keep 0.9 of themselves at each tick: the best forecast is known."""
    random = np.random.default_rng(4)
    deviation = np.zeros((14 * DAY, 8))
    for tick in range(1, len(deviation)):
        deviation[tick] = 0.9 * deviation[tick - 1] + random.normal(0, 1, 8)
    history = history_of(around_rush_hours(14, deviation))
    fitted = Profile().fit(history, Graph(), "speed", 12)
    clean = around_rush_hours(14, np.zeros((14 * DAY, 8)))
    ahead = np.arange(1, 13)
    known = 13 * DAY
    median = fitted.forecast(history.until(known)).median
    best = clean[known : known + 12].T + deviation[known - 1][:, None] * 0.9**ahead
    np.testing.assert_allclose(fitted.decay[1:13], 0.9**ahead, atol=0.04)
    assert np.abs(median - best).mean() < 1


def travelling(random: np.random.Generator, days: int, sensors: int) -> np.ndarray:
    """Deviations that enter at sensor 0 and travel one sensor downstream in each tick."""
    entering = random.normal(0, 4, days * DAY + sensors)
    return np.stack([entering[sensors - s : len(entering) - s] for s in range(sensors)], axis=1)


def test_autoregression_hears_what_comes_from_upstream() -> None:
    """What arrives two ticks ahead is two hops upstream now; the profile alone cannot know it."""
    random = np.random.default_rng(5)
    deviation = travelling(random, 14, 10)
    history = history_of(around_rush_hours(14, deviation))
    chain = Graph(np.arange(9), np.arange(1, 10), np.ones(9, np.float32))
    truth = history.of("speed")
    errors = {}
    for forecaster in (Profile(), GraphAutoregression()):
        fitted = forecaster.fit(history.until(13 * DAY), chain, "speed", 2)
        issues = range(13 * DAY, 14 * DAY - 2)
        error = [fitted.forecast(history.until(known)).median - truth[known : known + 2].T for known in issues]
        errors[forecaster.name] = np.sqrt(np.mean(np.square(error)[:, 2:], axis=(0, 1)))
    assert (errors["profile"] > 3.5).all()
    assert (errors["graph_autoregression"] < 2).all()


LEARNED: list[Forecaster] = [GraphAutoregression(), GraphMlp(), GradientBoosting(), Blend()]


@pytest.mark.parametrize("forecaster", LEARNED, ids=lambda forecaster: forecaster.name)
def test_without_pairs_to_learn_from_it_is_the_profile(forecaster: Forecaster) -> None:
    random = np.random.default_rng(6)
    history = history_of(around_rush_hours(1, random.normal(0, 2, (DAY, 3))))
    state = history.last(STATE_TICKS)
    profile, other = (kind.fit(history, Graph(), "speed", 4).forecast(state).median for kind in (Profile(), forecaster))
    np.testing.assert_allclose(other, profile, atol=1e-3)


def test_mlp_hears_what_comes_from_upstream_and_knows_how_far_it_errs() -> None:
    """One tick ahead all is known but noise of 1 mph, ten ticks ahead nothing is: the spread is that of what enters."""
    random = np.random.default_rng(7)
    deviation = travelling(random, 14, 10) + random.normal(0, 1, (14 * DAY, 10))
    history = history_of(around_rush_hours(14, deviation))
    chain = Graph(np.arange(9), np.arange(1, 10), np.ones(9, np.float32))
    fitted = GraphMlp(training=Training(hidden=(32, 32), epochs=4)).fit(history.until(13 * DAY), chain, "speed", 10)
    issues = range(13 * DAY, 14 * DAY - 10)
    forecasts = np.stack([fitted.forecast(history.until(known)).quantiles for known in issues])[:, 2:]
    truth = np.stack([history.of("speed")[known : known + 10].T for known in issues])[:, 2:]
    error = np.sqrt(np.mean(np.square(forecasts[..., MEDIAN] - truth), axis=(0, 1)))
    assert error[0] < 2
    assert error[9] == pytest.approx(4.2, rel=0.1)
    low, high = forecasts[..., 1], forecasts[..., 5]
    assert np.mean((low <= truth) & (truth <= high), axis=(0, 1))[9] == pytest.approx(0.8, abs=0.05)
    near, far = np.median(high - low, axis=(0, 1))[[0, 9]]
    assert near < 0.65 * far


def test_mlp_goes_no_further_than_what_it_has_seen() -> None:
    """Far beyond, only the decaying deviation still grows."""
    random = np.random.default_rng(8)
    history = history_of(around_rush_hours(4, random.normal(0, 3, (4 * DAY, 3))))
    fitted = GraphMlp(training=Training(hidden=(16,))).fit(history, Graph(), "speed", 2)
    far, further = (replace(history, values=np.full_like(history.values, level)) for level in (1_000, 3_000))
    grown = fitted.forecast(further).median - fitted.forecast(far).median
    np.testing.assert_allclose(grown, np.tile(2_000 * fitted.view.profile.decay[1:3], (3, 1)), rtol=1e-3, atol=0.5)
