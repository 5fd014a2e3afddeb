"""What routes ask for in their signatures."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, cast

from fastapi import Depends, Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import HTTPConnection
from starlette.types import Scope

from roadcast.api.context import ApiContext
from roadcast.api.fields import Time, Whole, invalid
from roadcast.api.problems import shown
from roadcast.domain.forecast import LONGEST_MINUTES
from roadcast.domain.times import from_ms, rfc3339, to_ms
from roadcast.errors import FieldError, InvalidInput, NotFound
from roadcast.live.analytics import Analyst, Subject
from roadcast.live.documents import Presenter
from roadcast.storage.engine import Reader

DEFAULT_LIMIT = 100
MOST = 1_000
MOST_HISTORICAL = 10_000


def context_in(scope: Scope) -> ApiContext:
    """The context of the app that serves `scope`."""
    return cast("ApiContext", scope["app"].state.context)


async def _context(connection: HTTPConnection) -> ApiContext:
    return context_in(connection.scope)


Context = Annotated[ApiContext, Depends(_context)]


async def _presenter(context: Context) -> Presenter:
    return presenter(context)


def presenter(context: ApiContext) -> Presenter:
    """Makes documents as this context wants them."""
    return Presenter(context.units, context.interval_s, context.stale_after_s)


Present = Annotated[Presenter, Depends(_presenter)]

Hours = Annotated[Whole, Query(ge=1, le=168, description="Hours back from the time that `Roadcast-As-Of` states.")]
Days = Annotated[Whole, Query(ge=1, le=365, description="Days back from the feed's clock.")]
Limit = Annotated[Whole, Query(ge=1, le=MOST, description="At most so many; `Link` leads to the next ones.")]
AsOf = Annotated[
    Time | None,
    Query(description="Answer as it was known at this time (RFC 3339).", examples=["2024-01-15T10:30:00Z"]),
]
IssuedBefore = Annotated[
    Time | None,
    Query(description="Only what was issued before this time (RFC 3339).", examples=["2024-01-15T10:30:00Z"]),
]
AS_OF = "as_of"
"""Under this name the request's state holds the time for which it asks."""


async def _known_at(connection: HTTPConnection, context: Context, as_of: AsOf = None) -> datetime | None:
    now = context.clock.now()
    if as_of is not None and as_of - now > timedelta(seconds=context.max_future_s):
        ahead = (
            f"expected at most {context.max_future_s} s (MAX_FUTURE_S) ahead of the clock, which is at {rfc3339(now)}"
        )
        raise invalid(AS_OF, connection.query_params[AS_OF], ahead)
    setattr(connection.state, AS_OF, as_of)
    return as_of


KnownAt = Annotated[datetime | None, Depends(_known_at)]
"""The past time for which an answer is asked, which its header states."""


HORIZON_BOUNDS: dict[str, Any] = {"minimum": 1, "maximum": LONGEST_MINUTES}
"""Told in the description; what is out of them is refused with the bound that holds."""
HorizonMinutes = Annotated[Whole | None, Query(description="Only this horizon.", json_schema_extra=HORIZON_BOUNDS)]


def is_horizon(context: ApiContext, minutes: int, most: int) -> bool:
    """Whether forecasts can be made so far ahead, where they reach `most` minutes."""
    return 0 < minutes <= most and minutes * 60 % context.interval_s == 0


def expect_horizon(context: ApiContext, minutes: int | None, most: int | None = None) -> None:
    """Whoever asks for one horizon asks for one that there is, as far as issues reach or `most` minutes.

    Raises:
        InvalidInput: there is none such.
    """
    most = most or context.horizon_minutes
    if minutes is not None and not is_horizon(context, minutes, most):
        interval = f"{context.interval_s / 60:g}"
        raise invalid("horizon_minutes", minutes, f"expected a multiple of {interval} minutes, at most {most}")


def find_sensor(context: ApiContext, sensor_id: str) -> Subject:
    """The sensor of a code.

    Raises:
        NotFound: there is none.
    """
    number = context.state.numbers.get(sensor_id)
    if number is None:
        error = FieldError("sensor_id", sensor_id, "expected a sensor that there is")
        raise NotFound(f"There is no sensor {shown(sensor_id)!r}.", remedy="/api/sensors lists them.", errors=(error,))
    return Subject(number, context.state.sensors[number])


async def _filter(
    context: Context,
    sensor_id: Annotated[str | None, Query(description="Only this sensor.", examples=["SENSOR_001"])] = None,
) -> Subject | None:
    return None if sensor_id is None else find_sensor(context, sensor_id)


OneSensor = Annotated[Subject | None, Depends(_filter)]


class _CodeInPath(Convertor[str]):
    """What of a path names a sensor: slashes too, but not nothing, or a slash at the end of a list would name one."""

    regex = ".+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("code", _CodeInPath())


async def _named(context: Context, sensor_id: Annotated[str, Path(examples=["SENSOR_001"])]) -> Subject:
    return find_sensor(context, sensor_id)


NamedSensor = Annotated[Subject, Depends(_named)]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the page before ended: two numbers of the last item's key."""

    first: int
    second: int

    def __str__(self) -> str:
        return f"{self.first}.{self.second}"


async def _cursor(
    cursor: Annotated[
        str | None,
        Query(
            max_length=40,
            description="From the `Link` header of the page before.",
            json_schema_extra={"pattern": r"^\d{1,14}\.\d{1,9}$"},
        ),
    ] = None,
) -> Cursor | None:
    if cursor is None:
        return None
    first, _, second = cursor.partition(".")
    if not (first.isascii() and first.isdigit() and second.isascii() and second.isdigit()):
        raise bad_cursor(cursor)
    found = Cursor(int(first), int(second))
    if found.first > _MOST_MS or found.second >= 1 << 31:
        raise bad_cursor(cursor)
    return found


_MOST_MS = 253_402_300_799_000
"""The end of the year 9999."""


def bad_cursor(cursor: str) -> InvalidInput:
    """The error for what is no cursor of this list."""
    return invalid("cursor", cursor, "expected the cursor of a Link header")


After = Annotated[Cursor | None, Depends(_cursor)]


def now_for(context: ApiContext, as_of: datetime | None) -> datetime:
    """The time from which an answer counts back."""
    return as_of or context.clock.now()


def until_for(context: ApiContext, as_of: datetime | None) -> datetime:
    """The time up to which an answer reaches: the end of the window that is, or was, running.

    The readings of that window are there before it is over, and those of a live feed may be ahead of our clock.
    """
    ahead = timedelta(seconds=0 if context.clock.feed.replayed else context.max_future_s)
    return window_end(context, now_for(context, as_of) + ahead)


def window_end(context: ApiContext, at: datetime) -> datetime:
    """The end of the window that a time falls in."""
    interval_ms = context.interval_s * 1000
    return from_ms(-(-to_ms(at) // interval_ms) * interval_ms)


def analyst(context: ApiContext, reader: Reader, subject: Subject | None = None) -> Analyst:
    """Looks at the network, or at one sensor, up to now."""
    now, until = now_for(context, None), until_for(context, None)
    return Analyst(reader, now, until, context.timezone, context.interval_s, context.units, subject)
