"""Predictions over HTTP, from a database that holds several issues."""

import asyncio
from datetime import UTC, datetime, timedelta

from integration.api_history import NOW, client, history, load, make_context
from integration.databases import connected
from integration.test_api_database import an_issue

from roadcast.domain.ids import pack
from roadcast.domain.times import to_ms
from roadcast.storage import forecasts
from roadcast.storage.partitions import Partitions

FIRST, SECOND = (datetime(2026, 3, 9, 12, minute, tzinfo=UTC) for minute in (10, 15))


def test_pages_are_of_one_issue_though_another_comes(address):
    async def go() -> None:
        async with connected(address) as database:
            state = await load(database, history()[0])
            async with database.write() as writer:
                for at, speed in ((FIRST, 40), (SECOND, 50)):
                    await forecasts.store(writer, an_issue(at, speed), Partitions("forecasts"))
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
