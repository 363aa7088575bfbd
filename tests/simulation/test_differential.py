"""The model is the product: random commands and queries get the same answers, and leave the same state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from metastore.settings import DatabaseSettings
from tests.simulation.differential import RealPostgres, RealSqlite, compare

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sqlite() -> Iterator[RealSqlite]:
    real = RealSqlite()
    yield real
    real.close()


def _steps(*, long: bool) -> int:
    return 3_000 if long else 250


@pytest.mark.parametrize("seed", range(12))
async def test_the_model_answers_as_sqlite_does(seed: int, sqlite: RealSqlite, long: bool) -> None:  # noqa: FBT001  # pytest passes fixtures by name
    steps = _steps(long=long)
    assert await compare(seed, steps, sqlite, look_every=3) > steps / 2


@pytest.mark.postgres
@pytest.mark.parametrize("seed", range(100, 102))
async def test_the_model_answers_as_postgres_does(seed: int, postgres_url: str, long: bool) -> None:  # noqa: FBT001  # pytest passes fixtures by name
    url = DatabaseSettings(postgres_url).asyncpg.replace("postgresql:", "postgresql+asyncpg:", 1)
    engine = create_async_engine(url)
    steps = _steps(long=long)
    try:
        assert await compare(seed, steps, RealPostgres(engine), look_every=5) > steps / 2
    finally:
        await engine.dispose()
