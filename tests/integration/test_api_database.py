"""The routes that read the database, held against the readings themselves."""

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

import httpx
import numpy as np
import pytest
from integration.api_history import (
    NETWORK,
    NOW,
    TICK_MS,
    ZONE,
    Rows,
    average,
    client,
    history,
    load,
    make_context,
    ratio,
    weighs,
    with_history,
    within,
)
from integration.databases import connected

from roadcast.domain.clock import FeedClock
from roadcast.domain.reading import ReadingBatch
from roadcast.domain.times import from_ms, to_ms
from roadcast.live.state import LiveState
from roadcast.pipeline.recorder import Recorder
from roadcast.storage import forecasts
from roadcast.storage.forecasts import IssuedRows
from roadcast.storage.partitions import Partitions


def test_the_past_by_pages_newest_first(address):
    async def look(http: httpx.AsyncClient, rows: Rows) -> None:
        seen, url = [], "/api/traffic/historical?hours=5&limit=50"
        while url:
            answer = await http.get(url)
            seen += answer.json()
            url = answer.links.get("next", {}).get("url")
        expected = sorted(within(rows, 5), key=lambda row: (-row[0].timestamp(), row[1]))
        assert [(datetime.fromisoformat(r["timestamp"]), r["sensor_id"], r["speed"], r["volume"]) for r in seen] == (
            expected
        )
        own = (await http.get("/api/traffic/historical?hours=1&sensor_id=B")).json()
        assert len(own) == len(within(rows, 1, "B"))

    with_history(address, look)


@pytest.mark.parametrize("sensor", [None, "A", "C"])
@pytest.mark.parametrize("hours", [1, 168])
def test_statistics_are_those_of_the_readings(address, sensor: str | None, hours: int):
    async def look(http: httpx.AsyncClient, rows: Rows) -> None:
        query = f"hours={hours}" + (f"&sensor_id={sensor}" if sensor else "")
        found = (await http.get(f"/api/traffic/statistics?{query}")).json()
        expected = within(rows, hours, sensor)
        assert found["total_readings"] == len(expected)
        assert found["avg_speed"] == pytest.approx(average(expected, weighted=weighs(expected)), abs=0.006)
        assert found["min_speed"] == min(row[2] for row in expected)
        assert found["max_speed"] == max(row[2] for row in expected)
        assert found["avg_volume"] == pytest.approx(sum(row[3] for row in expected) / len(expected), abs=0.06)
        weighting = "volume" if all(row[3] > 0 for row in expected) else "none"
        assert (found["time_window_hours"], found["weighting"]) == (hours, weighting)

    with_history(address, look)


def half_minutes(until: datetime) -> tuple[ReadingBatch, Rows]:
    """Two hours of readings every 30 s at A and B, the slowest and the fastest of them the oldest."""
    at = to_ms(until) - 30_000 * np.arange(240)[::-1]
    speed = np.array([90, 5, *range(20, 80), *range(20, 80), *range(20, 80), *range(20, 78)], np.float32)
    values = np.stack(
        [speed, np.full_like(speed, 10), np.full_like(speed, np.nan), np.full_like(speed, np.nan)], axis=1
    )
    batch = ReadingBatch(("A", "B"), np.tile(np.arange(2, dtype=np.int32), 240), np.repeat(at, 2), values.repeat(2, 0))
    return batch, [
        (from_ms(ms), who, v, 10.0) for ms, v in zip(at.tolist(), speed.tolist(), strict=True) for who in "AB"
    ]


@pytest.mark.parametrize("ahead_s", [-150, 0, 97, 300])
@pytest.mark.parametrize("hours", [1, 2])
def test_what_was_accepted_counts_at_once(address, ahead_s: int, hours: int):
    """Also in the window that is still running, and from a detector whose clock is ahead of ours."""

    async def go() -> None:
        now = NOW + timedelta(seconds=101)
        batch, rows = half_minutes(now + timedelta(seconds=ahead_s))
        async with connected(address) as database:
            context = replace(make_context(database, await load(database, batch)), clock=FeedClock(wall=lambda: now))
            expected = [row for row in rows if row[0] > now - timedelta(hours=hours)]
            async with client(context) as http:
                for sensor in ("", "&sensor_id=A"):
                    own = [row for row in expected if not sensor or row[1] == "A"]
                    found = (await http.get(f"/api/traffic/statistics?hours={hours}{sensor}")).json()
                    assert (found["total_readings"], found["min_speed"], found["max_speed"]) == (
                        len(own), min(row[2] for row in own), max(row[2] for row in own),
                    )  # fmt: skip
                    past = await http.get(f"/api/traffic/historical?hours={hours}&limit=1000{sensor}")
                    assert len(past.json()) == len(own)
                    newest = (await http.get(f"/api/analytics/congestion?hours={hours}{sensor}")).json()["data_points"][
                        -1
                    ]
                    hour = datetime.fromisoformat(newest["timestamp"])
                    assert newest["reading_count"] == sum(row[0] > hour for row in own)
                    for analysis in ("patterns", "trends"):
                        points = (await http.get(f"/api/analytics/{analysis}?days=1{sensor}")).json()["data_points"]
                        counted = sum(point["reading_count"] for point in points if point.get("type") != "daily")
                        assert counted == len([row for row in rows if not sensor or row[1] == "A"])

    asyncio.run(go())


