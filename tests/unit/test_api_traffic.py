import json
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pytest
from api_doubles import NOW, TICK, RecordingDoor, client, make_context, rows

from roadcast.api.context import ApiLimits
from roadcast.domain.sensor import Sensor
from roadcast.domain.units import Units
from roadcast.live.state import LiveState

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def is_problem(answer: httpx.Response, status: int, field: str | None = None) -> bool:
    body = answer.json()
    named = field is None or field in [error["field"] for error in body["errors"]]
    return (
        answer.status_code == body["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and {"type", "title", "detail", "instance"} <= set(body)
        and named
    )


def reading(sensor_id: str = "A1", speed: object = 45.5, **more: object) -> dict[str, object]:
    return {
        "sensor_id": sensor_id,
        "speed": speed,
        "volume": 120,
        "density": 15.2,
        "occupancy": 0.1,
        "timestamp": "2024-01-15T10:30:00Z",
        **more,
    }


async def test_current_is_the_newest_reading_of_every_active_sensor():
    async with client(make_context()) as http:
        found = (await http.get("/api/traffic/current")).json()
        assert [(r["sensor_id"], r["speed"], r["stale"]) for r in found] == [
            ("SENSOR_001", 45.5, False),
            ("SENSOR_002", 0.0, True),
        ]
        one = (await http.get("/api/traffic/current?sensor_id=SENSOR_002")).json()
        assert one == found[1:]


async def test_inactive_sensors_are_current_only_when_asked_for():
    context = make_context()
    context.state.observe(rows((3, TICK, 50, 1, 1, 0)))
    async with client(context) as http:
        assert len((await http.get("/api/traffic/current")).json()) == 2
        assert len((await http.get("/api/traffic/current?sensor_id=SENSOR_003")).json()) == 1


async def test_pages_of_current_join_to_the_whole():
    state = LiveState()
    state.know({number: Sensor(f"S{number:03}") for number in range(1, 8)})
    state.observe(rows(*((number, TICK, number, 1, 1, 0) for number in range(1, 8))))
    async with client(make_context(state=state)) as http:
        seen, url, pages = [], "/api/traffic/current?limit=3", 0
        while url:
            answer = await http.get(url)
            seen += [r["sensor_id"] for r in answer.json()]
            url, pages = answer.links.get("next", {}).get("url"), pages + 1
        assert (seen, pages) == ([f"S{number:03}" for number in range(1, 8)], 3)


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/traffic/current?limit=0", "limit"),
        ("/api/traffic/current?limit=1001", "limit"),
        ("/api/traffic/historical?hours=1&limit=10001", "limit"),
        ("/api/traffic/historical", "hours"),
        ("/api/traffic/historical?hours=0", "hours"),
        ("/api/traffic/historical?hours=169", "hours"),
        ("/api/traffic/statistics?hours=x", "hours"),
        ("/api/traffic/historical?hours=1&cursor=last", "cursor"),
        ("/api/traffic/historical?hours=1&cursor=999999999999999999.1", "cursor"),
        ("/api/traffic/current?cursor=%C2%B2.1", "cursor"),
        ("/api/traffic/current?as_of=2024-01-15T10:30:00", "as_of"),
        ("/api/traffic/current?as_of=5", "as_of"),
        ("/api/traffic/statistics?hours=1&as_of=1989-12-31T00:00:00Z", "as_of"),
        ("/api/traffic/current?as_of=0001-01-01T00:00:00%2B14:00", "as_of"),
        ("/api/analytics/congestion", "hours"),
        ("/api/analytics/patterns?days=0", "days"),
        ("/api/analytics/trends?days=366", "days"),
        ("/api/predictions/latest?min_confidence=1.5", "min_confidence"),
        ("/api/predictions/latest?min_confidence=nan", "min_confidence"),
        ("/api/predictions/latest?horizon_minutes=0", "horizon_minutes"),
        ("/api/predictions/accuracy?days=x", "days"),
        ("/api/predictions/accuracy?hour=24", "hour"),
        ("/api/predictions/accuracy?state=jammed", "state"),
        ("/api/predictions/accuracy?by=road", "by"),
        ("/api/predictions/accuracy?horizon_minutes=7", "horizon_minutes"),
        ("/api/predictions/accuracy?by=sensor&hour=8", "hour"),
        ("/api/predictions/accuracy?by=sensor&state=onset", "state"),
        ("/api/predictions/accuracy?by=sensor&sensor_id=SENSOR_001", "sensor_id"),
        ("/api/predictions/accuracy?by=hour&cursor=5.0", "cursor"),
        ("/api/predictions/export?format=xlsx", "format"),
        ("/api/predictions/export?from=yesterday", "from"),
        ("/api/predictions/export?from=2024-01-15T10:00:00Z&to=2024-01-15T10:00:00Z", "from"),
        ("/api/predictions/export?horizon_minutes=65", "horizon_minutes"),
        ("/api/predictions/export?pending=perhaps", "pending"),
        ("/api/predictions/not-a-uuid", "prediction_id"),
        ("/api/incidents?status=broken", "status"),
        ("/api/sensors?status=zzz", "status"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(path: str, field: str):
    async with client(make_context()) as http:
        assert is_problem(await http.get(path), 422, field)


@pytest.mark.parametrize(
    "path",
    [
        "/api/traffic/sensors/NOPE",
        "/api/traffic/current?sensor_id=NOPE",
        "/api/traffic/historical?hours=1&sensor_id=NOPE",
        "/api/predictions/latest?sensor_id=NOPE",
        "/api/sensors/NOPE",
        "/api/sensors/a%2Fb",
        "/api/nothing",
        "/api/predictions/accuracy?sensor_id=NOPE",
        "/api/predictions/export?sensor_id=NOPE",
        "/api/predictions/00000000-0000-0000-0000-000000000000",
        "/api/predictions/018d0cab-c440-801e-8000-000000000063",
        "/api/predictions/018d0cab-c440-8007-8000-000000000001",
        "/api/predictions/018d0cab-c440-8000-8000-000000000001",
        "/api/predictions/018d0cab-c440-801e-8000-000000000063/explanation",
    ],
)
async def test_what_is_not_there_is_a_404_problem(path: str):
    async with client(make_context()) as http:
        assert is_problem(await http.get(path), 404)


async def test_a_database_away_is_a_503_that_says_when_to_come_back():
    async with client(make_context()) as http:
        answer = await http.get("/api/traffic/statistics?hours=24")
        assert is_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0


async def test_one_sensor_with_and_without_readings():
    async with client(make_context()) as http:
        found = (await http.get("/api/traffic/sensors/SENSOR_001")).json()
        assert (found["speed"], found["sensor"]["road"], len(found["forecasts"])) == (45.5, "I 24", 12)
        silent = (await http.get("/api/traffic/sensors/SENSOR_003")).json()
        assert (silent["sensor_id"], silent["speed"], silent["timestamp"]) == ("SENSOR_003", None, None)


async def test_one_reading_reaches_the_door_in_inner_units():
    context = make_context(units=Units.METRIC)
    async with client(context) as http:
        answer = await http.post("/api/traffic/readings", json=reading(speed=100, density=10))
    assert answer.json() == {
        "received": 1, "accepted": 1, "duplicate": 0, "rejected": 0, "late": 0, "rejections": [],
    }  # fmt: skip
    assert isinstance(context.door, RecordingDoor)
    [(batch, source)] = context.door.batches
    assert (batch.codes, batch.at_ms.tolist(), batch.sensor.tolist()) == (("A1",), [1_705_314_600_000], [0])
    assert batch.values.tolist() == [pytest.approx([100 / 1.609344, 120, 10 * 1.609344, 0.1])]
    assert (source.name, source.replayed, source.through_ms) == ("http", False, None)


async def test_a_source_says_who_it_is_and_how_far_it_has_come():
    context = make_context()
    async with client(context) as http:
        query = "source=week&replayed=true&through=2024-01-15T10:35:00Z"
        answer = await http.post(f"/api/traffic/readings?{query}", json=[])
    assert answer.status_code == 200
    [(batch, source)] = context.door.batches
    assert (len(batch), source.name, source.replayed) == (0, "week", True)
    assert source.through_ms == 1_705_314_900_000


BAD = [
    (reading(speed="fast"), "speed"),
    (reading(speed=True), "speed"),
    (reading(speed=[1]), "speed"),
    (reading(speed=-3), "speed"),
    (reading(occupancy=1.01), "occupancy"),
    (reading(volume="1"), "volume"),
    (reading(sensor_id=""), "sensor_id"),
    (reading(sensor_id="  "), "sensor_id"),
    (reading(sensor_id=5), "sensor_id"),
    (reading(sensor_id="x" * 65), "sensor_id"),
    (reading(sensor_id="a\nb"), "sensor_id"),
    (reading(sensor_id="a\u0000"), "sensor_id"),
    (reading(sensor_id=" A1"), "sensor_id"),
    (reading(sensor_id="A1 "), "sensor_id"),
    (reading(sensor_id="A\u200b1"), "sensor_id"),
    (reading(sensor_id="A\u202e1"), "sensor_id"),
    (reading(sensor_id="\ufeffA1"), "sensor_id"),
    (reading(timestamp="2024-13-01T00:00:00Z"), "timestamp"),
    (reading(timestamp="2024-01-15T10:30:00"), "timestamp"),
    (reading(timestamp="2024-01-15"), "timestamp"),
    (reading(timestamp=1705314600), "timestamp"),
    (reading(timestamp=None), "timestamp"),
    ({"sensor_id": "A3"}, "timestamp"),
]


async def test_bad_readings_are_named_and_the_others_go_on():
    items = [reading("A0"), *(item for item, _ in BAD), "text", None, 5, [], reading("A9")]
    context = make_context()
    async with client(context) as http:
        account = (await http.post("/api/traffic/readings", json=items)).json()
    assert account["received"] == len(items)
    assert account["accepted"] == 2
    assert account["accepted"] + account["duplicate"] + account["rejected"] == account["received"]
    assert [r["index"] for r in account["rejections"]] == list(range(1, len(items) - 1))
    assert [(r["field"], r["value"]) for r in account["rejections"][-4:]] == [
        ("item", "text"), ("item", None), ("item", 5), ("item", []),
    ]  # fmt: skip
    for rejection, (item, field) in zip(account["rejections"], BAD, strict=False):
        assert rejection["field"] == field
        assert rejection["value"] == item.get(field) or not isinstance(item.get(field), str | int | float)
        assert "expected" in rejection["reason"]


@pytest.mark.parametrize(("item", "field"), BAD)
async def test_a_single_bad_reading_is_a_problem(item: dict, field: str):
    async with client(make_context()) as http:
        assert is_problem(await http.post("/api/traffic/readings", json=item), 422, field)


@pytest.mark.parametrize("body", [b"42", b'"x"', b"null", b"true"])
async def test_a_body_that_is_no_reading_is_a_problem(body: bytes):
    async with client(make_context()) as http:
        assert is_problem(await http.post("/api/traffic/readings", content=body), 422, "body")


@pytest.mark.parametrize("body", [b"", b"{{{", b"[" * 5_000, b"\xff", b'{"speed": NaN}'])
async def test_a_body_that_is_no_json_is_a_problem(body: bytes):
    async with client(make_context()) as http:
        answer = await http.post("/api/traffic/readings", content=body)
    assert is_problem(answer, 422, "body")
    assert "expected JSON" in answer.json()["errors"][0]["reason"]


async def test_an_empty_list_and_a_bad_list_get_accounts():
    async with client(make_context()) as http:
        for items, rejected in (([], 0), ([5], 1)):
            account = (await http.post("/api/traffic/readings", json=items)).json()
            assert (account["received"], account["accepted"], account["rejected"]) == (rejected, 0, rejected)


async def test_offsets_and_fractions_keep_their_meaning():
    context = make_context()
    stamps = ("2024-01-15T12:30:00+02:00", "2024-01-15T04:30:00.5-06:00", "2024-01-15T10:30:00.001999Z")
    async with client(context) as http:
        await http.post("/api/traffic/readings", json=[reading(f"S{i}", timestamp=at) for i, at in enumerate(stamps)])
    [(batch, _)] = context.door.batches
    assert (batch.at_ms - 1_705_314_600_000).tolist() == [0, 500, 1]


@pytest.mark.parametrize(
    ("stamp", "ms"),
    [
        ("2024-01-15t10:30:00z", 0),
        ("2024-01-15 10:30:00Z", 0),
        ("2024-01-15T10:30:00-00:00", 0),
        ("2024-01-16T10:29:00+23:59", 0),
        ("2024-01-14T10:31:00-23:59", 0),
        ("2024-01-15T10:30:00.123456789Z", 123),
    ],
)
async def test_every_form_of_rfc_3339_is_a_time(stamp: str, ms: int):
    context = make_context()
    async with client(context) as http:
        answer = await http.post("/api/traffic/readings", json=reading(timestamp=stamp))
    assert answer.status_code == 200
    assert context.door.batches[0][0].at_ms.tolist() == [1_705_314_600_000 + ms]


async def test_a_leap_second_is_the_first_of_the_next_day():
    context = make_context()
    async with client(context) as http:
        await http.post("/api/traffic/readings", json=reading(timestamp="2017-01-01T00:59:60+01:00"))
        assert (await http.post("/api/traffic/readings", json=reading(timestamp="2017-01-01T00:59:60Z"))).is_error
    assert context.door.batches[0][0].at_ms.tolist() == [1_483_228_800_000]


@pytest.mark.parametrize(
    "stamp",
    [
        "2024-01-15T10:30Z", "20240115T103000Z", "2024-W03-1T10:30:00Z", "2024-01-15x10:30:00Z",
        "2024-01-15T10:30:00,5Z", "2024-01-15T10:30:00+0000", "2024-01-15T10:30:00+24:00", "2024-01-15T24:00:00Z",
        "2024-02-30T10:30:00Z", "0001-01-01T00:00:00+23:59", "２０２４-01-15T10:30:00Z", "2024-01-15T10:30:00Z\n",
    ],
)  # fmt: skip
async def test_what_rfc_3339_does_not_know_is_no_time(stamp: str):
    async with client(make_context()) as http:
        assert is_problem(await http.post("/api/traffic/readings", json=reading(timestamp=stamp)), 422, "timestamp")


async def test_numbers_that_no_float_holds_spoil_only_their_own_reading():
    """They are JSON, so the list gets its account."""
    context = make_context()
    good = json.dumps(reading("A1"))
    odd = [good.replace("45.5", number) for number in ("-1e400", "-" + "9" * 400, "-1e39")]
    body = f"[{good}, {', '.join(odd)}, {good.replace('A1', chr(92) + 'ud800')}]"
    async with client(context) as http:
        account = (await http.post("/api/traffic/readings", content=body)).json()
    assert (account["received"], account["accepted"], account["rejected"]) == (5, 1, 4)
    assert [(r["index"], r["field"]) for r in account["rejections"]] == [
        (1, "speed"), (2, "speed"), (3, "speed"), (4, "sensor_id"),
    ]  # fmt: skip
    assert [r["value"] for r in account["rejections"][:1]] == ["-Infinity"]


async def test_absent_values_are_missing_and_zero_is_zero():
    context = make_context()
    sent = {"sensor_id": "A", "timestamp": "2024-01-15T10:30:00Z", "speed": 0, "volume": None, "colour": "red"}
    async with client(context) as http:
        await http.post("/api/traffic/readings", json=sent)
    [(batch, _)] = context.door.batches
    assert batch.values[0, 0] == 0
    assert np.isnan(batch.values[0, 1:]).all()


async def test_a_body_too_large_is_refused_declared_or_not():
    context = make_context(limits=ApiLimits(max_body_bytes=1_000))

    async def pieces():
        for _ in range(100):
            yield b" " * 100

    async with client(context) as http:
        assert is_problem(await http.post("/api/traffic/readings", content=b" " * 1_001), 413)
        assert is_problem(await http.post("/api/traffic/readings", content=pieces()), 413)
        assert is_problem(await http.post("/api/incidents", content=b" " * 1_001), 413)
        body = json.dumps([reading()]).encode().ljust(1_000)
        assert (await http.post("/api/traffic/readings", content=body)).status_code == 200


async def test_a_large_batch_is_read_in_order():
    context = make_context(limits=ApiLimits())
    items = [reading(f"S{i % 50}", speed=i % 60, timestamp="2024-01-15T10:30:00Z") for i in range(3_000)]
    async with client(context) as http:
        account = (await http.post("/api/traffic/readings", json=items)).json()
    assert account["accepted"] == 3_000
    [(batch, _)] = context.door.batches
    assert len(batch.codes) == 50
    assert batch.values[:, 0].tolist() == [i % 60 for i in range(3_000)]


async def test_the_clock_is_the_feeds():
    later = datetime(2030, 1, 1, tzinfo=UTC)
    context = make_context()
    context.clock.wall = lambda: later
    async with client(context) as http:
        answer = await http.get("/api/traffic/current?limit=1")
    assert answer.headers["roadcast-as-of"] == "2024-01-15T10:32:00Z"
    assert answer.json()[0]["age_s"] == (NOW - TICK) / timedelta(seconds=1)
