"""Hints: within a process, and between processes over LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest

from metastore.hints import Hub
from metastore.postgres import PostgresStore
from metastore.settings import DatabaseSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from metastore.store import Tx
    from tests.world import FakeClock, SeededEntropy


def tell(tx: Tx, *topics: str) -> None:
    tx.topics.update(topics)


async def test_a_waiter_is_woken_by_its_topics_and_by_no_other() -> None:
    hub = Hub()
    one, two = hub.subscribe("a", "b"), hub.subscribe("c")

    hub.tell(["b"])

    assert await one.wait(0)
    assert not await one.wait(0)
    assert not await two.wait(0)
    hub.tell_all()
    assert await one.wait(None)
    assert await two.wait(None)


async def test_what_is_told_before_the_wait_is_not_lost_and_is_told_once() -> None:
    hub = Hub()
    waiter = hub.subscribe("a")
    hub.tell(["a"])
    hub.tell(["a"])

    assert await waiter.wait(5)
    assert not await waiter.wait(0.01)
    later = asyncio.create_task(waiter.wait(5))
    await asyncio.sleep(0)
    hub.tell(["a"])
    assert await later


async def test_closing_forgets_the_waiter() -> None:
    hub = Hub()
    one, two = hub.subscribe("a"), hub.subscribe("a", "b")

    one.close()
    two.close()
    two.close()

    assert not hub._waiters
    hub.tell(["a"])
    assert not await one.wait(0)


@pytest.fixture
async def pair(
    postgres_url: str, clock: FakeClock, entropy: SeededEntropy
) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """Two services on one database, both listening."""
    settings = DatabaseSettings(postgres_url)
    stores = [await PostgresStore.open(settings, clock=clock, entropy=entropy) for _ in range(2)]
    for store in stores:
        await until_listening(store)
    yield stores[0], stores[1]
    for store in stores:
        await store.close()


@pytest.fixture
async def spying(postgres_url: str) -> AsyncIterator[tuple[Any, list[str]]]:
    """A connection of nobody, and the payloads it hears."""
    heard: list[str] = []
    spy = await asyncpg.connect(postgres_url)
    await spy.add_listener("runyard", lambda *args: heard.append(args[3]))
    yield spy, heard
    await spy.close()


async def until_heard(spy: Any, heard: list[str], topics: int) -> None:
    """Wait for so many topics: each connection gets a notification when the server comes round to it."""
    async with asyncio.timeout(5):
        while len("\n".join(heard).split("\n")) < topics or not heard:
            await spy.execute("SELECT 1")
            await asyncio.sleep(0.01)
    await spy.execute("SELECT 1")


async def until_listening(store: PostgresStore) -> None:
    assert store._exchange is not None
    async with asyncio.timeout(10):
        await store._exchange.listening.wait()


@pytest.mark.postgres
async def test_a_hint_reaches_the_other_service(pair: tuple[PostgresStore, PostgresStore]) -> None:
    here, there = pair
    local, remote, other = here.subscribe("run:1"), there.subscribe("run:1"), there.subscribe("run:2")

    await here.write(tell, "run:1", "ready")

    assert await local.wait(5)
    assert await remote.wait(5)
    assert not await other.wait(0)


@pytest.mark.postgres
async def test_many_topics_are_one_notification_that_wakes_everybody(
    pair: tuple[PostgresStore, PostgresStore], spying: tuple[Any, list[str]]
) -> None:
    here, there = pair
    spy, heard = spying
    waiter = there.subscribe("unrelated")

    await here.write(tell, *(f"run:{n:020}" for n in range(1000)))

    assert await waiter.wait(5)
    await until_heard(spy, heard, 1)
    assert heard == [""]


@pytest.mark.postgres
async def test_a_burst_of_commits_is_two_notifications_at_most(
    pair: tuple[PostgresStore, PostgresStore], spying: tuple[Any, list[str]]
) -> None:
    here, there = pair
    spy, heard = spying
    waiters = [there.subscribe(f"run:{n}") for n in range(20)]

    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(here.write(tell, f"run:{n}") for n in range(20)))
    assert all(await asyncio.gather(*(waiter.wait(5) for waiter in waiters)))
    windows = (asyncio.get_running_loop().time() - started) / 0.05

    await until_heard(spy, heard, 20)
    assert 1 <= len(heard) <= 2 + windows
    assert sorted("\n".join(heard).split("\n")) == sorted(f"run:{n}" for n in range(20))


@pytest.mark.postgres
async def test_a_listener_whose_connection_died_comes_back_and_wakes_everybody(
    pair: tuple[PostgresStore, PostgresStore], postgres_url: str
) -> None:
    here, there = pair
    waiter = there.subscribe("anything")
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runyard hints'"
    )
    await admin.close()

    assert await waiter.wait(10)
    for store in pair:
        await until_listening(store)
    remote = there.subscribe("run:1")
    await here.write(tell, "run:1")
    assert await remote.wait(5)


@pytest.mark.postgres
async def test_hints_go_on_when_their_connections_are_ended_again_and_again_under_load(
    pair: tuple[PostgresStore, PostgresStore], postgres_url: str
) -> None:
    here, there = pair
    stop = asyncio.Event()

    async def load(store: PostgresStore) -> None:
        while not stop.is_set():
            await store.write(tell, "load")

    writers = [asyncio.create_task(load(store)) for store in pair]
    admin = await asyncpg.connect(postgres_url)
    ended = 0
    async with asyncio.timeout(20):
        while ended < 20:
            ended += await admin.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = 'runyard hints' AND datname = current_database()"
            )
            await asyncio.sleep(0.02)
    await admin.close()
    for store in pair:
        await until_listening(store)
    stop.set()
    await asyncio.gather(*writers)

    remote = there.subscribe("run:1")
    await here.write(tell, "run:1")
    assert await remote.wait(2)


class BrokenDriver(Exception):
    """What nobody thought of."""


@pytest.mark.postgres
async def test_hints_survive_an_exception_that_nobody_thought_of(
    pair: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    broken = 0

    async def execute(*_: object) -> None:
        nonlocal broken
        broken += 1
        monkeypatch.undo()
        raise BrokenDriver

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    remote = there.subscribe("run:1")
    hub_told = here.subscribe("anything")
    assert here._exchange is not None
    here._exchange.tell(["run:1"])

    assert await remote.wait(2)
    assert await hub_told.wait(2)
    assert broken == 1


@pytest.mark.postgres
async def test_hints_begin_again_when_their_task_ends(
    pair: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    exchange = here._exchange
    assert exchange is not None
    first = exchange._task

    def pause() -> float:
        monkeypatch.undo()
        raise BrokenDriver

    async def execute(*_: object) -> None:
        raise BrokenDriver

    monkeypatch.setattr(exchange, "_pause", pause)
    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    exchange.tell(["run:1"])
    await asyncio.wait([first], timeout=5)
    assert isinstance(first.exception(), BrokenDriver)

    await until_listening(here)
    remote = there.subscribe("run:2")
    await here.write(tell, "run:2")
    assert await remote.wait(2)


@pytest.mark.postgres
async def test_without_notify_nothing_is_listened_to_and_hints_stay_at_home(
    postgres_url: str, clock: FakeClock, entropy: SeededEntropy, spying: tuple[Any, list[str]]
) -> None:
    settings = DatabaseSettings(postgres_url)
    here = await PostgresStore.open(settings, clock=clock, entropy=entropy, notify=False)
    spy, heard = spying
    waiter = here.subscribe("run:1")

    await here.write(tell, "run:1")

    assert await waiter.wait(5)
    assert await spy.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'runyard hints'") == 0
    assert heard == []
    await here.close()
