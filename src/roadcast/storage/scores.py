"""Scores: the sums of errors by local day, forecaster, horizon and congestion state, and which windows are in them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime

from roadcast.storage.engine import Reader, Writer

SERVED = "served"
"""The name under which the published forecast is scored, beside every forecaster's own."""
TENTHS = 10
"""Into how many bins the reliability of `confidence` is counted."""


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over the forecasts of one day, forecaster, horizon and congestion state (`jam`: r < 0.5).

    `relative` sums errors as shares of the speed, over the `relative_n` of `n` whose speed is not nearly zero. The
    forecaster `served` is what was published; only it has intervals and confidence. The last three are sums per
    tenth of `confidence`: how many, their confidence, and how many errors were within tolerance.
    """

    day: date
    model: str
    horizon_minutes: int
    jam: bool
    n: int
    absolute: float
    square: float
    error: float
    relative_n: int
    relative: float
    interval_n: int = 0
    covered_80: int = 0
    width_80: float = 0.0
    confidence_n: list[int] = field(default_factory=lambda: [0] * TENTHS)
    confidence_sum: list[float] = field(default_factory=lambda: [0.0] * TENTHS)
    within_n: list[int] = field(default_factory=lambda: [0] * TENTHS)


_KEY = ("day", "model", "horizon_minutes", "jam")
_NAMES = [f.name for f in fields(Score)]
_LISTS = ("confidence_n", "confidence_sum", "within_n")
_PLAIN = [name for name in _NAMES if name not in (*_KEY, *_LISTS)]


async def add(writer: Writer, scores: Sequence[Score]) -> None:
    """Add sums to what is stored under their keys."""
    sets = [f"{name} = s.{name} + excluded.{name}" for name in _PLAIN]
    sets += [
        f"""{name} = (SELECT array_agg(a + b ORDER BY i)
        FROM unnest(s.{name}, excluded.{name}) WITH ORDINALITY AS both_of(a, b, i))"""
        for name in _LISTS
    ]
    await writer.run_each(
        f"""INSERT INTO scores AS s ({", ".join(_NAMES)}) VALUES ({", ".join(f":{name}" for name in _NAMES)})
        ON CONFLICT ({", ".join(_KEY)}) DO UPDATE SET {", ".join(sets)}""",
        [asdict(score) for score in scores],
    )


async def since(reader: Reader, first: date) -> list[Score]:
    """The scores of the days from `first` on."""
    rows = await reader.rows(
        f"SELECT {', '.join(_NAMES)} FROM scores WHERE day >= :first ORDER BY 1, 2, 3, 4", first=first
    )
    return [Score(**row) for row in rows]


async def due(reader: Reader, after: datetime, until: datetime) -> list[datetime]:
    """The windows that hold readings and end in (after, until], of those that were not scored, ascending."""
    rows = await reader.rows(
        """SELECT tick_end FROM ticks t WHERE tick_end > :after AND tick_end <= :until
        AND NOT EXISTS (SELECT FROM scored_ticks s WHERE s.tick_end = t.tick_end) ORDER BY 1""",
        after=after,
        until=until,
    )
    return [row["tick_end"] for row in rows]


async def claim(writer: Writer, ticks: Sequence[datetime]) -> list[datetime]:
    """Say that these windows are scored in this transaction; those of them that were not before, ascending."""
    rows = await writer.rows(
        """INSERT INTO scored_ticks SELECT unnest(CAST(:ticks AS timestamptz[]))
        ON CONFLICT DO NOTHING RETURNING tick_end""",
        ticks=list(ticks),
    )
    return sorted(row["tick_end"] for row in rows)


async def forget_rest(writer: Writer) -> None:
    """Forget which windows were scored of those whose readings are dropped."""
    await writer.run("DELETE FROM scored_ticks WHERE tick_end < (SELECT min(tick_end) FROM ticks)")
