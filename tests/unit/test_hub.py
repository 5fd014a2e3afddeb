import asyncio
import gc
import itertools
import json
import sys
from datetime import UTC, datetime
from functools import partial

import pytest

from roadcast.live.hub import KEPT_FRAMES, KEPT_ITEMS, Channel, Hub, Later, Outbox, Position

AT = datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
TRAFFIC = Channel.TRAFFIC_DATA

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def reading(sensor_id: str, speed: float = 0.0) -> dict[str, object]:
    return {"sensor_id": sensor_id, "speed": speed}


async def taken(outbox: Outbox) -> list[dict]:
    return [json.loads(await outbox.take()) for _ in range(len(outbox))]


async def test_numbers_count_per_channel():
    hub = Hub(8, "e1")
    outbox = hub.join()
    hub.subscribe(outbox, TRAFFIC)
    hub.subscribe(outbox, Channel.ALERTS)
    hub.publish(TRAFFIC, AT, [reading("A")])
    hub.publish(Channel.ALERTS, AT, {"alert_id": "1", "sensor_id": None})
    hub.publish(TRAFFIC, AT, [reading("A", 7.5)])
    assert await taken(outbox) == [
        {
            "type": "traffic_update",
            "timestamp": "2024-01-15T10:30:00Z",
            "seq": 1,
            "epoch": "e1",
            "data": [reading("A")],
        },
        {
            "type": "alert",
            "timestamp": "2024-01-15T10:30:00Z",
            "seq": 1,
            "epoch": "e1",
            "data": {"alert_id": "1", "sensor_id": None},
        },
        {
            "type": "traffic_update",
            "timestamp": "2024-01-15T10:30:00Z",
            "seq": 2,
            "epoch": "e1",
            "data": [reading("A", 7.5)],
        },
    ]


async def test_a_slow_client_loses_its_oldest_frames_and_nobody_elses():
    hub = Hub(3, "e1")
    slow, quick = hub.join(), hub.join()
    hub.subscribe(slow, TRAFFIC)
    hub.subscribe(quick, TRAFFIC)
    seen = []
    for _ in range(5):
        hub.publish(TRAFFIC, AT, [reading("A")])
        seen += await taken(quick)
    assert [frame["seq"] for frame in seen] == [1, 2, 3, 4, 5]
    assert [frame["seq"] for frame in await taken(slow)] == [3, 4, 5]
    assert (slow.dropped, quick.dropped, hub.dropped) == (2, 0, 2)


async def test_a_filter_leaves_only_its_sensors_and_no_empty_frames():
    hub = Hub(8, "e1")
    outbox = hub.join()
    hub.subscribe(outbox, TRAFFIC, frozenset({"B"}))
    hub.publish(TRAFFIC, AT, [reading("A"), reading("B")])
    hub.publish(TRAFFIC, AT, [reading("A")])
    assert [(frame["seq"], frame["data"]) for frame in await taken(outbox)] == [(1, [reading("B")])]


async def test_a_filter_passes_alerts_of_its_sensors_and_of_none():
    hub = Hub(8, "e1")
    outbox = hub.join()
    hub.subscribe(outbox, Channel.ALERTS, frozenset({"B"}))
    for sensor_id in ("A", "B", None):
        hub.publish(Channel.ALERTS, AT, {"sensor_id": sensor_id})
    assert [frame["data"]["sensor_id"] for frame in await taken(outbox)] == ["B", None]


async def test_a_frame_is_encoded_once_for_all_who_want_the_whole_of_it():
    hub = Hub(8, "e1")
    first, second = hub.join(), hub.join()
    hub.subscribe(first, TRAFFIC)
    hub.subscribe(second, TRAFFIC)
    hub.publish(TRAFFIC, AT, [reading("A")])
    assert await first.take() is await second.take()


async def test_a_frame_is_made_when_the_first_wants_it():
    hub = Hub(8, "e1")
    made: list[str] = []

    def make(name: str) -> list[dict[str, object]]:
        made.append(name)
        return [reading(name)]

    for name in "AB":
        hub.publish(TRAFFIC, AT, Later(1, partial(make, name)))
    assert made == []
    outboxes = [hub.join() for _ in range(3)]
    assert all(hub.subscribe(outbox, TRAFFIC, resume=Position("e1", 1)) for outbox in outboxes)
    assert [[frame["data"] for frame in await taken(outbox)] for outbox in outboxes] == [[[reading("B")]]] * 3
    assert made == ["B"]


async def test_filters_leave_nothing_behind():
    """A client that comes back again and again with another filter would else fill the memory."""
    hub = Hub(8, "e1")
    frame = hub.publish(TRAFFIC, AT, [reading("A"), reading("B")])
    for i in range(100):
        frame.text(frozenset({"A", f"X{i}"}))
    gc.collect()
    assert sys.getsizeof(frame) + sum(map(sys.getsizeof, gc.get_referents(frame))) < 2_000


