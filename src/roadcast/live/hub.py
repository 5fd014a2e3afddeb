"""The lossy, bounded fan-out to sockets.

Every channel numbers its frames. `epoch` names this life of the hub: numbers of another epoch mean nothing. Each
connection has an outbox of its own; when that is full its oldest frames are dropped and counted, so that a slow
client delays nobody. A frame is made when the first wants it, and encoded once for all who want the whole of it.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from roadcast.live.documents import encode

KEPT_FRAMES = 100
KEPT_ITEMS = 20_000
"""What a channel keeps for those who come back: so many frames, and so many documents in them."""

SHARED_FOR_S = 1.0
"""How long whoever subscribes is given the same snapshot: after a restart thousands come at once."""

Document = Mapping[str, object]
Data = Sequence[Document] | Document
Sensors = frozenset[str]


class Channel(StrEnum):
    """What can be subscribed to."""

    TRAFFIC_DATA = "traffic_data"
    PREDICTIONS = "predictions"
    ALERTS = "alerts"
    SYSTEM_STATUS = "system_status"
    ANALYTICS = "analytics"


FRAME_TYPES = {
    Channel.TRAFFIC_DATA: "traffic_update",
    Channel.PREDICTIONS: "prediction_update",
    Channel.ALERTS: "alert",
    Channel.SYSTEM_STATUS: "system_status",
    Channel.ANALYTICS: "analytics_update",
}


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a channel a client is."""

    epoch: str
    seq: int


@dataclass(frozen=True, slots=True)
class Later:
    """Documents that are made when somebody wants them: how many at most, and how."""

    most: int
    make: Callable[[], Sequence[Document]]

    def __len__(self) -> int:
        return self.most


@dataclass(slots=True, eq=False)
class Frame:
    """One message of a channel. Whoever asks for sensors gets only those of a list, and no alert of another sensor."""

    channel: Channel
    position: Position
    at: datetime
    given: Data | Later
    _whole: str | None = None
    _places: dict[object, list[int]] | None = None

    @property
    def data(self) -> Data:
        """What it carries."""
        if isinstance(self.given, Later):
            self.given = self.given.make()
        return self.given

    def concerns(self, sensors: Sensors | None) -> bool:
        """Whether anything is left of it for one who asks for `sensors`."""
        if sensors is None:
            return True
        if isinstance(self.data, Mapping):
            return self.data.get("sensor_id") is None or self.data["sensor_id"] in sensors
        return not self._of_sensor.keys().isdisjoint(sensors)

    def text(self, sensors: Sensors | None = None) -> str:
        """As JSON, for one who asks for `sensors`. Only the whole is kept: there may be as many filters as clients."""
        if sensors is not None:
            return encode(self.message(sensors)).decode()
        if self._whole is None:
            self._whole = encode(self.message()).decode()
        return self._whole

    def message(self, sensors: Sensors | None = None) -> Document:
        """As a document."""
        data = self.data
        if sensors is not None and not isinstance(data, Mapping):
            places = self._of_sensor
            data = [data[at] for at in sorted(at for sensor in sensors for at in places.get(sensor, ()))]
        return {
            "type": FRAME_TYPES[self.channel],
            "timestamp": self.at,
            "seq": self.position.seq,
            "epoch": self.position.epoch,
            "data": data,
        }

    @property
    def _of_sensor(self) -> dict[object, list[int]]:
        """Where in its list each sensor's documents are: looked for once, however many ask for a few sensors."""
        if self._places is None:
            self._places = {}
            for at, item in enumerate(self.data if not isinstance(self.data, Mapping) else ()):
                self._places.setdefault(item["sensor_id"], []).append(at)
        return self._places