@pytest.mark.parametrize("sensor", [None, "A"])
def test_congestion_is_that_of_the_readings(address, sensor: str | None):
    async def look(http: httpx.AsyncClient, rows: Rows) -> None:
        found = (
            await http.get("/api/analytics/congestion?hours=48" + (f"&sensor_id={sensor}" if sensor else ""))
        ).json()
        reference = {known.sensor_id: known.reference_speed for known in NETWORK}
        expected = within(rows, 48, sensor)
        for point in found["data_points"]:
            start = datetime.fromisoformat(point["timestamp"])
            hour = [row for row in expected if start < row[0] <= start + timedelta(hours=1)]
            mean = ratio(hour, reference, weighted=weighs(expected))
            level = next(
                name for name, cut in (("low", 0.75), ("medium", 0.5), ("high", 0.25), ("severe", 0)) if mean >= cut
            )
            assert point["reading_count"] == len(hour)
            assert point["avg_speed"] == pytest.approx(average(hour, weighted=weighs(expected)), abs=0.006)
            assert point["speed_ratio"] == pytest.approx(mean, abs=0.0006)
            assert point["congestion_level"] == level
        assert sum(point["reading_count"] for point in found["data_points"]) == len(expected)
        known = [row for row in expected if reference[row[1]]]
        congested = sum(row[2] / reference[row[1]] < 0.75 for row in known)
        assert found["summary"]["congestion_percentage"] == pytest.approx(100 * congested / len(known), abs=0.06)
        congested_hours = sum(point["congestion_level"] != "low" for point in found["data_points"])
        assert found["summary"]["congested_hours"] == congested_hours
        assert found["time_period"] == "last_48_hours"

    with_history(address, look)


@pytest.mark.parametrize("sensor", [None, "A"])
def test_patterns_are_local_across_the_change_of_clocks(address, sensor: str | None):
    async def look(http: httpx.AsyncClient, rows: Rows) -> None:
        found = (await http.get("/api/analytics/patterns?days=7" + (f"&sensor_id={sensor}" if sensor else ""))).json()
        expected: dict[tuple[str, int], Rows] = {}
        whole = within(rows, 7 * 24, sensor)
        for row in whole:
            before = (row[0] - timedelta(microseconds=1)).astimezone(ZONE)
            expected.setdefault(("hourly", before.hour), []).append(row)
            expected.setdefault(("daily", before.isoweekday()), []).append(row)
        points = {
            (p["type"], p["hour"] if p["type"] == "hourly" else p["day_of_week"]): p for p in found["data_points"]
        }
        assert set(points) == set(expected)
        speeds = {key: average(rows, weighted=weighs(whole)) for key, rows in expected.items()}
        for key, point in points.items():
            assert point["reading_count"] == len(expected[key])
            assert point["avg_speed"] == pytest.approx(speeds[key], abs=0.006)
        slowest = min((key for key in expected if key[0] == "hourly"), key=speeds.__getitem__)
        assert found["summary"]["slowest_hour"] == slowest[1]

    with_history(address, look)


@pytest.mark.parametrize("sensor", [None, "A"])
def test_trends_go_by_local_days(address, sensor: str | None):
    async def look(http: httpx.AsyncClient, rows: Rows) -> None:
        found = (await http.get("/api/analytics/trends?days=5" + (f"&sensor_id={sensor}" if sensor else ""))).json()
        expected: dict[date, Rows] = {}
        for row in within(rows, 24 * 9, sensor):
            day = (row[0] - timedelta(microseconds=1)).astimezone(ZONE).date()
            if day >= date(2026, 3, 4):
                expected.setdefault(day, []).append(row)
        assert [date.fromisoformat(point["date"]) for point in found["data_points"]] == sorted(expected)
        assert [point["reading_count"] for point in found["data_points"]] == [
            len(expected[d]) for d in sorted(expected)
        ]
        assert [point["complete"] for point in found["data_points"]] == [True] * 5 + [False]
        days = sorted(expected)[:5]
        slope = np.polyfit(range(5), [average(expected[day], weighted=False) for day in days], 1)[0]
        assert found["summary"]["slope_per_day"] == pytest.approx(slope, abs=1e-3)
        assert found["summary"]["slope_low"] < found["summary"]["slope_per_day"] < found["summary"]["slope_high"]

    with_history(address, look)


