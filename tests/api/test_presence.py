"""An API says that it serves for as long as it does, and serves whether that can be noted or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from api.app import stop_streams
from dag.errors import Unavailable
from metastore.models.service import presence
from tests.api.service import until
from tests.api.test_example_workers import Serving

if TYPE_CHECKING:
    import pytest
    from sqlalchemy import Connection

    from tests.api.service import Api


def _seen(conn: Connection) -> Any:
    return conn.execute(select(presence.c.seen_at)).scalar()


async def test_an_api_says_that_it_serves_as_long_as_it_does(both: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.presence._TIMES", 100)

    async def seen() -> Any:
        return await both.store.read(_seen)

    serving = Serving(both)
    assert await seen() is None
    async with serving:
        first = await until(seen)
        await until(seen, lambda now: now != first)
    await asyncio.sleep(0.3)  # what was on its way when the server ended may still be written
    last = await seen()
    async with both.client() as nobody:  # without a server nobody says it
        await nobody.get("/health/live")
    assert await seen() == last


async def test_an_api_that_takes_no_more_requests_says_so_no_more(both: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may answer what it has for some seconds: for workers the outage has begun (simulation, seed 50100053)."""
    monkeypatch.setattr("api.presence._TIMES", 100)

    async def seen() -> Any:
        return await both.store.read(_seen)

    async with Serving(both):
        await until(seen)
        stop_streams(both.app)
        await asyncio.sleep(0.3)  # what was on its way may still be written
        last = await seen()
        await asyncio.sleep(1)
        assert await seen() == last


async def test_an_api_serves_while_that_cannot_be_noted(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("away")

    monkeypatch.setattr(api.store, "write", away)
    async with Serving(api) as url:
        assert url.startswith("http://127.0.0.1:")
