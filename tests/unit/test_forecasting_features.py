"""What the learned forecasters see and learn from, against brute force and against symmetries that must hold."""

from dataclasses import replace

import numpy as np
import pytest

from roadcast.domain.sensor import REFERENCE_PERCENTILE
from roadcast.forecasting.examples import sample
from roadcast.forecasting.features import View, feature_names, learn_view
from roadcast.forecasting.graph import Graph
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.typical_day import learn_typical_day

DAY = 288
HORIZONS = 4
SENSORS = 6
CHAIN = Graph(np.arange(SENSORS - 1), np.arange(1, SENSORS), np.ones(SENSORS - 1, np.float32))


def week(days: int = 5, missing: float = 0.0) -> History:
    random = np.random.default_rng(1)
    of_day = np.arange(days * DAY) % DAY / DAY
    walk = random.normal(0, 1, (days * DAY, SENSORS)).cumsum(axis=0)
    walk -= walk.mean(axis=0)
    speed = 60 + 10 * np.cos(4 * np.pi * of_day)[:, None] + walk / 5
    speed[random.random(speed.shape) < missing] = np.nan
    return History(np.maximum(speed, 1)[:, :, None].astype(np.float32), ("speed",), 1_331_553_600_000, 300_000, "UTC")


def view_of(history: History, graph: Graph = CHAIN) -> View:
    return learn_view(history, graph, "speed", HORIZONS)[0]


def test_a_state_shows_what_a_long_run_of_ticks_shows() -> None:
    """Where the oldest readings of the state are there, so that no older ones stand in for them."""
    ticks = np.array([500, 777, 5 * DAY - 1])
    history = week(missing=0.2)
    history.values[ticks - STATE_TICKS + 1] = week().values[ticks - STATE_TICKS + 1]
    view = view_of(history)
    when = history.calendar(HORIZONS)
    typical = view.profile.typical.at(when, SENSORS)
    scene = view.scene(history.of("speed") - typical[: len(history)], typical, when)
    for tick, expected in zip(ticks, view.features(scene, ticks), strict=True):
        _, seen = view.now(history.until(tick + 1))
        np.testing.assert_allclose(seen, expected, atol=1e-5)


def test_the_unit_does_not_matter() -> None:
    history = week()
    tenfold = replace(history, values=history.values * 10)
    _, seen = view_of(history).now(history)
    _, of_tenfold = view_of(tenfold).now(tenfold)
    np.testing.assert_allclose(seen, of_tenfold, atol=1e-3)


def test_the_order_of_sensors_does_not_matter() -> None:
    history = week()
    order = np.array([3, 0, 5, 1, 4, 2])
    place = np.argsort(order)
    turned = replace(history, values=history.values[:, order])
    graph = Graph(place[CHAIN.upstream], place[CHAIN.downstream], CHAIN.weight)
    _, seen = view_of(history).now(history)
    _, of_turned = view_of(turned, graph).now(turned)
    np.testing.assert_allclose(seen[order], of_turned, atol=1e-4)


def test_features_differ_between_sensors_and_are_finite() -> None:
    history = week(missing=0.3)
    _, seen = view_of(history).now(history)
    assert seen.dtype == np.float32
    assert np.isfinite(seen).all()
    assert len(np.unique(seen[:, 0])) == SENSORS


def test_scale_and_reference_are_those_of_each_sensor() -> None:
    history = week()
    view = view_of(history)
    observed = history.of("speed")
    deviations = observed - learn_typical_day(history, "speed")[1]
    np.testing.assert_allclose(view.scale, np.abs(deviations).mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(view.reference, np.percentile(observed, REFERENCE_PERCENTILE, axis=0), rtol=0.01)


def test_how_the_last_value_errs_is_what_it_did() -> None:
    history = week(3)
    rises = history.of("speed")[3:] - history.of("speed")[:-3]
    expected = np.quantile(rises, 0.95) - np.median(rises)
    assert view_of(history).last_value_errors[2, -1] == pytest.approx(expected, rel=0.02)


def test_examples_are_what_followed() -> None:
    """Deviations left and target together, back in mph and on what is typical, are the speeds that came true."""
    history = week(missing=0.1)
    view, scene, deviations = learn_view(history, CHAIN, "speed", HORIZONS)
    examples = sample(view, scene, deviations, np.random.default_rng(0))
    scale = examples.weights * view.mean_scale
    followed = np.sort(((examples.decayed + examples.targets) * scale[:, None])[:, 0])
    ticks = np.arange(STATE_TICKS - 1, len(history) - HORIZONS)
    expected = (history.of("speed") - learn_typical_day(history, "speed")[1])[ticks + 1].ravel()
    ahead = [(history.of("speed") - learn_typical_day(history, "speed")[1])[ticks + h] for h in range(1, HORIZONS + 1)]
    some = ~np.isnan(np.stack(ahead)).all(axis=0)
    assert len(examples) == np.count_nonzero(some)
    np.testing.assert_allclose(followed, np.sort(expected[some.ravel()]), atol=1e-3)


def test_examples_have_gaps_put_in() -> None:
    history = week()
    view, scene, deviations = learn_view(history, CHAIN, "speed", HORIZONS)
    assert scene.age.max() == 0
    rows = sample(view, scene, deviations, np.random.default_rng(0)).rows
    complete = view.features(scene, np.arange(STATE_TICKS - 1, len(history) - HORIZONS)).reshape(-1, rows.shape[1])
    gapped = {row.tobytes() for row in rows} - {row.tobytes() for row in np.ascontiguousarray(complete)}
    assert 0.1 < len(gapped) / len(rows) < 0.3


def test_more_rows_than_are_needed_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roadcast.forecasting.examples.MAX_ROWS", 1_000)
    monkeypatch.setattr("roadcast.forecasting.examples.LEAST_TICKS", 400)
    view, scene, deviations = learn_view(week(), CHAIN, "speed", HORIZONS)
    examples = sample(view, scene, deviations, np.random.default_rng(0))
    assert 800 < len(examples) < 1_200


def test_every_feature_has_a_name_of_its_own_in_its_place() -> None:
    """What the names say of some features, worked out from the history."""
    history = week()
    view = view_of(history)
    names = feature_names(HORIZONS)
    _, seen = view.now(history)
    assert seen.shape == (SENSORS, len(names))
    assert len(set(names)) == len(names)
    typical = view.profile.typical.at(history.calendar(), SENSORS)
    deviations = (history.of("speed") - typical) / view.scale
    slot = history.calendar().slot[-1]
    expected = {
        "deviation": deviations[-1],
        "deviation 15 ticks before, from now": deviations[-16] - deviations[-1],
        "mean change of 3 ticks": np.abs(np.diff(deviations, axis=0))[-3:].mean(axis=0),
        "neighbours of kind 0: deviation 3 ticks before, from now": np.append(
            0, (deviations[-4] - deviations[-1])[:-1]
        ),
        "deviation of the network 11 ticks before": np.full(SENSORS, deviations[-12].mean()),
        "age of the newest reading 6 ticks before": np.zeros(SENSORS),
        "value by scale": (history.of("speed")[-1] - view.reference) / view.scale,
        "cosine of 2 waves a day": np.full(SENSORS, np.cos(4 * np.pi * slot / DAY)),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(seen[:, names.index(name)], values, atol=1e-4, err_msg=name)
    kinds = [f"day of type {kind}" for kind in range(3)]
    assert seen[:, [names.index(kind) for kind in kinds]].sum() == SENSORS
