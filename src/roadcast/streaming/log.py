"""What a log promises.

Records with the same key keep their order. A publisher is told when its records are kept; a consumer group sees
every record at least once after the position it committed; a tail sees every record from the moment it began.
A slow group makes the publisher wait (back-pressure) rather than lose records.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its key (a sensor's code, or empty), its bytes, and where it lies once it is kept."""

    key: str
    value: bytes
    position: int = -1


class Subscription(Protocol):
    """Records of one topic for one consumer."""

    @property
    def next(self) -> int:
        """The position of the record that comes next."""
        ...

    def batches(self, limit: int) -> AsyncIterator[Sequence[Record]]:
        """At most `limit` records at a time, waiting while there are none."""
        ...

    async def commit(self, position: int) -> None:
        """All up to and with `position` is done with."""
        ...


class Log(Protocol):
    """A durable log of topics."""

    async def publish(self, topic: str, records: Sequence[Record]) -> int:
        """Append records; the position of the last one, once all are kept.

        Raises:
            Unavailable: the log did not keep them in time.
        """
        ...

    def consume(self, topic: str, group: str) -> AbstractAsyncContextManager[Subscription]:
        """Share the topic with the other consumers of `group`, from the position that it committed."""
        ...

    def tail(self, topic: str) -> AbstractAsyncContextManager[Subscription]:
        """Follow the topic from now on, alone and without a group."""
        ...