async def test_who_comes_together_is_given_the_same_snapshot():
    times = iter((0.0, 0.999, 1.0, 1.5))
    hub = Hub(8, "e1", lambda: next(times))
    count = itertools.count()
    make = lambda: [reading("A", next(count))]  # noqa: E731
    first = hub.shared(TRAFFIC, AT, make)
    assert hub.shared(TRAFFIC, AT, make) is first
    assert hub.shared(TRAFFIC, AT, make).data == [reading("A", 1)]  # the clock of a replay that has ended stands
    hub.publish(TRAFFIC, AT, [reading("A")])
    newer = hub.shared(TRAFFIC, AT, make)
    assert (newer.position.seq, newer.data) == (1, [reading("A", 2)])


async def test_resuming_gets_exactly_what_was_missed():
    hub = Hub(8, "e1")
    for _ in range(5):
        hub.publish(TRAFFIC, AT, [reading("A")])
    outbox = hub.join()
    assert hub.subscribe(outbox, TRAFFIC, resume=Position("e1", 3))
    hub.publish(TRAFFIC, AT, [reading("A")])
    assert [frame["seq"] for frame in await taken(outbox)] == [4, 5, 6]


@pytest.mark.parametrize("position", [Position("e0", 5), Position("e1", 6), Position("e1", 0), None])
async def test_what_cannot_be_resumed_without_a_gap_is_not(position: Position | None):
    hub = Hub(4, "e1")  # from 0 there are more frames than an outbox holds
    for _ in range(5):
        hub.publish(TRAFFIC, AT, [reading("A")])
    outbox = hub.join()
    assert not hub.subscribe(outbox, TRAFFIC, resume=position)
    assert len(outbox) == 0


async def test_kept_frames_are_bounded_by_number_and_by_size():
    hub = Hub(KEPT_FRAMES, "e1")
    for _ in range(KEPT_FRAMES + 5):
        hub.publish(TRAFFIC, AT, [reading("A")])
    assert hub.subscribe(hub.join(), TRAFFIC, resume=Position("e1", 5))
    assert not hub.subscribe(hub.join(), TRAFFIC, resume=Position("e1", 4))
    large = [reading("A")] * (KEPT_ITEMS // 2 + 1)
    hub.publish(Channel.PREDICTIONS, AT, large)
    hub.publish(Channel.PREDICTIONS, AT, large)
    assert hub.subscribe(hub.join(), Channel.PREDICTIONS, resume=Position("e1", 1))
    assert not hub.subscribe(hub.join(), Channel.PREDICTIONS, resume=Position("e1", 0))


async def test_unsubscribed_hears_no_more_not_even_what_waits():
    hub = Hub(8, "e1")
    outbox = hub.join()
    hub.subscribe(outbox, TRAFFIC)
    hub.subscribe(outbox, Channel.ALERTS)
    hub.publish(TRAFFIC, AT, [reading("A")])
    hub.publish(Channel.ALERTS, AT, {"sensor_id": None})
    assert hub.unsubscribe(outbox, TRAFFIC)
    assert not hub.unsubscribe(outbox, TRAFFIC)
    hub.publish(TRAFFIC, AT, [reading("A")])
    assert [frame["type"] for frame in await taken(outbox)] == ["alert"]


async def test_replies_go_first_and_are_never_dropped():
    hub = Hub(1, "e1")
    outbox = hub.join()
    hub.subscribe(outbox, TRAFFIC)
    for number in range(3):
        hub.publish(TRAFFIC, AT, [reading("A")])
        outbox.reply({"type": "pong", "number": number})
    messages = await taken(outbox)
    assert [message.get("number", "frame") for message in messages] == [0, 1, 2, "frame"]


async def test_replies_hold_up_who_asks_too_much():
    outbox = Outbox(1)
    outbox.reply({"type": "error"})
    waiting = asyncio.create_task(outbox.answered())
    await asyncio.sleep(0)
    assert not waiting.done()
    await outbox.take()
    await waiting


async def test_taking_waits_for_a_message():
    hub = Hub(8, "e1")
    outbox = hub.join()
    hub.subscribe(outbox, TRAFFIC)
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    hub.publish(TRAFFIC, AT, [reading("A")])
    assert json.loads(await taking)["seq"] == 1


async def test_who_left_is_forgotten():
    hub = Hub(8, "e1")
    outbox = hub.join()
    hub.subscribe(outbox, TRAFFIC)
    assert (hub.connections, hub.subscribers(TRAFFIC)) == (1, 1)
    hub.leave(outbox)
    assert (hub.connections, hub.subscribers(TRAFFIC)) == (0, 0)
    hub.publish(TRAFFIC, AT, [reading("A")])
    assert len(outbox) == 0


async def test_the_present_carries_the_newest_number():
    hub = Hub(8, "e1")
    hub.publish(TRAFFIC, AT, [reading("A")])
    outbox = hub.join()
    hub.subscribe(outbox, TRAFFIC, frozenset({"B"}))
    hub.begin(outbox, TRAFFIC, hub.present(TRAFFIC, AT, [reading("A"), reading("B")]))
    hub.publish(TRAFFIC, AT, [reading("B", 1.0)])
    assert [(frame["seq"], len(frame["data"])) for frame in await taken(outbox)] == [(1, 1), (2, 1)]