class Outbox:
    """What one connection is to be sent: replies, all of them, before frames, the newest `capacity`."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.dropped = 0
        self._replies: deque[str] = deque()
        self._frames: deque[tuple[Frame, Sensors | None]] = deque()
        self._filled = asyncio.Event()
        self._answered = asyncio.Event()
        self._answered.set()

    def __len__(self) -> int:
        return len(self._replies) + len(self._frames)

    def reply(self, message: Document) -> None:
        """Queue a message that is never dropped."""
        self._replies.append(encode(message).decode())
        self._answered.clear()
        self._filled.set()

    def put(self, frame: Frame, sensors: Sensors | None) -> int:
        """Queue a frame; how many were dropped for it."""
        dropped = int(len(self._frames) >= self.capacity)
        if dropped:
            self._frames.popleft()
            self.dropped += 1
        self._frames.append((frame, sensors))
        self._filled.set()
        return dropped

    def discard(self, channel: Channel) -> None:
        """Forget the frames of a channel."""
        self._frames = deque(item for item in self._frames if item[0].channel is not channel)

    async def take(self) -> str:
        """The next message, as soon as there is one."""
        while not len(self):
            self._filled.clear()
            await self._filled.wait()
        if self._replies:
            text = self._replies.popleft()
            if not self._replies:
                self._answered.set()
            return text
        frame, sensors = self._frames.popleft()
        return frame.text(sensors)

    async def answered(self) -> None:
        """Wait until every reply was taken, so that a client that does not read cannot fill the memory."""
        await self._answered.wait()


@dataclass(slots=True, eq=False)
class _Stream:
    """One channel: its subscribers with their filters, its newest number, and what it keeps."""

    seq: int = 0
    subscribers: dict[Outbox, Sensors | None] = field(default_factory=dict[Outbox, Sensors | None])
    kept: deque[Frame] = field(default_factory=deque[Frame])
    items: int = 0
    present: Frame | None = None
    presented_s: float = 0.0

    def keep(self, frame: Frame) -> None:
        self.kept.append(frame)
        self.items += len(frame.given)
        while len(self.kept) > KEPT_FRAMES or (self.items > KEPT_ITEMS and len(self.kept) > 1):
            self.items -= len(self.kept.popleft().given)

    def after(self, seq: int) -> list[Frame] | None:
        """The frames that follow number `seq`; None where one of them is not kept any more, or `seq` is to come."""
        missed = [frame for frame in self.kept if frame.position.seq > seq]
        return missed if len(missed) == self.seq - seq else None


class Hub:
    """The channels. Everything happens at once, without waiting: no subscriber can hold another up."""

    def __init__(self, queue_frames: int, epoch: str, timer: Callable[[], float] = time.monotonic) -> None:
        self.queue_frames = queue_frames
        self.epoch = epoch
        self._timer = timer
        self.published: Counter[Channel] = Counter()
        self.dropped = 0
        self._streams = {channel: _Stream() for channel in Channel}
        self._outboxes: set[Outbox] = set()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._outboxes)

    def subscribers(self, channel: Channel) -> int:
        """How many listen to a channel."""
        return len(self._streams[channel].subscribers)

    def join(self) -> Outbox:
        """The outbox of a new connection."""
        outbox = Outbox(self.queue_frames)
        self._outboxes.add(outbox)
        return outbox

    def leave(self, outbox: Outbox) -> None:
        """The connection is gone."""
        self._outboxes.discard(outbox)
        for stream in self._streams.values():
            stream.subscribers.pop(outbox, None)

    def publish(self, channel: Channel, at: datetime, data: Data | Later) -> Frame:
        """Number a frame, keep it, and put it into the outbox of every subscriber whom it concerns."""
        stream = self._streams[channel]
        stream.seq += 1
        frame = Frame(channel, Position(self.epoch, stream.seq), at, data)
        stream.keep(frame)
        self.published[channel] += 1
        for outbox, sensors in stream.subscribers.items():
            if frame.concerns(sensors):
                self.dropped += outbox.put(frame, sensors)
        return frame

    def subscribe(
        self, outbox: Outbox, channel: Channel, sensors: Sensors | None = None, resume: Position | None = None
    ) -> bool:
        """Send a channel's frames to `outbox` from now on; again, with another filter, replaces the one before.

        Returns whether the frames since `resume` were all kept and are on their way; else a snapshot is needed.
        """
        stream = self._streams[channel]
        stream.subscribers[outbox] = sensors
        outbox.discard(channel)
        missed = stream.after(resume.seq) if resume and resume.epoch == self.epoch else None
        if missed is None or len(missed) > outbox.capacity:
            return False
        for frame in missed:
            if frame.concerns(sensors):
                self.dropped += outbox.put(frame, sensors)
        return True

    def begin(self, outbox: Outbox, channel: Channel, state: Frame) -> None:
        """Send a subscriber what the channel says now."""
        self.dropped += outbox.put(state, self._streams[channel].subscribers[outbox])

    def present(self, channel: Channel, at: datetime, data: Data) -> Frame:
        """A frame of the channel's present state, for one reader; it carries the number of the newest frame."""
        return Frame(channel, Position(self.epoch, self._streams[channel].seq), at, data)

    def shared(self, channel: Channel, at: datetime, make: Callable[[], Data]) -> Frame:
        """As `present`, but the same frame for all who ask within `SHARED_FOR_S`."""
        stream, now_s = self._streams[channel], self._timer()
        last = stream.present
        if last is None or last.position.seq != stream.seq or now_s - stream.presented_s >= SHARED_FOR_S:
            last = stream.present = self.present(channel, at, make())
            stream.presented_s = now_s
        return last

    def newest(self, channel: Channel) -> Frame | None:
        """The newest frame that is kept."""
        kept = self._streams[channel].kept
        return kept[-1] if kept else None

    def unsubscribe(self, outbox: Outbox, channel: Channel) -> bool:
        """Send no more of a channel; False where it was not subscribed."""
        subscribers = self._streams[channel].subscribers
        known = outbox in subscribers
        subscribers.pop(outbox, None)
        outbox.discard(channel)
        return known
