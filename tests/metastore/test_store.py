"""What a store promises, on each database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select, update

from dag.errors import NotFound
from metastore.models.limits import limits
from metastore.postgres import PostgresStore

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.store import Store, Tx


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

    results = await asyncio.gather(
        store.write(add, "b"), store.write(fail), store.write(add, "c"), return_exceptions=True
    )

    assert [type(r) for r in results] == [type(None), NotFound, type(None)]
    assert [await store.read(used, key) for key in "abc"] == [None, 0, 0]


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
