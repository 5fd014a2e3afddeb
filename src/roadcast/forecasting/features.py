"""What the learned forecasters see of a sensor: nothing that names it, so that they serve sensors they never saw."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.sensor import REFERENCE_PERCENTILE
from roadcast.domain.times import DAY_MS
from roadcast.forecasting.calendar import DAY_TYPES, Calendar
from roadcast.forecasting.deviations import fill
from roadcast.forecasting.forecaster import MEDIAN, PROBABILITIES
from roadcast.forecasting.graph import KINDS, Graph, Neighbourhood, learn_links
from roadcast.forecasting.history import STATE_TICKS, History
from roadcast.forecasting.last_value import repeated
from roadcast.forecasting.profile import FittedProfile, fit_profile

OWN_LAGS = (1, 2, 3, 4, 5, 6, 8, 11, 15, 19, 23)
NEIGHBOUR_LAGS = (1, 3, 6, 11)
"""At these lags deviations are told by how far they were from those of now, which says the trend at once."""
NETWORK_LAGS = (0, 3, 11)
AGE_LAGS = (0, 6)
"""At these lags a sensor tells how old its newest reading was then."""
SPANS = (3, 6, 12, 24)
"""Over so many ticks deviations and the sizes of their changes are averaged."""
WAVES = (1, 2)
"""Waves a day that tell the time of day."""
LEAST_SCALE = 0.1
"""A sensor's scale is at least this share of the mean, so that what is constant does not blow up."""
SAMPLED_TICKS = 2_000
"""So many ticks tell what is seldom exceeded, and how the last value errs."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A run of T ticks, prepared once for the features of any of them.

    filled: [T, S] deviations in units of each sensor's scale, none missing; age: [T, S] ticks since the newest
    reading; typical: [T or more, S] in the target's unit, NaN where unknown; when: of as many ticks; scale,
    reference: [S].
    """

    filled: NDArray[np.float32]
    age: NDArray[np.float32]
    typical: NDArray[np.float32]
    when: Calendar
    scale: NDArray[np.float32]
    reference: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class View:
    """What must be known of a network before its features.

    scale: [S] mean absolute deviations; reference: [S] values that are seldom exceeded, such as the speed of free
    flow; last_value_errors: [H, Q] quantiles of how the last value errs, the median taken off; slots: ticks of a day.
    """

    profile: FittedProfile
    neighbours: Neighbourhood
    scale: NDArray[np.float32]
    reference: NDArray[np.float32]
    last_value_errors: NDArray[np.float32]
    slots: int

    @property
    def mean_scale(self) -> float:
        """The mean over all sensors, in the target's unit."""
        return float(self.scale.mean()) if len(self.scale) else 1.0

    def now(self, state: History) -> tuple[Scene, NDArray[np.float32]]:
        """The scene of a state's last STATE_TICKS ticks and all horizons, and the features [S, F] of now."""
        state = _padded(state.last(STATE_TICKS))
        when = state.calendar(self.profile.horizons)
        typical = self.profile.typical.at(when, state.sensors)
        scene = self.scene(state.of(self.profile.target) - typical[:STATE_TICKS], typical, when)
        return scene, self.features(scene, np.array([STATE_TICKS - 1]))[0]

    def scene(self, deviations: NDArray[np.float32], typical: NDArray[np.float32], when: Calendar) -> Scene:
        """Of deviations [T, S] and what is typical [T or more, S], in the target's unit."""
        sensors = deviations.shape[1]
        scale, reference = _for(sensors, self.scale, self.mean_scale), _for(sensors, self.reference, 1)
        filled = fill(deviations, self.profile.decay, STATE_TICKS) / scale
        return Scene(filled, _ages(deviations), typical, when, scale, reference)

    def features(self, scene: Scene, ticks: NDArray[np.int64]) -> NDArray[np.float32]:
        """[n, S, F], at `ticks` [n] of a scene. Ticks before the scene are taken to be like its first.

        The last H features tell what is typical at each horizon; they are those that `cases` chooses from.
        """
        back = np.maximum(ticks - np.arange(STATE_TICKS)[:, None], 0)
        ahead = ticks + np.arange(self.profile.horizons + 1)[:, None]
        past = scene.filled[back]
        change = np.abs(np.diff(past, axis=0))
        typical = np.nan_to_num((scene.typical[ahead] - scene.reference) / scene.scale)
        now = typical[0] + past[0]
        relative = np.broadcast_to(scene.scale / scene.reference, now.shape)
        groups = [
            past[:1],
            past[list(OWN_LAGS)] - past[0],
            np.stack([past[:span].mean(axis=0) - past[0] for span in SPANS]),
            np.stack([change[:span].mean(axis=0) for span in SPANS]),
            self._near(np.concatenate([past[:1], past[list(NEIGHBOUR_LAGS)] - past[0], [now * relative]])),
            np.broadcast_to(self._network(past[list(NETWORK_LAGS)]), (len(NETWORK_LAGS), *now.shape)),
            scene.age[back[list(AGE_LAGS)]] / STATE_TICKS,
            np.stack([typical[0], now, now * relative, relative]),
            self._clock(scene.when, ticks, now.shape),
            typical[1:] - typical[0],
        ]
        return np.concatenate(groups, dtype=np.float32).transpose(1, 2, 0)

    def decayed(self, scene: Scene, ticks: NDArray[np.int64]) -> NDArray[np.float32]:
        """The deviations [n, S, H] that would be left of those at `ticks` [n] of a scene."""
        return scene.filled[ticks][:, :, None] * self.profile.decay[1 : self.profile.horizons + 1]

    def cases(
        self,
        rows: NDArray[np.float32],
        decayed: NDArray[np.float32],
        row: NDArray[np.int64],
        horizon: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """[N, F − H + 3]: features [n, F] and decayed deviations [n, H] of `row` [N], as seen from `horizon` [N]."""
        horizons = self.profile.horizons
        told = (horizon, decayed[row, horizon], rows[row, rows.shape[1] - horizons + horizon])
        return np.column_stack([rows[row, : rows.shape[1] - horizons], *told]).astype(np.float32)

    def expected(
        self, state: History, scene: Scene, deviations: NDArray[np.float32], otherwise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Of the state that gave the scene, from deviations [S, H, K] around the decayed ones.

        Where nothing is typical, the last value plus `otherwise` [H, K].
        """
        horizons = self.profile.horizons
        decayed = self.decayed(scene, np.array([STATE_TICKS - 1]))[0]
        typical = scene.typical[STATE_TICKS:].T
        last = repeated(state.last(STATE_TICKS).of(self.profile.target), horizons)
        around = typical[:, :, None] + (deviations + decayed[:, :, None]) * scene.scale[:, None, None]
        known = np.where(np.isnan(typical)[:, :, None], last[:, :, None] + otherwise, around)
        return np.maximum(known, 0, dtype=np.float32)

    def _network(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Means [L, n, 1] over the sensors that were there at the fit of values [L, n, S]."""
        known = values[:, :, : len(self.scale)]
        return known.sum(axis=2, keepdims=True) / max(known.shape[2], 1)

    def _near(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Means [L × KINDS, n, S] over neighbours of values [L, n, S]."""
        lags, ticks, sensors = values.shape
        means = self.neighbours.means(values.reshape(lags * ticks, sensors))
        return means.reshape(lags, ticks, sensors, KINDS).transpose(0, 3, 1, 2).reshape(lags * KINDS, ticks, sensors)

    def _clock(self, when: Calendar, ticks: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The time of day as waves and the type of day, [2 × WAVES + DAY_TYPES, n, S]."""
        angle = 2 * np.pi * np.array(WAVES)[:, None] * when.slot[ticks] / self.slots
        kind = when.day_type[ticks] == np.arange(DAY_TYPES)[:, None]
        told = np.concatenate([np.sin(angle), np.cos(angle), kind])
        return np.broadcast_to(told[:, :, None], (len(told), *shape))


def feature_names(horizons: int) -> tuple[str, ...]:
    """What each of a view's features is, in order: a model is for code that says the same.

    Whoever changes what a feature means, and not its number or its lag, changes its name.
    """
    deviations = ["deviation", *(f"deviation {lag} ticks before, from now" for lag in OWN_LAGS)]
    spans = [*(f"mean deviation of {n} ticks, from now" for n in SPANS), *(f"mean change of {n} ticks" for n in SPANS)]
    near = ["deviation", *(f"deviation {lag} ticks before, from now" for lag in NEIGHBOUR_LAGS), "value by free flow"]
    return (
        *deviations,
        *spans,
        *(f"neighbours of kind {kind}: {name}" for name in near for kind in range(KINDS)),
        *(f"deviation of the network {lag} ticks before" for lag in NETWORK_LAGS),
        *(f"age of the newest reading {lag} ticks before" for lag in AGE_LAGS),
        *("typical by scale", "value by scale", "value by free flow", "scale by free flow"),
        *(f"{wave} of {n} waves a day" for wave in ("sine", "cosine") for n in WAVES),
        *(f"day of type {kind}" for kind in range(DAY_TYPES)),
        *(f"typical in {n} ticks, from now" for n in range(1, horizons + 1)),
    )


def learn_view(history: History, graph: Graph, target: str, horizons: int) -> tuple[View, Scene, NDArray[np.float32]]:
    """The view, the scene of all its history, and the history's deviations [T, S] in units of each sensor's scale.

    What is typical of a tick is told by the other days, as it will be when forecasting. Links are learnt where the
    graph has none.
    """
    profile, typical = fit_profile(history, target, horizons)
    observed = history.of(target)
    deviations = observed - typical
    errors = _last_value_errors(observed, horizons)
    linked = graph if len(graph.weight) else learn_links(deviations)
    neighbours = linked.neighbourhood(history.sensors)
    view = View(profile, neighbours, _scale(deviations), _reference(observed), errors, DAY_MS // history.interval_ms)
    scene = view.scene(deviations, typical, history.calendar())
    return view, scene, deviations / scene.scale


def _padded(state: History) -> History:
    missing = np.full((STATE_TICKS - len(state), *state.values.shape[1:]), np.nan, np.float32)
    return replace(state, values=np.concatenate([missing, state.values]))


def _for(sensors: int, known: NDArray[np.float32], otherwise: float) -> NDArray[np.float32]:
    """What is known of the first sensors, for so many sensors."""
    return np.concatenate([known[:sensors], np.full(max(sensors - len(known), 0), otherwise, np.float32)])


def _ages(deviations: NDArray[np.float32]) -> NDArray[np.float32]:
    tick = np.arange(len(deviations), dtype=np.float32)[:, None]
    newest = np.maximum.accumulate(np.where(np.isnan(deviations), np.float32(-STATE_TICKS), tick), axis=0)
    return np.minimum(tick - newest, STATE_TICKS)


def _scale(deviations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean absolute deviations [S], as if each sensor had shown one more that is like all others."""
    known = np.count_nonzero(~np.isnan(deviations), axis=0)
    total = np.nansum(np.abs(deviations), axis=0, dtype=np.float64)
    overall = total.sum() / max(known.sum(), 1) or 1.0
    return np.maximum((total + overall) / (known + 1), LEAST_SCALE * overall).astype(np.float32)


def _reference(observed: NDArray[np.float32]) -> NDArray[np.float32]:
    seen = observed[_sampled(len(observed))]
    reference = np.ones(seen.shape[1], np.float32)
    heard = ~np.isnan(seen).all(axis=0)
    if heard.any():
        reference[heard] = np.nanpercentile(seen[:, heard], REFERENCE_PERCENTILE, axis=0)
    return np.where(reference > 0, reference, 1).astype(np.float32)


def _last_value_errors(observed: NDArray[np.float32], horizons: int) -> NDArray[np.float32]:
    """[H, Q]; zeros where nothing is known."""
    quantiles = np.zeros((horizons, len(PROBABILITIES)), np.float32)
    for horizon in range(1, horizons + 1):
        ticks = _sampled(len(observed) - horizon)
        errors = observed[ticks + horizon] - observed[ticks]
        known = errors[~np.isnan(errors)]
        if known.size:
            quantiles[horizon - 1] = np.quantile(known, PROBABILITIES)
    return quantiles - quantiles[:, [MEDIAN]]


def _sampled(ticks: int) -> NDArray[np.int64]:
    return np.arange(0, ticks, max(1, -(-ticks // SAMPLED_TICKS)))
