"""What the rollups say over time: congestion, patterns and trends, for REST and `analytics_update` alike.

Everything is summed first and divided afterwards (`windows.Totals`), of the network from its rollups, of one sensor
from its readings. All speeds and ratios of an answer have one weighting, that of all of its readings together: `volume`
where each speed has a volume above zero, else `none`. Days and hours are local; an hour's time is its start.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypedDict

from roadcast.domain.sensor import Sensor
from roadcast.domain.times import HOUR_MS, from_ms, to_ms
from roadcast.domain.units import Units
from roadcast.flow.congestion import CONGESTED_BELOW, SCHEME, CongestionLevel, level
from roadcast.flow.trend import CONFIDENCE, trend
from roadcast.live.documents import (
    SPEED_DECIMALS,
    VOLUME_DECIMALS,
    Number,
    SpeedUnit,
    rounded_number,
    speed_unit,
    whole,
)
from roadcast.storage import readings, rollups
from roadcast.storage.engine import Reader
from roadcast.storage.readings import Rows
from roadcast.windows import SUMS, Totals, group, local_day, local_hour, row_sums

COMPLETE_SHARE = 0.75
"""A day is complete when at least this share of its windows hold readings."""
_THURSDAY = 3
"""The weekday of the first day of 1970, from Monday 0."""

Weighting = Literal["volume", "none"]
Level = Literal["low", "medium", "high", "severe", "unknown"]
Point = TypeVar("Point")
Summary = TypeVar("Summary")
Key = TypeVar("Key")


class Envelope(TypedDict, Generic[Point, Summary]):
    """Any analysis: its points, their summary, and the feed's time at which it was made."""

    metric_name: str
    time_period: str
    data_points: list[Point]
    summary: Summary
    generated_at: datetime


class Scheme(TypedDict):
    """How levels are told: a level reaches from its cut-off of the speed ratio up to that of the level before."""

    name: str
    cut_offs: dict[str, float]
    method: str


class CongestionPoint(TypedDict):
    """One hour, named by its start. `speed_ratio` is mean speed over mean reference speed, weighted as the speed is."""

    timestamp: datetime
    avg_speed: float | None
    avg_volume: Number
    congestion_level: Level
    speed_ratio: float | None
    reading_count: int


class CongestionSummary(TypedDict):
    """`congestion_percentage` is the share of readings under the first cut-off, in per cent.

    `weighting` is that of every speed and ratio: `volume` where every speed has a volume above zero, else `none`.
    """

    congestion_percentage: float | None
    avg_speed_overall: float | None
    weighting: Weighting
    congested_hours: int
    unit: SpeedUnit
    scheme: Scheme


class PatternPoint(TypedDict, total=False):
    """One local hour of the day (`hour`, 0–23) or day of the week (`day_of_week`, 1 Monday – 7 Sunday)."""

    type: Literal["hourly", "daily"]
    hour: int
    day_of_week: int
    avg_speed: float | None
    avg_volume: Number
    reading_count: int


class PatternSummary(TypedDict):
    """The extremes, by average speed.

    `weighting` is that of every speed: `volume` where every speed has a volume above zero, else `none`.
    """

    slowest_hour: int | None
    slowest_day_of_week: int | None
    avg_speed_overall: float | None
    weighting: Weighting
    timezone: str
    unit: SpeedUnit


class TrendPoint(TypedDict):
    """One local day.

    It is `complete` when it is over and at least three quarters of its windows hold readings: of 276, 288 or 300
    windows of 5 minutes, as the day has 23, 24 or 25 hours.
    """

    date: date
    avg_speed: float | None
    avg_volume: Number
    reading_count: int
    complete: bool


class TrendSummary(TypedDict):
    """The slope of average speed over complete days by least squares, with its interval; null for under three.

    `weighting` is that of every speed: `volume` where every speed has a volume above zero, else `none`.
    """

    slope_per_day: float | None
    slope_low: float | None
    slope_high: float | None
    confidence_level: float
    avg_speed_overall: float | None
    weighting: Weighting
    timezone: str
    unit: SpeedUnit


CongestionDocument = Envelope[CongestionPoint, CongestionSummary]
PatternDocument = Envelope[PatternPoint, PatternSummary]
TrendDocument = Envelope[TrendPoint, TrendSummary]


@dataclass(frozen=True, slots=True)
class Subject:
    """One sensor whose readings are looked at."""

    number: int
    sensor: Sensor


