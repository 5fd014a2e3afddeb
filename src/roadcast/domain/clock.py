"""The feed and its clock. The clock is given to whoever needs the time; nobody reads the wall clock by themselves.

A live feed's clock is the wall clock. A replayed feed's clock is event time: it stands at the newest time that the
feed has reached, so that a replayed week of 2012 answers `hours=24`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime


def wall_clock() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


NO_FEED = "none"
"""The name of the feed before anything was sent."""
DEMO = "demo"
"""The name of the feed that is simulated."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What feeds the system. Nothing of a simulated feed is real; a replayed one has come to `reached_at`."""

    name: str = NO_FEED
    replayed: bool = False
    simulated: bool = False
    reached_at: datetime | None = None

    def follows(self, before: "Feed") -> bool:
        """Whether it is the same feed as `before`: live senders are one together, a replay is one by its name."""
        live = not self.replayed and not before.replayed and before.name != NO_FEED
        return live or (self.name, self.replayed) == (before.name, before.replayed)

    def then(self, sent: "Feed") -> "Feed":
        """The feed after `sent` has sent: another feed takes over, the same one only moves on."""
        if not sent.follows(self) or self.reached_at is None:
            return sent
        return replace(sent, reached_at=max(self.reached_at, sent.reached_at or self.reached_at))


@dataclass(slots=True)
class FeedClock:
    """Tells what time it is for the feed."""

    wall: Callable[[], datetime] = wall_clock
    feed: Feed = Feed()

    def now(self) -> datetime:
        """The feed's time."""
        return self.feed.reached_at if self.feed.replayed and self.feed.reached_at else self.wall()

    def reach(self, at: datetime) -> None:
        """A replayed feed has come to `at`, unless it is further already."""
        if self.feed.replayed:
            self.feed = replace(self.feed, reached_at=max(at, self.feed.reached_at or at))

    @property
    def name(self) -> str:
        """The feed's name."""
        return self.feed.name

    @property
    def mode(self) -> str:
        """`live` or `replayed`."""
        return "replayed" if self.feed.replayed else "live"

    @property
    def said(self) -> str:
        """Name and mode, for people."""
        return f"{self.name}, {self.mode}"

    @property
    def simulated(self) -> bool:
        """Whether nothing of the feed is real."""
        return self.feed.simulated
