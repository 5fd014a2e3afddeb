"""The log in memory, for one process: bounded, with back-pressure, and gone when the process ends."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from roadcast.errors import Unavailable
from roadcast.streaming.log import Record


@dataclass(slots=True)
class _Topic:
    """The records that some reader has yet to take, and the readers' positions (the next one each wants)."""

    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    records: deque[Record] = field(default_factory=deque[Record])
    end: int = 0
    groups: dict[str, int] = field(default_factory=dict[str, int])
    tails: "set[_Subscription]" = field(default_factory=set)

    @property
    def start(self) -> int:
        return self.end - len(self.records)

    def trim(self) -> None:
        """Forget what every reader has taken."""
        wanted = min([*self.groups.values(), *(tail.next for tail in self.tails)], default=self.end)
        while self.records and self.records[0].position < wanted:
            self.records.popleft()


@dataclass(slots=True, eq=False)
class _Subscription:
    topic: _Topic
    next: int
    group: str | None = None

    async def batches(self, limit: int) -> AsyncIterator[Sequence[Record]]:
        topic = self.topic
        while True:
            async with topic.changed:
                await topic.changed.wait_for(lambda: topic.end > self.next)
                first = self.next - topic.start
                batch = [topic.records[i] for i in range(first, min(first + limit, len(topic.records)))]
                self.next += len(batch)
                if self.group is None:
                    topic.trim()
                    topic.changed.notify_all()
            yield batch

    async def commit(self, position: int) -> None:
        if self.group is not None:
            async with self.topic.changed:
                self.topic.groups[self.group] = max(self.topic.groups[self.group], position + 1)
                self.topic.trim()
                self.topic.changed.notify_all()


class MemoryLog:
    """Keeps at most `capacity` records a topic; a publisher waits up to `timeout_s` for room."""

    def __init__(self, *, capacity: int = 200_000, timeout_s: float = 60.0) -> None:
        self._capacity = capacity
        self._timeout_s = timeout_s
        self._topics: dict[str, _Topic] = {}

    def _topic(self, name: str) -> _Topic:
        return self._topics.setdefault(name, _Topic())

    def lag(self, topic: str) -> int:
        """How many records the slowest reader has yet to take."""
        return len(self._topic(topic).records)

    async def publish(self, topic: str, records: Sequence[Record]) -> int:
        """Append records; the position of the last one."""
        place = self._topic(topic)
        async with place.changed:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await place.changed.wait_for(
                        lambda: not place.records or len(place.records) + len(records) <= self._capacity
                    )
            except TimeoutError as error:
                raise Unavailable(f"A reader of {topic} has not kept up for {self._timeout_s:.0f} s.") from error
            place.records += [replace(record, position=place.end + i) for i, record in enumerate(records)]
            place.end += len(records)
            place.trim()
            place.changed.notify_all()
            return place.end - 1

    @asynccontextmanager
    async def consume(self, topic: str, group: str) -> AsyncGenerator[_Subscription]:
        """Follow as `group`, from what it committed; the first time, from the oldest record that is kept."""
        place = self._topic(topic)
        position = place.groups.setdefault(group, place.start)
        yield _Subscription(place, position, group)

    @asynccontextmanager
    async def tail(self, topic: str) -> AsyncGenerator[_Subscription]:
        """Follow from now on."""
        place = self._topic(topic)
        subscription = _Subscription(place, place.end)
        place.tails.add(subscription)
        try:
            yield subscription
        finally:
            place.tails.discard(subscription)
            place.trim()
            async with place.changed:
                place.changed.notify_all()
