"""An API on SQLite, an API on each of the two databases, and the callers that most tests need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.service import Api, RunningClock
from tests.conftest import open_store
from tests.world import SeededEntropy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx


@pytest.fixture
async def api(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The API on SQLite."""
    async for one in _open(sqlite_url, tmp_path):
        yield one


@pytest.fixture
async def both(database_url: str, tmp_path: Path) -> AsyncIterator[Api]:
    """The API on each of the two databases in turn."""
    async for one in _open(database_url, tmp_path):
        yield one


async def _open(url: str, folder: Path) -> AsyncIterator[Api]:
    clock, entropy = RunningClock(), SeededEntropy()
    store = await open_store(url, clock, entropy)
    logs = folder / "logs"
    logs.mkdir()
    yield Api(store, clock, entropy, logs)
    await store.close()


@pytest.fixture
async def admin(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with await api.caller("admin") as client:
        yield client
