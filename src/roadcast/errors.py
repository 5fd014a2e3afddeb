"""What can go wrong, as a tree.

RoadcastError                 ends a command with one readable line and its remedy
├── SettingsError             settings that contradict each other or the machine
├── StartError                a part that cannot start: port, folder, database
├── SourceError               a file or feed that cannot be read
├── InvalidInput              a request that names a field, a value and what was expected
├── NotFound                  what was asked for is not there
├── Conflict                  what was asked for contradicts the present state
└── Unavailable               a part is away or a queue is full; try again after a while
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that was wrong: its name, the value that was given and what was expected."""

    field: str
    value: object
    reason: str


PROBLEM_MEDIA_TYPE = "application/problem+json"
"""Of an error that is answered over HTTP (RFC 9457)."""


class RoadcastError(Exception):
    """A failure that is reported in one line; `remedy` says what to do about it, `errors` which fields were wrong."""

    def __init__(self, message: str, *, remedy: str = "", errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.errors = errors

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class SettingsError(RoadcastError):
    """Settings that contradict each other or the machine."""


class StartError(RoadcastError):
    """A part that cannot start."""


class SourceError(RoadcastError):
    """A file or a feed that cannot be read."""


class InvalidInput(RoadcastError):
    """A request that cannot be served as it was asked."""

    def __init__(self, message: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message, errors=errors)


class NotFound(RoadcastError):
    """What was asked for is not there."""


class Conflict(RoadcastError):
    """What was asked for contradicts the present state."""


class Unavailable(RoadcastError):
    """A part is away or a queue is full."""

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: int = 5) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class StoreDown(Unavailable):
    """The store of models cannot be reached, read or written."""