@pytest.mark.parametrize("sensor", [None, "A"])
@pytest.mark.parametrize("emptied", [None, 400])
def test_all_speeds_of_an_answer_have_one_weighting(address, emptied: int | None, sensor: str | None):
    """Of two sensors, one faster with more vehicles; one reading of A may have none, which one hour would notice."""
    random = np.random.default_rng(5)
    at = np.repeat(to_ms(NOW) // TICK_MS * TICK_MS - TICK_MS * np.arange(2 * 288), 2)
    which = np.tile(np.arange(2, dtype=np.int32), 2 * 288)
    speed = 30 + 20 * which + random.integers(0, 20, at.size)
    volume = 10 + 50 * which + random.integers(0, 20, at.size)
    if emptied is not None:
        volume[emptied] = 0
    values = np.stack([speed, volume, at * np.nan, at * np.nan], axis=1).astype(np.float32)
    rows = list(zip(map(from_ms, at.tolist()), ["AB"[i] for i in which], speed.tolist(), volume.tolist()))
    own = [row for row in rows if sensor in (None, row[1])]

    def key(at: datetime, analysis: str) -> object:
        """What names the point of a reading."""
        before = at - timedelta(microseconds=1)
        local = before.astimezone(ZONE)
        return {"congestion": f"{before:%Y-%m-%dT%H:00:00Z}", "patterns": local.hour}.get(analysis, f"{local:%Y-%m-%d}")

    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, ReadingBatch(("A", "B"), which, at, values))
            async with client(make_context(database, state)) as http:
                for query in ("congestion?hours=48", "patterns?days=2", "trends?days=3"):
                    found = (
                        await http.get(f"/api/analytics/{query}" + (f"&sensor_id={sensor}" if sensor else ""))
                    ).json()
                    check(found, query.partition("?")[0])

    def check(found: dict[str, object], analysis: str) -> None:
        assert found["summary"]["weighting"] == ("volume" if emptied is None else "none")
        groups: dict[object, Rows] = {}
        for row in own:
            groups.setdefault(key(row[0], analysis), []).append(row)
        points = [point for point in found["data_points"] if point.get("type") != "daily"]
        assert len(points) == len(groups)
        for point in points:
            [name] = [point[field] for field in ("timestamp", "hour", "date") if field in point]
            group = groups[name]
            assert point["avg_speed"] == pytest.approx(average(group, weighted=emptied is None), abs=0.006)

    asyncio.run(go())


def test_a_day_with_few_windows_is_not_complete_and_moves_no_slope(address):
    """In a zone whose clocks change: of 23 hours three quarters are 207 windows, of 24 they are 216."""
    held = {date(2026, 3, 5): 216, date(2026, 3, 6): 215, date(2026, 3, 7): 1, date(2026, 3, 8): 207}
    at = [
        to_ms(datetime.combine(day, time(), ZONE)) + TICK_MS * (window + 1) - later_ms
        for day, windows in held.items()
        for window in range(windows)
        for later_ms in (0, 60_000)  # two readings a window count once
    ]
    speeds = np.linspace(60, 61, len(at)).astype(np.float32)
    speeds[2 * (216 + 215) : 2 * (216 + 215 + 1)] = 1
    values = np.stack([speeds, *[speeds * np.nan] * 3], axis=1)
    batch = ReadingBatch(("A",), np.zeros(len(at), np.int32), np.array(at), values)

    async def go() -> None:
        async with connected(address) as database, client(make_context(database, await load(database, batch))) as http:
            for query in ("days=9", "days=9&sensor_id=A"):
                found = (await http.get(f"/api/analytics/trends?{query}")).json()
                complete = {point["date"]: point["complete"] for point in found["data_points"]}
                assert complete == {str(day): day.day in {5, 8} for day in held}
                assert found["summary"]["slope_per_day"] is None  # of two days

    asyncio.run(go())


