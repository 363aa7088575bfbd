"""What a store promises, on each database."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError

from dag.errors import NotFound, Unavailable
from metastore.models.limits import limits
from metastore.postgres import PostgresStore
from tests.conftest import open_store

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.store import Store, Tx
    from tests.world import FakeClock, SeededEntropy


def add(tx: Tx, key: str, used: int = 0) -> None:
    tx.conn.execute(insert(limits), {"key": key, "used": used})


def used(conn: Connection, key: str) -> int | None:
    found: int | None = conn.execute(select(limits.c.used).where(limits.c.key == key)).scalar()
    return found


def increment(tx: Tx, key: str) -> int:
    """Read, think, write: what loses updates when the read is outside the transaction."""
    query = select(limits.c.used).where(limits.c.key == key)
    value: int = tx.conn.execute(query.with_for_update() if tx.postgres else query).scalar_one()
    tx.conn.execute(update(limits).where(limits.c.key == key).values(used=value + 1))
    return value + 1


async def test_ten_concurrent_increments_are_ten(store: Store) -> None:
    await store.write(add, "a")

    await asyncio.gather(*(store.write(increment, "a") for _ in range(10)))

    assert await store.read(used, "a") == 10


async def test_a_command_that_fails_leaves_no_trace_and_its_error_arrives(store: Store) -> None:
    def fail(tx: Tx) -> None:
        add(tx, "a")
        raise NotFound("thing", "a")

    with pytest.raises(NotFound):
        await store.write(fail)
    results = await asyncio.gather(
        store.write(add, "b"), store.write(fail), store.write(add, "c"), return_exceptions=True
    )

    assert [type(r) for r in results] == [type(None), NotFound, type(None)]
    assert [await store.read(used, key) for key in "abc"] == [None, 0, 0]


async def test_two_stores_on_one_database_lose_nothing_of_each_other(
    store: Store, database_url: str, clock: FakeClock, entropy: SeededEntropy
) -> None:
    await store.write(add, "a")
    other = await open_store(database_url, clock, entropy)

    await asyncio.gather(*(s.write(increment, "a") for s in (store, other) * 20))

    assert await store.read(used, "a") == 40
    await other.close()


async def test_all_statements_of_a_query_see_one_snapshot(store: Store) -> None:
    await store.write(add, "a")
    first_read, second_read = threading.Event(), threading.Event()

    def twice(conn: Connection) -> tuple[int | None, int | None]:
        first = used(conn, "a")
        first_read.set()
        if conn.dialect.name == "sqlite":
            second_read.wait(5)
        else:  # one thread: every statement lets the other task run
            while not second_read.is_set():
                conn.exec_driver_sql("SELECT 1")
        return first, used(conn, "a")

    reading = asyncio.create_task(store.read(twice))
    async with asyncio.timeout(5):
        while not first_read.is_set():  # noqa: ASYNC110  # set by a thread
            await asyncio.sleep(0.001)
        await store.write(increment, "a")
        second_read.set()

    assert await reading == (0, 0)
    assert await store.read(used, "a") == 1


async def test_a_query_cannot_write(store: Store) -> None:
    def naughty(conn: Connection) -> None:
        conn.execute(insert(limits), {"key": "a"})

    with pytest.raises(DBAPIError):
        await store.read(naughty)

    assert await store.read(used, "a") is None


async def test_a_closed_store_says_so_and_keeps_what_was_on_its_way(
    database_url: str, clock: FakeClock, entropy: SeededEntropy
) -> None:
    first = await open_store(database_url, clock, entropy)
    writes = [asyncio.create_task(first.write(add, f"k{n}")) for n in range(20)]
    await asyncio.sleep(0)  # they have been handed over
    await first.close()

    await asyncio.gather(*writes)
    with pytest.raises(Unavailable):
        await first.write(add, "late")
    await first.close()
    second = await open_store(database_url, clock, entropy)
    assert [await second.read(used, f"k{n}") for n in range(20)] == [0] * 20
    await second.close()


async def until_listening(store: PostgresStore) -> None:
    """Wait for the ear: when it opens, everybody is woken once."""
    assert store._exchange is not None
    async with asyncio.timeout(5):
        await store._exchange.listening.wait()


@pytest.mark.parametrize("ends", ["commits", "fails"])
async def test_hints_are_told_after_the_commit_and_only_then(store: Store, ends: str) -> None:
    if isinstance(store, PostgresStore):
        await until_listening(store)
    waiter = store.subscribe("run:1", "scheduler")

    def command(tx: Tx) -> None:
        tx.topics.add("run:1")
        if ends == "fails":
            raise NotFound("thing", "a")

    await asyncio.gather(store.write(command), return_exceptions=True)

    assert await waiter.wait(0.05) is (ends == "commits")
    waiter.close()


async def test_after_a_write_that_failed_a_check_writes_and_is_content(store: Store) -> None:
    def fail(_: Tx) -> None:
        msg = "not now"
        raise Unavailable(msg)

    await store.check()
    with pytest.raises(Unavailable, match="not now"):
        await store.write(fail)
    await store.check()
    with pytest.raises(Unavailable, match="not now"):
        await store.write(fail)
    with pytest.raises(Unavailable, match="not now"):  # it has tried a moment ago
        await store.check()
    await store.write(add, "a")
    await store.check()
