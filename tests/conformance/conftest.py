"""The loop that the service runs on, and for each executor what makes a harness of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import uvloop

from runyard.conformance.plugin import LOOP
from tests.conformance.local_harness import LocalHarness
from tests.conformance.mediums import CeleryRabbit, CeleryRedis, RabbitMedium, RedisMedium
from tests.conformance.queue_harness import QueueHarness, Site

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from executors.conformance import Harness
    from tests.databases import PostgresServer


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session", autouse=True)
def one_loop() -> Iterator[None]:
    """Close what scenarios run on when the last one has."""
    yield
    LOOP.close()


@pytest.fixture
def sequential() -> Callable[[Path], Harness]:
    return lambda folder: LocalHarness("sequential", 1, folder)


@pytest.fixture
def local() -> Callable[[Path], Harness]:
    return lambda folder: LocalHarness("local", 4, folder)


@pytest.fixture(scope="session")
def dramatiq_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Harness]]:
    folder = tmp_path_factory.mktemp("dramatiq-redis")
    yield from shared(Site(folder, "dramatiq", RedisMedium(folder / "broker")))


@pytest.fixture(scope="session")
def dramatiq_rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> Iterator[Callable[[Path], Harness]]:
    """The second broker, and beside it the second database."""
    folder = tmp_path_factory.mktemp("dramatiq-rabbitmq")
    url = postgres_server.borrow()
    yield from shared(Site(folder, "dramatiq", RabbitMedium(folder / "broker"), url=url))
    postgres_server.give_back(url)


@pytest.fixture(scope="session")
def celery_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Harness]]:
    folder = tmp_path_factory.mktemp("celery-redis")
    yield from shared(Site(folder, "celery", CeleryRedis(folder / "broker")))


@pytest.fixture(scope="session")
def celery_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Harness]]:
    folder = tmp_path_factory.mktemp("celery-rabbitmq")
    yield from shared(Site(folder, "celery", CeleryRabbit(folder / "broker")))


def shared(site: Site) -> Iterator[Callable[[Path], Harness]]:
    try:
        LOOP.run(site.open())
        yield lambda folder: QueueHarness(site, folder)
    finally:
        LOOP.run(site.close())