def test_as_it_was_known_then(address):
    """A reading of 10:00 is corrected at 11:00."""

    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0].take(np.zeros(len(history()[0]), np.bool_)))
            recorder = Recorder(TICK_MS, ZONE.key)
            for speed, minutes in ((50.0, 0), (20.0, 60)):
                at = datetime(2026, 3, 9, 10, tzinfo=UTC)
                values = np.array([[speed, 100, np.nan, np.nan]], np.float32)
                batch = ReadingBatch(("A",), np.zeros(1, np.int32), np.array([to_ms(at)], np.int64), values)
                async with database.write() as writer:
                    await recorder.load(writer)
                    await recorder.record(writer, batch, np.full(len(batch), to_ms(at + timedelta(minutes=minutes))))
            async with client(make_context(database, state)) as http:
                for as_of, speed in (("T10:30:00Z", 50.0), ("T11:30:00Z", 20.0)):
                    query = f"as_of=2026-03-09{as_of}"
                    current = (await http.get(f"/api/traffic/current?{query}")).json()
                    past = (await http.get(f"/api/traffic/historical?hours=2&{query}")).json()
                    stats = (await http.get(f"/api/traffic/statistics?hours=2&{query}")).json()
                    assert [r["speed"] for r in current] == [r["speed"] for r in past] == [speed]
                    assert (stats["avg_speed"], stats["total_readings"]) == (speed, 1)
                assert (await http.get("/api/traffic/current?as_of=2026-03-09T09:00:00Z")).json() == []

    asyncio.run(go())


@pytest.mark.parametrize("days", [0, 1, 3, 20])
def test_what_was_current_then_is_the_newest_that_was_known(address, days: int):
    """Also of a sensor that was silent for long before, and reported again after."""

    async def go() -> None:
        ages = {"A": [40, 30, 2.5, 0], "B": [21.1, 0.1], "C": [2]}
        at = [to_ms(NOW - timedelta(days=age)) for own in ages.values() for age in own]
        who = np.array([i for i, own in enumerate(ages.values()) for _ in own], np.int32)
        values = np.arange(len(at) * 4, dtype=np.float32).reshape(-1, 4) / 100
        async with connected(address) as database:
            state = await load(database, ReadingBatch(tuple(ages), who, np.array(at, np.int64), values))
            async with client(make_context(database, state)) as http:
                then = NOW - timedelta(days=days)
                found = (await http.get("/api/traffic/current", params={"as_of": then.isoformat()})).json()
        assert {item["sensor_id"]: datetime.fromisoformat(item["timestamp"]) for item in found} == {
            code: max(NOW - timedelta(days=age) for age in own if age >= days)
            for code, own in ages.items()
            if max(own) >= days
        }

    asyncio.run(go())


def an_issue(at: datetime, speed: float) -> IssuedRows:
    shape = (2, 12)
    values = np.full(shape, speed, np.float32)
    return IssuedRows(
        to_ms(at), "profile", "1", np.array([1, 2], np.int32), np.zeros(2, np.int32), values, values, values / 100,
        values / 10, np.repeat(values[..., np.newaxis], 7, axis=2), {"last_value": values},
    )  # fmt: skip


def test_forecasts_of_past_issues_can_be_read(address):
    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0])
            first, second = (datetime(2026, 3, 9, 12, minute, tzinfo=UTC) for minute in (10, 15))
            async with database.write() as writer:
                await forecasts.store(writer, an_issue(first, 40), Partitions("forecasts"))
                await forecasts.store(writer, an_issue(second, 50), Partitions("forecasts"))
            async with client(make_context(database, state)) as http:
                query = "as_of=2026-03-09T12:12:00Z&horizon_minutes=30"
                old = (await http.get(f"/api/predictions/latest?{query}")).json()
                assert [(p["sensor_id"], p["predicted_speed"]) for p in old] == [("A", 40.0), ("B", 40.0)]
                one = (await http.get(f"/api/predictions/{old[0]['id']}")).json()
                assert (one["status"], one["prediction"]) == ("completed", old[0])
                absent = old[0]["id"].replace("000000000001", "000000000003")  # a sensor that the issue is without
                assert (await http.get(f"/api/predictions/{absent}")).json()["status"] == "unavailable"
                never = (await http.get(f"/api/predictions/{old[0]['id'].replace('019', '018')}")).status_code
                assert never == 404

    asyncio.run(go())


