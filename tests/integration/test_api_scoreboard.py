"""The scoreboard over HTTP: what it says is what the exported rows say, and the filters choose what they name."""

import asyncio
import csv
import importlib.util
import io
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pytest
from arro3.io import read_parquet
from integration.api_history import NETWORK, NOW, TICK_MS, ZONE, client, load, make_context
from integration.databases import connected

from roadcast.api import export
from roadcast.api.past import parts
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import from_ms, to_ms
from roadcast.domain.units import Units
from roadcast.pipeline.recorder import Recorder
from roadcast.pipeline.score import ScoreConfig, Scorer
from roadcast.services import Board
from roadcast.storage import forecasts, sensors
from roadcast.storage.engine import Database
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.partitions import Partitions
from roadcast.streaming.memory import MemoryLog

SCRIPT = Path(__file__).parents[2] / "examples" / "recompute_accuracy.py"
HORIZONS, ISSUES = 12, 60
END_MS = to_ms(NOW) // TICK_MS * TICK_MS
FIRST_MS = END_MS - ISSUES * TICK_MS
PATH = "/api/predictions/accuracy"


def script() -> ModuleType:
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location("recompute_accuracy", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def an_issue(at_ms: int, random: np.random.Generator) -> IssuedRows:
    """Of sensors A and C, and of B as long as it is early; gaps; from half time on another model and one more rival."""
    number = np.array([1, 2, 3] if at_ms < FIRST_MS + 50 * TICK_MS else [1, 3], np.int32)
    shape = (len(number), HORIZONS)
    speed = random.uniform(10, 70, shape).round(2).astype(np.float32)
    speed[random.random(shape) < 0.05] = np.nan
    spread = np.array([-15, -10, -4, 0, 4, 10, 15], np.float32)
    candidates = {"last_value": speed + 1.23456, "profile": random.uniform(10, 70, shape).astype(np.float32)}
    early = at_ms < FIRST_MS + 30 * TICK_MS
    return IssuedRows(
        at_ms, "blend" if early else "net", "1", number, np.zeros(len(number), np.int32), speed, speed,
        random.uniform(0, 1, shape).round(4).astype(np.float32), np.maximum(5, speed / 10).round(2).astype(np.float32),
        (speed[..., None] + spread).round(2), candidates if early else {**candidates, "net": speed - 2},
    )  # fmt: skip


def some_readings() -> ReadingBatch:
    """Six hours and a half of three sensors: B with gaps, and a jam at A."""
    random = np.random.default_rng(7)
    ticks = END_MS - TICK_MS * np.arange(ISSUES + 18)[::-1]
    at, sensor = np.repeat(ticks, 3), np.tile(np.arange(3, dtype=np.int32), len(ticks))
    speed = random.integers(40, 70, at.size).astype(np.float32)
    in_jam = (sensor == 0) & (at > FIRST_MS + 20 * TICK_MS) & (at < FIRST_MS + 35 * TICK_MS)
    speed[in_jam] = random.integers(5, 29, in_jam.sum())
    values = np.full((at.size, 4), np.nan, np.float32)
    values[:, 0] = speed
    keep = (sensor != 1) | (random.random(at.size) < 0.8)
    return ReadingBatch(("A", "B", "C"), sensor[keep], at[keep], values[keep])


async def fill(database: Database, *, scored: bool = True) -> Any:
    """Readings, five hours of issues, and their scores."""
    state = await load(database, some_readings())
    random = np.random.default_rng(11)
    async with database.write() as writer:
        for i in range(ISSUES + 1):
            await forecasts.store(writer, an_issue(FIRST_MS + i * TICK_MS, random), Partitions("forecasts"))
    if scored:
        config = ScoreConfig("p", TICK_MS, HORIZONS, ZONE.key)
        await Scorer(database, MemoryLog(), Board(lambda: NOW), config)._begin()
    return state


def with_scores(
    address: Any, look: Callable[[httpx.AsyncClient], Awaitable[None]], units: Units = Units.US, *, scored: bool = True
) -> None:
    async def go() -> None:
        async with connected(address) as database:
            context = replace(make_context(database, await fill(database, scored=scored)), units=units)
            async with client(context) as http:
                await look(http)

    asyncio.run(go())


async def rows(http: httpx.AsyncClient, **query: object) -> list[dict[str, str]]:
    """Exported."""
    answer = await http.get("/api/predictions/export", params={"from": from_ms(FIRST_MS).isoformat(), **query})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(answer.text)))


