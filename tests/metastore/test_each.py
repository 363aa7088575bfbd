"""Writes of several rows: the same on both databases, whatever the way they take there."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import Integer, Text, event, func, insert, select, update

from metastore.each import Each, EachNew, Superseded, write
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.postgres import PostgresStore
from metastore.settings import DatabaseSettings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.store import Store, Tx
    from tests.world import FakeClock, SeededEntropy

TAKE: Final = Each(
    "limits",
    {"limit_key": Text, "more": Integer, "room": Integer},
    lambda value: (
        update(limits)
        .where(limits.c.key == value("limit_key"), limits.c.used + value("more") >= 0)
        .values(used=limits.c.used + value("more"), capacity=func.coalesce(value("room"), limits.c.capacity))
    ),
)
LOG: Final = EachNew("events", events, ("at", "kind", "actor", "data"))


def three(tx: Tx) -> None:
    tx.conn.execute(insert(limits), [{"key": key, "used": 1, "capacity": 5} for key in "abc"])


def taken(key: str, more: int, room: int | None = None) -> dict[str, Any]:
    return {"limit_key": key, "more": more, "room": room}


def logged(tx: Tx, kind: str, data: object = None) -> dict[str, Any]:
    return {"at": tx.now, "kind": kind, "actor": "system", "data": data}


def all_limits(conn: Connection) -> list[tuple[Any, ...]]:
    columns = (limits.c.key, limits.c.used, limits.c.capacity)
    return [tuple(row) for row in conn.execute(select(*columns).order_by(limits.c.key))]


def all_events(conn: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in conn.execute(select(events.c.kind, events.c.data).order_by(events.c.id))]


async def test_each_row_gets_its_own_values_and_new_ones_keep_their_order(store: Store) -> None:
    await store.write(three)

    def both(tx: Tx) -> None:
        kinds = [f"k{n}" for n in range(40)]
        write(
            tx,
            (TAKE, [taken("b", 2, 9), taken("c", -1)]),
            (LOG, [logged(tx, kind, {"of": [kind]} if kind == "k3" else None) for kind in kinds]),
        )

    await store.write(both)

    assert await store.read(all_limits) == [("a", 1, 5), ("b", 3, 9), ("c", 0, 5)]
    found = await store.read(all_events)
    assert found == [(f"k{n}", {"of": ["k3"]} if n == 3 else None) for n in range(40)]


@pytest.mark.parametrize("wrong", [[taken("a", 1), taken("z", 1)], [taken("z", 1)], [taken("a", 1), taken("b", -2)]])
async def test_a_row_that_is_not_as_it_was_takes_everything_back(store: Store, wrong: list[dict[str, Any]]) -> None:
    await store.write(three)

    def both(tx: Tx) -> None:
        write(tx, (LOG, [logged(tx, "k")]), (TAKE, wrong))

    with pytest.raises(Superseded, match=f"limits: {len(wrong) - 1} rows changed, {len(wrong)} expected"):
        await store.write(both)

    assert await store.read(all_limits) == [("a", 1, 5), ("b", 1, 5), ("c", 1, 5)]
    assert await store.read(all_events) == []


async def test_what_is_left_due_is_not_committed_and_harms_nobody_else(store: Store) -> None:
    def forget(tx: Tx) -> None:
        three(tx)
        tx.due.append((LOG, [logged(tx, "k")]))

    def count(conn: Connection) -> int:
        return len(all_limits(conn))

    def well(tx: Tx, key: str) -> None:
        tx.conn.execute(insert(limits), {"key": key})

    results = await asyncio.gather(
        store.write(well, "x"), store.write(forget), store.write(well, "y"), return_exceptions=True
    )

    assert [type(result) for result in results] == [type(None), RuntimeError, type(None)]
    assert await store.read(count) == 2


@pytest.mark.postgres
async def test_on_postgres_they_are_one_round_trip_and_nothing_is_none(
    postgres_url: str, clock: FakeClock, entropy: SeededEntropy
) -> None:
    store = await PostgresStore.open(DatabaseSettings(postgres_url), clock=clock, entropy=entropy, notify=False)
    await store.write(three)
    texts: list[str] = []

    def note(_conn: Any, _cursor: Any, text: str, *_: Any) -> None:
        texts.append(text)

    event.listen(store._engine.sync_engine, "before_cursor_execute", note)

    def both(tx: Tx) -> None:
        texts.clear()  # what began the transaction
        write(tx, (TAKE, [taken("a", 1), taken("b", 1)]), (LOG, [logged(tx, "k"), logged(tx, "l")]))
        assert len(texts) == 1
        write(tx)
        write(tx, (TAKE, []), (LOG, []))
        assert len(texts) == 1

    await store.write(both)
    await store.close()
