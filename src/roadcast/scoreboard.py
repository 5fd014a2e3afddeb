"""The scoreboard: what issued forecasts were worth, by local hour, horizon, state of congestion and sensor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from roadcast.domain.times import date_of
from roadcast.flow.congestion import STATES, states
from roadcast.flow.onsets import ONSET
from roadcast.forecasting.scoring import (
    INTERVAL,
    MEASURES,
    POINT,
    RELIABILITY,
    SERVED,
    TENTHS,
    Issues,
    Sums,
    Targets,
    Truth,
    candidate_sums,
    match,
    served_sums,
)
from roadcast.windows import local_hour

STRATA = (*STATES, ONSET)
"""What errors are told apart by: the states of congestion, and beside them the onset of jams."""
BY_SENSOR = POINT[:4]
"""What is summed for each sensor."""
_HOURS = 24


class Group(NamedTuple):
    """Whose forecasts are summed up, and for what. publisher: the number of the model, of what was published."""

    day: date
    hour: int
    forecaster: str
    publisher: int | None
    horizon_minutes: int
    state: str


class SensorSums(NamedTuple):
    """The sums of one local day by sensor and forecaster, as rows [n]; sums: [n, BY_SENSOR, H]."""

    day: date
    sensor_no: NDArray[np.int32]
    forecaster: Sequence[str]
    sums: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Score:
    """The sums of a forecaster's errors at one horizon, and of what they were told apart by.

    measures: sums by their names in `scoring.MEASURES`; tenths: by those in `scoring.RELIABILITY`; state: one of
    `STRATA`.
    """

    model: str
    horizon_minutes: int
    measures: Mapping[str, float]
    tenths: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])
    state: str | None = None
    hour: int | None = None
    sensor_no: int | None = None


def as_scores(groups: Sequence[Group], sums: Sums) -> Iterator[Score]:
    """The sums of each group as a score, by hour and state."""
    for group, measures, tenths in zip(groups, sums.measures.tolist(), sums.tenths.tolist(), strict=True):
        yield Score(
            group.forecaster,
            group.horizon_minutes,
            dict(zip(MEASURES, measures, strict=True)),
            dict(zip(RELIABILITY, tenths, strict=True)),
            group.state,
            group.hour,
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Issues beside what came true. hours: the local hours since 1970 of the truth's ticks [T]."""

    issues: Issues
    targets: Targets
    hours: NDArray[np.int64]
    interval_ms: int

    @classmethod
    def of(cls, issues: Issues, truth: Truth, interval_ms: int, timezone: str) -> "Comparison":
        """Of every forecast whose target is among the ticks of `truth` and was measured."""
        return cls(issues, match(issues, truth, interval_ms), local_hour(truth.ends_ms, timezone), interval_ms)

    def by_state(self) -> tuple[list[Group], Sums]:
        """The sums by hour, forecaster, horizon and state of congestion."""
        return self._by_stratum(states(self.targets.actual, self.targets.reference))

    def near_onset(self) -> tuple[list[Group], Sums]:
        """The sums by hour, forecaster and horizon, in the stratum `onset`."""
        return self._by_stratum(np.full(len(self.targets.row), STRATA.index(ONSET), np.int64))

    def by_sensor(self) -> Iterator[SensorSums]:
        """The sums by local day, sensor and forecaster, over the horizons."""
        sensors, place = np.unique(self.issues.sensor_no, return_inverse=True)
        days, day = np.unique(self.hours // _HOURS, return_inverse=True)
        shape = (len(days), len(sensors), self.issues.horizons)
        group = np.ravel_multi_index((day[self.targets.tick], place[self.targets.row], self.targets.step), shape)
        groups, medians = int(np.prod(shape)), {SERVED: self.issues.speed, **self.issues.candidates}
        each = [candidate_sums(median, self.targets, group, groups) for median in medians.values()]
        by_horizon = np.stack([sums[:, : len(BY_SENSOR)].reshape(*shape, -1) for sums in each], axis=1)
        sums = by_horizon.swapaxes(-1, -2)  # [days, forecasters, sensors, BY_SENSOR, H]
        names = list(medians)
        for i, one in enumerate(days.tolist()):
            which, sensor = np.nonzero(sums[i, :, :, 0].any(axis=-1))
            yield SensorSums(date_of(one), sensors[sensor], [names[j] for j in which.tolist()], sums[i, which, sensor])

    def _by_stratum(self, stratum: NDArray[np.int64]) -> tuple[list[Group], Sums]:
        slots, slot = np.unique(self.hours, return_inverse=True)
        shape = (len(slots), len(STRATA), self.issues.horizons)
        group = np.ravel_multi_index((slot[self.targets.tick], stratum, self.targets.step), shape)
        groups = int(np.prod(shape))
        found = [self._named(SERVED, number, sums, slots, shape) for number, sums in self._published(group, groups)]
        for name, median in self.issues.candidates.items():
            sums = _without_intervals(candidate_sums(median, self.targets, group, groups))
            found.append(self._named(name, None, sums, slots, shape))
        return _joined(found)

    def _published(self, group: NDArray[np.int64], groups: int) -> Iterator[tuple[int, Sums]]:
        """What each model has published."""
        models, model = np.unique(self.issues.model_no, return_inverse=True)
        sums = served_sums(self.issues, self.targets, model[self.targets.row] * groups + group, groups * len(models))
        for i, number in enumerate(models.tolist()):
            own = slice(i * groups, (i + 1) * groups)
            yield number, Sums(sums.measures[own], sums.tenths[own])

    def _named(
        self, forecaster: str, publisher: int | None, sums: Sums, slots: NDArray[np.int64], shape: tuple[int, int, int]
    ) -> tuple[list[Group], Sums]:
        """The groups that hold anything, with their keys."""
        held = np.flatnonzero(sums.measures.any(axis=1) | sums.tenths.any(axis=(1, 2)))
        slot, stratum, step = np.unravel_index(held, shape)
        minutes = (step + 1) * (self.interval_ms // 60_000)
        hours: list[int] = slots[slot].tolist()
        names = [STRATA[int(i)] for i in stratum]
        groups = [
            Group(date_of(hour // _HOURS), hour % _HOURS, forecaster, publisher, ahead, state)
            for hour, ahead, state in zip(hours, minutes.tolist(), names, strict=True)
        ]
        return groups, Sums(sums.measures[held], sums.tenths[held])


def _without_intervals(point: NDArray[np.float64]) -> Sums:
    measures = np.pad(point, ((0, 0), (0, len(INTERVAL))))
    return Sums(measures, np.zeros((len(point), len(RELIABILITY), TENTHS)))


def _joined(parts: Sequence[tuple[list[Group], Sums]]) -> tuple[list[Group], Sums]:
    groups = [group for some, _ in parts for group in some]
    measures, tenths = zip(*(sums for _, sums in parts), strict=True)
    return groups, Sums(np.concatenate(measures), np.concatenate(tenths))