async def get(http: httpx.AsyncClient, **query: object) -> list[dict[str, Any]]:
    """The models of the scoreboard."""
    answer = await http.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["models"]


FILTERS = [
    {},
    {"sensor_id": "A"},
    {"sensor_id": "C", "horizon_minutes": 30},
    {"horizon_minutes": 60},
    {"hour": 6},
    {"state": "high"},
    {"state": "onset"},
    {"state": "unknown", "hour": 5},
    {"sensor_id": "A", "state": "onset"},
    {"sensor_id": "B", "hour": 4, "state": "low"},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_the_rows_say_what_the_scoreboard_says(address, filters: dict[str, Any]):
    example = script()
    asked = {"sensor_id": None, "horizon_minutes": None, "hour": None, "state": None, **filters}

    async def look(http: httpx.AsyncClient) -> None:
        said = (await http.get(PATH, params=filters)).json()
        board = example.Scoreboard(1.0)
        chosen = {name: asked[name] for name in ("sensor_id", "horizon_minutes") if asked[name]}
        for row in await rows(http, **chosen):
            local = (datetime.fromisoformat(row["target_time"]) - timedelta(milliseconds=1)).astimezone(ZONE)
            if asked["hour"] in (None, local.hour) and example.is_in(row, asked["state"]):
                board.add(row)
        compared = list(example.lines(said, board, asked["state"] is not None))
        assert [line for line in compared if not example.agree(*line[1:])] == []
        assert max(line[1] for line in compared if line[0].endswith("count")) > 0

    with_scores(address, look)


def test_the_rows_say_it_in_kilometres_too(address):
    example = script()

    async def look(http: httpx.AsyncClient) -> None:
        said = (await http.get(PATH)).json()
        board = example.Scoreboard(example.KM_PER_MILE)
        for row in await rows(http):
            board.add(row)
            assert row["unit"] == said["unit"] == "km/h"
        assert [line for line in example.lines(said, board, by_state=False) if not example.agree(*line[1:])] == []

    with_scores(address, look, Units.METRIC)


def test_a_row_that_is_not_what_was_scored_shows(address):
    example = script()

    async def look(http: httpx.AsyncClient) -> None:
        said = (await http.get(PATH, params={"sensor_id": "A"})).json()
        board, found = example.Scoreboard(1.0), await rows(http, sensor_id="A")
        found[0]["actual_speed"] = str(float(found[0]["actual_speed"]) + 2)
        for row in found:
            board.add(row)
        differ = [line[0] for line in example.lines(said, board, by_state=False) if not example.agree(*line[1:])]
        assert any(name.endswith("served all mae") for name in differ)

    with_scores(address, look)


def test_groups_add_up_to_the_whole(address):
    async def look(http: httpx.AsyncClient) -> None:
        [whole] = await get(http, model="served", horizon_minutes=15)
        hours = await get(http, model="served", horizon_minutes=15, by="hour")
        states = await get(http, model="served", horizon_minutes=15, by="state")
        assert sum(group["count"] for group in hours) == whole["count"]
        assert [group["hour"] for group in hours] == sorted(group["hour"] for group in hours)
        named = {group["state"]: group["count"] for group in states}
        assert named.pop("onset") == whole["onset"]["count"]
        assert sum(named.values()) == whole["count"]
        assert named["high"] + named["severe"] == whole["jam"]["count"]
        own = [(await get(http, sensor_id=code, model="served", horizon_minutes=15))[0] for code in "ABC"]
        assert sum(group["count"] for group in own) == whole["count"]
        own_states = await get(http, sensor_id="C", model="served", horizon_minutes=15, by="state")
        assert [group["state"] for group in own_states] == ["unknown"]  # nobody knows C's reference speed

    with_scores(address, look)


def test_sensors_come_worst_first_in_pages(address):
    async def look(http: httpx.AsyncClient) -> None:
        seen, url = [], f"{PATH}?by=sensor&limit=5"
        while url:
            answer = await http.get(url)
            seen += answer.json()["models"]
            url = answer.links.get("next", {}).get("url")
        assert len(seen) == 3 * HORIZONS
        assert [group["mae"] for group in seen] == sorted((group["mae"] for group in seen), reverse=True)
        for group in seen[:4]:
            [alone] = await get(
                http, sensor_id=group["sensor_id"], model="served", horizon_minutes=group["horizon_minutes"]
            )
            shared = ("count", "mae", "rmse", "bias", "skill", "baseline_better", "model")
            assert [group[name] for name in shared] == [alone[name] for name in shared]
        rivals = await get(http, by="sensor", model="profile", horizon_minutes=60)
        assert {group["sensor_id"] for group in rivals} == set("ABC")
        assert {(group["model"], group["horizon_minutes"], group["jam"]) for group in rivals} == {("profile", 60, None)}

    with_scores(address, look)


def test_forecasters_that_nobody_knows_are_refused_by_name(address):
    async def look(http: httpx.AsyncClient) -> None:
        answer = await http.get(f"{PATH}?model=prophet")
        [error] = answer.json()["errors"]
        assert (answer.status_code, error["field"], error["value"]) == (422, "model", "prophet")
        assert error["reason"] == "expected one of last_value, net, profile, served"
        assert {group["model"] for group in await get(http, model="net")} == {"net"}

    with_scores(address, look)


def test_a_row_tells_all_of_a_forecast(address):
    async def look(http: httpx.AsyncClient) -> None:
        found = await rows(http, sensor_id="B", horizon_minutes=10)
        assert {(row["sensor_id"], row["horizon_minutes"]) for row in found} == {("B", "10")}
        made = an_issue(FIRST_MS, np.random.default_rng(11))
        [first] = [row for row in found if row["issued_at"] == f"{from_ms(FIRST_MS):%Y-%m-%dT%H:%M:%SZ}"]
        assert first["target_time"] == f"{from_ms(FIRST_MS + 2 * TICK_MS):%Y-%m-%dT%H:%M:%SZ}"
        assert (first["model_name"], first["model_version"], first["unit"]) == ("blend", "1", "mph")
        expected = {
            "predicted_speed": made.speed[1, 1], "p05": made.quantiles[1, 1, 0], "p95": made.quantiles[1, 1, 6],
            "confidence": made.confidence[1, 1], "tolerance": made.tolerance[1, 1], "reference_speed": 65.0,
            "candidate_last_value": made.candidates["last_value"][1, 1],
        }  # fmt: skip
        assert {name: float(first[name]) for name in expected} == pytest.approx(expected, abs=6e-5)
        assert first["candidate_net"] == ""
        assert first["near_onset"] in ("true", "false")

    with_scores(address, look)


def test_targets_that_have_not_come_are_there_on_demand(address):
    async def look(http: httpx.AsyncClient) -> None:
        come, both = await rows(http), await rows(http, pending="true")
        keys = [(row["issued_at"], row["sensor_id"], int(row["horizon_minutes"])) for row in both]
        assert keys == sorted(set(keys))
        assert len(both) == HORIZONS * (3 * 50 + 2 * 11)
        later = [row for row in both if row not in come]
        assert later
        newest = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"
        assert all(row["target_time"] > newest and not row["actual_speed"] + row["near_onset"] for row in later)
        assert all(row["target_time"] <= newest for row in come)
        recent = [row for row in come if row["target_time"] > f"{NOW - timedelta(minutes=30):%Y-%m-%dT%H:%M:%SZ}"]
        assert {row["near_onset"] for row in recent} == {""}  # nobody knows yet

    with_scores(address, look)


def test_parquet_holds_what_csv_holds(address):
    async def look(http: httpx.AsyncClient) -> None:
        text = await rows(http, sensor_id="A")
        query = {"from": from_ms(FIRST_MS).isoformat(), "sensor_id": "A", "format": "parquet"}
        answer = await http.get("/api/predictions/export", params=query)
        assert answer.headers["content-type"] == "application/vnd.apache.parquet"
        assert answer.headers["content-disposition"].endswith('.parquet"')
        table = read_parquet(answer.content).read_all()
        assert table.column_names == list(text[0])
        for name in table.column_names:
            own = [told(value) for value in table[name].to_pylist()]
            assert own == [plain(row[name]) for row in text], name

    with_scores(address, look)


def told(value: object) -> object:
    """As a CSV writes it, then read."""
    match value:
        case datetime():
            return f"{value:%Y-%m-%dT%H:%M:%SZ}"
        case bool():
            return str(value).lower()
        case _:
            return plain(value)


def plain(text: object) -> object:
    """A number where it is one, nothing where it is missing."""
    if text in ("", None):
        return None
    try:
        return float(text)  # type: ignore[arg-type]
    except ValueError:
        return text


def test_later_corrections_change_neither_rows_nor_scores(address):
    async def go() -> None:
        async with connected(address) as database:
            state = await fill(database)
            async with client(make_context(database, state)) as http:
                before = await get(http, sensor_id="A"), await rows(http, sensor_id="A")
                batch = ReadingBatch(
                    ("A",), np.zeros(1, np.int32), np.array([END_MS - TICK_MS]), np.full((1, 4), 1, "f4")
                )
                recorder = Recorder(TICK_MS, ZONE.key)
                async with database.write() as writer:
                    await recorder.load(writer)
                    await recorder.record(writer, batch, batch.at_ms + 1)
                    await sensors.describe(writer, [replace(NETWORK[0], reference_speed=20.0)])
                assert (await get(http, sensor_id="A"), await rows(http, sensor_id="A")) == before

    asyncio.run(go())


def test_days_are_local_ones_on_the_feeds_clock(address):
    async def look(http: httpx.AsyncClient) -> None:
        said = (await http.get(PATH, params={"days": 1})).json()
        first = (NOW - timedelta(days=1)).astimezone(ZoneInfo(said["timezone"])).date()
        assert (date.fromisoformat(said["from_day"]), said["days"]) == (first, 1)
        assert said["models"]

    with_scores(address, look)


@pytest.mark.parametrize("query", [{}, {"by": "hour"}, {"by": "sensor"}])
def test_what_is_to_come_to_a_replay_does_not_count(address, query: dict[str, str]):
    """The store has scored a later time before."""

    async def go() -> None:
        async with connected(address) as database:
            state = await fill(database)
            async with database.write() as writer:
                await writer.run("UPDATE scores SET day = day + 60")
                await writer.run("UPDATE sensor_scores SET day = day + 60")
            async with client(make_context(database, state)) as http:
                assert await get(http, days=7, **query) == []

    asyncio.run(go())


def test_without_scores_there_is_nothing_to_say_and_no_row(address):
    async def look(http: httpx.AsyncClient) -> None:
        assert await get(http) == await get(http, by="sensor") == await get(http, sensor_id="A") == []
        assert await rows(http) == []
        assert len(await rows(http, pending="true", horizon_minutes=5)) == 3 * 50 + 2 * 11

    with_scores(address, look, scored=False)


@asynccontextmanager
async def nothing_scored(address: Any):
    async with connected(address) as database:
        state = await load(database, some_readings())
        async with client(make_context(database, state)) as http:
            yield http


def test_without_forecasts_the_file_has_only_its_head(address):
    async def go() -> None:
        async with nothing_scored(address) as http:
            answer = await http.get("/api/predictions/export")
            assert answer.text.startswith("issued_at,target_time,sensor_id")
            assert answer.text.count("\n") == 1
            empty = await http.get("/api/predictions/export?format=parquet")
            assert read_parquet(empty.content).read_all().num_rows == 0

    asyncio.run(go())


async def begin(http: httpx.AsyncClient, media: str, read: asyncio.Event, query: str = "") -> asyncio.Task[None]:
    """An export whose client takes the head, and the rest once `read` is set; returns when the head is there."""
    head = asyncio.Event()

    async def send(message: Any) -> None:
        head.set()
        await read.wait()

    scope = {
        "type": "http", "method": "GET", "path": "/api/predictions/export", "headers": [],
        "query_string": f"format={media}{query}".encode(),
    }  # fmt: skip
    exporting = asyncio.create_task(http._transport.app(scope, nothing_more, send))
    await asyncio.wait_for(head.wait(), 10)
    return exporting


async def nothing_more() -> Any:
    await asyncio.Event().wait()


async def left(exporting: asyncio.Task[None]) -> None:
    exporting.cancel()
    with suppress(asyncio.CancelledError):
        await exporting


@pytest.mark.parametrize("media", ["csv", "parquet"])
def test_few_exports_are_made_at_a_time(address, media: str, monkeypatch: pytest.MonkeyPatch):
    async def look(http: httpx.AsyncClient) -> None:
        read = asyncio.Event()
        under_way = [await begin(http, media, read) for _ in range(4)]
        monkeypatch.setattr(export, "PATIENCE_S", 0.2)
        refused = await http.get("/api/predictions/export")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert refused.json()["detail"].startswith("4 exports are being made")
        monkeypatch.setattr(export, "PATIENCE_S", 20)
        waiting = asyncio.create_task(rows(http, sensor_id="A", horizon_minutes=5))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await left(under_way.pop())
        assert len(await waiting) > 0
        read.set()
        await asyncio.wait_for(asyncio.gather(*under_way), 20)
        assert all(await asyncio.wait_for(asyncio.gather(*(rows(http) for _ in range(4))), 20))

    with_scores(address, look)


def test_an_export_that_nobody_reads_makes_room(address, monkeypatch):
    monkeypatch.setattr(export, "STALLED_S", 0.1)

    async def look(http: httpx.AsyncClient) -> None:
        for _ in range(5):
            await asyncio.wait_for(await begin(http, "csv", asyncio.Event()), 5)

    with_scores(address, look)


def test_a_model_that_is_newer_than_the_request_is_named(address):
    async def go() -> None:
        async with connected(address) as database:
            context = make_context(database, await fill(database))
            wanted = export.Export(from_ms(FIRST_MS), NOW, None, 5, pending=False, names=["profile"])
            pieces = export.encoded(context, wanted, "csv")
            head = await anext(pieces)
            anew = replace(an_issue(FIRST_MS, np.random.default_rng(1)), model="late", version="9")
            async with database.write() as writer:
                await forecasts.store(writer, anew, Partitions("forecasts"))
            text = (head + b"".join([piece async for piece in pieces])).decode()
        found = {(row["model_name"], row["model_version"]) for row in csv.DictReader(io.StringIO(text))}
        assert found == {("late", "9"), ("blend", "1"), ("net", "1")}

    asyncio.run(go())


@pytest.mark.parametrize("sensor_no", [None, 1])
def test_years_between_two_feeds_are_no_parts(address, sensor_no: int | None):
    long_ago_ms = to_ms(NOW - timedelta(days=5000)) // TICK_MS * TICK_MS

    async def go() -> None:
        async with connected(address) as database:
            context = make_context(database, await fill(database))
            async with database.write() as writer:
                issue = an_issue(long_ago_ms, np.random.default_rng(1))
                await forecasts.store(writer, issue, Partitions("forecasts"))
            found = [part async for part in parts(context, from_ms(0), NOW, sensor_no)]
        times = {at for part in found for issues in part.issues for at in issues.issued_ms.tolist()}
        assert times == {long_ago_ms, *range(FIRST_MS, END_MS, TICK_MS)}
        assert len(found) <= 3

    asyncio.run(go())
