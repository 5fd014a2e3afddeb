"""The feed's clock. It is given to whoever needs the time; nobody reads the wall clock by themselves.

A live feed's clock is the wall clock. A replayed feed's clock is event time: it stands at the newest time that the
feed has reached, so that a replayed week of 2012 answers `hours=24`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime


def wall_clock() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


@dataclass(slots=True)
class FeedClock:
    """Tells what time it is for the feed.

    name: of the feed; replayed: the clock stands at event time; simulated: nothing of it is real.
    """

    wall: Callable[[], datetime] = wall_clock
    name: str = "none"
    replayed: bool = False
    simulated: bool = False
    _reached_at: datetime | None = field(default=None)

    def now(self) -> datetime:
        """The feed's time."""
        return self._reached_at if self.replayed and self._reached_at else self.wall()

    @property
    def mode(self) -> str:
        """`live` or `replayed`."""
        return "replayed" if self.replayed else "live"

    def follow(self, name: str, *, replayed: bool, simulated: bool, reached_at: datetime | None) -> None:
        """A source has sent readings up to `reached_at`. Another feed takes the clock over; the same only moves it on."""
        same = (name, replayed) == (self.name, self.replayed)
        self.name, self.replayed, self.simulated = name, replayed, simulated
        if reached_at is not None and (not same or self._reached_at is None or reached_at > self._reached_at):
            self._reached_at = reached_at
