"""Predictions over HTTP, from a database that holds several issues."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from integration.api_history import NOW, client, history, load, make_context
from integration.databases import connected
from integration.test_api_database import an_issue

from roadcast.blobs.file import FileBlobs
from roadcast.domain.ids import pack
from roadcast.domain.times import to_ms
from roadcast.registry.registry import Registry
from roadcast.storage import asked, forecasts
from roadcast.storage.engine import Database
from roadcast.storage.partitions import Partitions

FIRST, SECOND = (datetime(2026, 3, 9, 12, minute, tzinfo=UTC) for minute in (10, 15))


async def store_both(database: Database) -> None:
    """Two issues, of 40 and of 50 mph."""
    async with database.write() as writer:
        for at, speed in ((FIRST, 40), (SECOND, 50)):
            await forecasts.store(writer, an_issue(at, speed), Partitions("forecasts"))


def test_pages_are_of_one_issue_though_another_comes(address):
    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0])
            await store_both(database)
            state.foresee(lambda: an_issue(FIRST, 40))
            async with client(make_context(database, state)) as http:
                whole = (await http.get("/api/predictions/latest")).json()
                page = await http.get("/api/predictions/latest?limit=5")
                seen = page.json()
                state.foresee(lambda: an_issue(SECOND, 50))
                while "next" in page.links:
                    page = await http.get(page.links["next"]["url"])
                    seen += page.json()
        assert len(seen) == 24
        assert seen == whole

    asyncio.run(go())


def test_a_prediction_that_was_never_made_is_unavailable_where_it_could_have_been(address):
    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0])
            async with database.write() as writer:
                await forecasts.store(writer, an_issue(SECOND, 50), Partitions("forecasts"))
            state.foresee(lambda: an_issue(SECOND, 50))
            async with client(make_context(database, state)) as http:
                passed_over = await http.get(f"/api/predictions/{pack(1, to_ms(FIRST), 30)}")
                nothing = await http.get(f"/api/predictions/{pack(1, to_ms(NOW - timedelta(days=30)), 30)}")
                ahead = await http.get(f"/api/predictions/{pack(1, to_ms(NOW + timedelta(minutes=5)), 30)}")
        assert (passed_over.status_code, passed_over.json()["status"]) == (200, "unavailable")
        assert (nothing.status_code, ahead.status_code) == (404, 404)

    asyncio.run(go())


def test_the_issue_before_a_time_can_be_asked_for(address):
    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0])
            await store_both(database)
            state.foresee(lambda: an_issue(SECOND, 50))
            async with client(make_context(database, state)) as http:

                async def issued(**query: datetime) -> set[str]:
                    params = {name: at.isoformat() for name, at in query.items()}
                    answer = await http.get("/api/predictions/latest", params=params)
                    return {each["issued_at"] for each in answer.json()}

                assert await issued() == {"2026-03-09T12:15:00Z"}
                assert await issued(issued_before=SECOND) == {"2026-03-09T12:10:00Z"}
                assert await issued(issued_before=SECOND + timedelta(seconds=1)) == {"2026-03-09T12:15:00Z"}
                assert await issued(issued_before=FIRST) == set()
                assert await issued(as_of=FIRST, issued_before=NOW) == {"2026-03-09T12:10:00Z"}

    asyncio.run(go())


def test_a_forecast_further_than_issues_reach_is_pending_until_it_is_answered(address):
    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0])
            async with database.write() as writer:
                await asked.ask(writer, SECOND, 1, anew=False)
                await asked.ask(writer, SECOND, 3, anew=False)
            async with client(make_context(database, state)) as http:

                async def of(sensor_no: int, minutes: int) -> tuple[int, dict[str, Any]]:
                    answer = await http.get(f"/api/predictions/{pack(sensor_no, to_ms(SECOND), minutes)}")
                    return answer.status_code, answer.json()

                assert (await of(1, 90))[1]["status"] == "pending"
                issue = an_issue(SECOND, 50)
                names = ("speed", "volume", "confidence", "tolerance", "quantiles")
                far = replace(issue, **{name: np.repeat(getattr(issue, name), 2, axis=1) for name in names})
                async with database.write() as writer:
                    await asked.fulfil(writer, far)
                status, document = await of(1, 90)
                assert (status, document["status"]) == (200, "completed")
                assert document["prediction"]["horizon_minutes"] == 90
                assert document["prediction"]["target_time"] == "2026-03-09T13:45:00Z"
                assert document["prediction"]["predicted_speed"] == 50
                assert (await of(3, 90))[1]["status"] == "unavailable"
                assert (await of(2, 90))[0] == 404
                assert (await of(1, 125))[0] == 404

    asyncio.run(go())


def test_a_damaged_change_of_the_champion_is_told_with_the_remedy(address, tmp_path):
    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0])
            context = replace(make_context(database, state), registry=Registry(FileBlobs(tmp_path), lambda: NOW))
            async with client(context) as http:
                assert (await http.get("/api/models")).json()["versions"] == []
                (tmp_path / "traffic" / "champion").mkdir(parents=True)
                (tmp_path / "traffic" / "champion" / "000001.json").write_text("{")
                damaged = await http.get("/api/models")
                assert damaged.status_code == 503
                assert "champion/000001.json" in damaged.text
                assert "Restore the file from a backup" in damaged.text

    asyncio.run(go())