@dataclass(frozen=True, slots=True)
class Analyst:
    """Looks at what is stored up to `until`, counting back from `now`: of the network, or of one `subject`."""

    reader: Reader
    now: datetime
    until: datetime
    timezone: str
    interval_s: int
    units: Units
    subject: Subject | None = None

    async def congestion(self, hours: int) -> CongestionDocument:
        """The last `hours`, hour by hour."""
        since = self.now - timedelta(hours=hours)
        if self.subject is None:
            points = await rollups.by_bucket(self.reader, since, self.until, HOUR_MS // 1000)
        else:
            rows = await self._rows(since, self.subject)
            hour = (-(-rows.ts_ms // HOUR_MS) - 1) * HOUR_MS
            points = [(from_ms(at), totals) for at, totals in self._grouped(rows, hour)]
        return self._congestion(points, f"last_{hours}_hours")

    def _congestion(self, points: Sequence[tuple[datetime, Totals]], period: str) -> CongestionDocument:
        overall = add_up(totals for _, totals in points)
        points = weighted_as(overall, points)
        return {
            "metric_name": "traffic_congestion",
            "time_period": period,
            "data_points": [self._hour(start, totals) for start, totals in points],
            "summary": {
                "congestion_percentage": rounded_number(overall.congested_share, 1, 100),
                "avg_speed_overall": self._speed(overall),
                "weighting": overall.weighting,
                "congested_hours": sum(_congested(totals) for _, totals in points),
                "unit": speed_unit(self.units),
                "scheme": scheme_document(),
            },
            "generated_at": self.now,
        }

    def _hour(self, start: datetime, totals: Totals) -> CongestionPoint:
        found = level(totals.ratio)
        return {
            "timestamp": start,
            "avg_speed": self._speed(totals),
            "avg_volume": _volume(totals),
            "congestion_level": "unknown" if found is None else found.value,
            "speed_ratio": rounded_number(totals.ratio, 3),
            "reading_count": totals.readings,
        }

    async def patterns(self, days: int) -> PatternDocument:
        """The usual day and week, from the last `days`."""
        since = self.now - timedelta(days=days)
        if self.subject is None:
            hours = await rollups.by_part(self.reader, "hour", since, self.until, self.timezone)
            weekdays = await rollups.by_part(self.reader, "isodow", since, self.until, self.timezone)
        else:
            rows = await self._rows(since, self.subject)
            hours = self._grouped(rows, local_hour(rows.ts_ms, self.timezone) % 24)
            weekdays = self._grouped(rows, (local_day(rows.ts_ms, self.timezone) + _THURSDAY) % 7 + 1)
        overall = add_up(totals for _, totals in weekdays)
        hours, weekdays = weighted_as(overall, hours), weighted_as(overall, weekdays)
        hourly: list[PatternPoint] = [{"type": "hourly", "hour": hour, **self._pattern(t)} for hour, t in hours]
        daily: list[PatternPoint] = [{"type": "daily", "day_of_week": day, **self._pattern(t)} for day, t in weekdays]
        return {
            "metric_name": "traffic_patterns",
            "time_period": f"last_{days}_days",
            "data_points": [*hourly, *daily],
            "summary": {
                "slowest_hour": _slowest(hours),
                "slowest_day_of_week": _slowest(weekdays),
                "avg_speed_overall": self._speed(overall),
                "weighting": overall.weighting,
                "timezone": self.timezone,
                "unit": speed_unit(self.units),
            },
            "generated_at": self.now,
        }

    def _pattern(self, totals: Totals) -> PatternPoint:
        return {
            "avg_speed": self._speed(totals),
            "avg_volume": _volume(totals),
            "reading_count": totals.readings,
        }

    async def trends(self, days: int) -> TrendDocument:
        """The last `days` whole local days, and what there is of the present one."""
        zone = ZoneInfo(self.timezone)
        today = self.now.astimezone(zone).date()
        since = datetime.combine(today - timedelta(days=days), time(), zone)
        number = self.subject.number if self.subject else None
        found = await rollups.by_day(self.reader, since, self.until, self.timezone, number)
        held = await rollups.windows_by_day(self.reader, since, self.until, self.timezone, self.interval_s, number)
        by_date = [(date.fromisoformat(day), totals) for day, totals in found]
        complete = {
            day
            for day, _ in by_date
            if day < today
            and held.get(day.isoformat(), 0) >= COMPLETE_SHARE * windows_of_day(day, zone, self.interval_s)
        }
        return self._trends(by_date, complete, f"last_{days}_days")

    def _trends(self, days: Sequence[tuple[date, Totals]], complete: Set[date], period: str) -> TrendDocument:
        overall = add_up(totals for _, totals in days)
        days = weighted_as(overall, days)
        known = [(day.toordinal(), t.speed) for day, t in days if day in complete and t.speed is not None]
        line = trend([day for day, _ in known], [speed for _, speed in known])
        slope, low, high = (line.slope, line.low, line.high) if line else (None, None, None)
        factor = self.units.speed_per_mph
        return {
            "metric_name": "traffic_trends",
            "time_period": period,
            "data_points": [self._day(day, totals, complete=day in complete) for day, totals in days],
            "summary": {
                "slope_per_day": rounded_number(slope, 4, factor),
                "slope_low": rounded_number(low, 4, factor),
                "slope_high": rounded_number(high, 4, factor),
                "confidence_level": CONFIDENCE,
                "avg_speed_overall": self._speed(overall),
                "weighting": overall.weighting,
                "timezone": self.timezone,
                "unit": speed_unit(self.units),
            },
            "generated_at": self.now,
        }

    def _day(self, day: date, totals: Totals, *, complete: bool) -> TrendPoint:
        return {
            "date": day,
            "avg_speed": self._speed(totals),
            "avg_volume": _volume(totals),
            "reading_count": totals.readings,
            "complete": complete,
        }

    async def _rows(self, since: datetime, subject: Subject) -> Rows:
        return await readings.between(self.reader, to_ms(since), to_ms(self.until), [subject.number])

    def _grouped(self, rows: Rows, keys: NDArray[np.int64]) -> list[tuple[int, Totals]]:
        assert self.subject is not None  # noqa: S101 - only a subject's readings are grouped here
        return grouped(rows, keys, {self.subject.number: self.subject.sensor})

    def _speed(self, totals: Totals) -> float | None:
        return rounded_number(totals.speed, SPEED_DECIMALS, self.units.speed_per_mph)


def windows_of_day(day: date, zone: ZoneInfo, interval_s: int) -> float:
    """How many windows a local day has: its hours are 23 or 25 where the clocks change."""
    start, end = (datetime.combine(midnight, time(), zone) for midnight in (day, day + timedelta(days=1)))
    return (end.timestamp() - start.timestamp()) / interval_s


def grouped(rows: Rows, keys: NDArray[np.int64], sensors: Mapping[int, Sensor]) -> list[tuple[int, Totals]]:
    """Readings summed per key [n], ascending."""
    references = {number: sensor.free_speed for number, sensor in sensors.items()}
    known = [references.get(number) for number in rows.sensor_no.tolist()]
    reference = np.array([np.nan if speed is None else speed for speed in known], np.float32)
    unique, sums = group(keys, row_sums(rows.values, reference, CONGESTED_BELOW))
    rows_of_sums = (Totals(dict(zip(SUMS, row, strict=True))) for row in sums.tolist())
    return list(zip(unique.tolist(), rows_of_sums, strict=True))


def add_up(parts: Iterable[Totals]) -> Totals:
    """The totals of all parts together."""
    sums: dict[str, int] = dict.fromkeys(SUMS, 0)
    for part in parts:
        for name in SUMS:
            sums[name] += part.sums[name]
    return Totals(sums)


def weighted_as(whole: Totals, parts: Iterable[tuple[Key, Totals]]) -> list[tuple[Key, Totals]]:
    """The parts of a whole that is not weighted by volume, not weighted either; as they are where it is."""
    if whole.weighting == "volume":
        return list(parts)
    return [(key, Totals({**totals.sums, "weighted_n": 0})) for key, totals in parts]


def scheme_document() -> Scheme:
    """How levels are told."""
    return {
        "name": SCHEME.name,
        "cut_offs": {name.value: cut_off for name, cut_off in SCHEME.cut_offs.items()},
        "method": SCHEME.method,
    }


def _volume(totals: Totals) -> Number:
    return whole(rounded_number(totals.volume, VOLUME_DECIMALS))


def _congested(totals: Totals) -> bool:
    return level(totals.ratio) not in (None, CongestionLevel.LOW)


def _slowest(parts: Iterable[tuple[int, Totals]]) -> int | None:
    speeds = {part: totals.speed for part, totals in parts if totals.speed is not None}
    return min(speeds, key=speeds.__getitem__, default=None)
