"""Fixtures that every kind of test may ask for: a store on each database, a clock, repeatable chance."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from metastore.settings import DatabaseSettings
from metastore.sqlite import SqliteStore
from tests.brokers import RabbitServer, RedisServer
from tests.databases import PostgresServer, SqliteFiles
from tests.world import FakeClock, SeededEntropy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from metastore.store import Store


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="every fault, every seed: what takes minutes or hours")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the image: it takes minutes by itself, and at the end all other processes would wait for it."""
    items.sort(key=lambda item: "test_image.py" not in item.nodeid)


@pytest.fixture(scope="session")
def long(request: pytest.FixtureRequest) -> bool:
    """Whether ``--long`` was asked for."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def entropy() -> SeededEntropy:
    return SeededEntropy()


@pytest.fixture(scope="session")
def sqlite_files(tmp_path_factory: pytest.TempPathFactory) -> SqliteFiles:
    return SqliteFiles(tmp_path_factory.mktemp("sqlite"))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """Start one server for each worker of the test run."""
    # Not in pytest's own folder: as root the server is another user's, and every other pytest run shuts that user out.
    with TemporaryDirectory(prefix="runyard-test-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder))
        yield server
        server.stop()


@pytest.fixture
def sqlite_url(sqlite_files: SqliteFiles, tmp_path: Path) -> str:
    """The URL of a migrated SQLite database of this test's own."""
    return sqlite_files.create(tmp_path)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a migrated Postgres database of this test's own."""
    url = postgres_server.borrow()
    yield url
    postgres_server.give_back(url)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """Start one server for each worker of the test run. A test may stop, kill and pause it."""
    with TemporaryDirectory(prefix="runyard-test-") as folder, RedisServer(Path(folder)) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of a Redis that is empty, and this test's own as long as it lasts."""
    redis_server.empty()
    return redis_server.url


@pytest.fixture(scope="session")
def rabbit_server() -> Iterator[RabbitServer]:
    """Start one server for each worker of the test run; it takes five seconds. A test may stop, kill and pause it."""
    with TemporaryDirectory(prefix="runyard-test-") as folder, RabbitServer(Path(folder)) as server:
        yield server


@pytest.fixture
def rabbit_url(rabbit_server: RabbitServer) -> Iterator[str]:
    """The URL of a virtual host of this test's own."""
    vhost = rabbit_server.borrow()
    yield rabbit_server.url(vhost)
    rabbit_server.give_back(vhost)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of this test's own, on each of the two in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def store(database_url: str, clock: FakeClock, entropy: SeededEntropy) -> AsyncIterator[Store]:
    """An open store, on each of the two databases in turn."""
    opened = await open_store(database_url, clock, entropy)
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite_store(sqlite_url: str, clock: FakeClock, entropy: SeededEntropy) -> AsyncIterator[SqliteStore]:
    """An open store on SQLite alone."""
    opened = await SqliteStore.open(DatabaseSettings(sqlite_url).path, clock=clock, entropy=entropy)
    yield opened
    await opened.close()


@pytest.fixture
async def postgres_store(postgres_url: str, clock: FakeClock, entropy: SeededEntropy) -> AsyncIterator[Store]:
    """An open store on Postgres alone."""
    opened = await open_store(postgres_url, clock, entropy)
    yield opened
    await opened.close()


async def open_store(url: str, clock: FakeClock, entropy: SeededEntropy) -> Store:
    settings = DatabaseSettings(url)
    if settings.dialect == "sqlite":
        return await SqliteStore.open(settings.path, clock=clock, entropy=entropy)
    from metastore.postgres import PostgresStore  # noqa: PLC0415  # not for tests that do without Postgres

    return await PostgresStore.open(settings, clock=clock, entropy=entropy)