def test_an_incidents_life(address):
    async def look(http: httpx.AsyncClient, _: Rows) -> None:
        made = (await http.post("/api/incidents", json={"type": "accident", "sensor_id": "A"})).json()
        place = f"/api/incidents/{made['incident_id']}"
        assert (await http.get("/api/incidents?sensor_id=A&status=open&hours=1")).json() == [made]
        assert (await http.get("/api/incidents?sensor_id=B")).json() == []
        assert (await http.post(f"{place}/acknowledge")).json()["status"] == "acknowledged"
        assert (await http.post(f"{place}/acknowledge")).status_code == 409
        await http.patch(place, json={"lanes": 2, "description": "two lanes"})
        assert (await http.post(f"{place}/close")).json()["ended_at"] == "2026-03-09T12:20:00Z"
        assert (await http.post(f"{place}/close")).status_code == 409
        found = (await http.get(place)).json()
        assert [event["action"] for event in found["history"]] == ["created", "acknowledged", "edited", "closed"]
        assert (found["lanes"], found["description"], found["status"]) == (2, "two lanes", "closed")
        assert (await http.get("/api/incidents/018d0cab-c440-801e-8000-000000000001")).status_code == 404
        works = {"type": "roadworks", "started_at": "2026-04-01T06:00:00Z"}
        planned = (await http.post("/api/incidents", json=works)).json()
        off = (await http.post(f"/api/incidents/{planned['incident_id']}/close")).json()
        assert off["ended_at"] == off["started_at"]

    with_history(address, look)


def test_incidents_come_in_pages(address):
    async def look(http: httpx.AsyncClient, _: Rows) -> None:
        starts = [
            "2026-03-09T11:00:00Z",
            "2026-03-09T10:00:00.000250Z",
            "2026-03-09T10:00:00.000250Z",
            "2026-03-08T00:00:00Z",
        ]
        for at in starts:
            await http.post("/api/incidents", json={"type": "accident", "started_at": at})
        whole = [incident["incident_id"] for incident in (await http.get("/api/incidents")).json()]
        paged, page = [], await http.get("/api/incidents?limit=1")
        while len(paged) < 10:
            paged += [incident["incident_id"] for incident in page.json()]
            if "next" not in page.links:
                break
            page = await http.get(page.links["next"]["url"])
        assert paged == whole
        assert len(whole) == 4
        unknown = await http.get("/api/incidents?cursor=018d0cab-c440-801e-8000-000000000001")
        assert (unknown.status_code, unknown.json()["errors"][0]["field"]) == (422, "cursor")

    with_history(address, look)


def test_the_network_is_geojson(address):
    async def look(http: httpx.AsyncClient, _: Rows) -> None:
        answer = await http.get("/api/network")
        assert answer.headers["content-type"] == "application/geo+json"
        features = answer.json()["features"]
        assert [(f["id"], f["properties"]["kind"]) for f in features] == [
            ("A", "sensor"), ("B", "sensor"), ("C", "sensor"), ("A->B", "link"),
        ]  # fmt: skip
        assert features[0]["geometry"] == {"type": "Point", "coordinates": [-86.5, 36.0]}
        assert features[2]["geometry"] is None
        assert features[3]["geometry"]["coordinates"] == [[-86.5, 36.0], [-86.6, 36.1]]
        assert features[3]["properties"]["distance"] == 2.0

    with_history(address, look)


def test_with_a_database_health_is_well(address):
    async def look(http: httpx.AsyncClient, _: Rows) -> None:
        for path in ("/health", "/health/detailed"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["database"]["status"]) == (200, "ok")

    with_history(address, look)


def test_an_empty_system_answers_with_nothing(address):
    async def go() -> None:
        async with connected(address) as database, client(make_context(database, LiveState())) as http:
            assert (await http.get("/api/traffic/current")).json() == []
            assert (await http.get("/api/traffic/historical?hours=1")).json() == []
            stats = (await http.get("/api/traffic/statistics?hours=1")).json()
            assert (stats["avg_speed"], stats["min_speed"], stats["total_readings"]) == (None, None, 0)
            congestion = (await http.get("/api/analytics/congestion?hours=24")).json()
            assert congestion["data_points"] == []
            assert congestion["summary"]["congestion_percentage"] is None
            trends = (await http.get("/api/analytics/trends")).json()
            assert trends["summary"]["slope_per_day"] is None
            assert (await http.get("/api/predictions/accuracy")).json()["models"] == []
            assert (await http.get("/api/network/state")).json()["sensor_ids"] == []
            refused = await http.post("/api/predictions/generate", json={"sensor_id": "A", "horizon_minutes": 30})
            assert refused.status_code == 404

    asyncio.run(go())
