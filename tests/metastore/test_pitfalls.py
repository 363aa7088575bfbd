"""The known ways to lose data with these databases, each met on the real thing (reliability.md, part 5)."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest
from sqlalchemy import create_engine, insert, select, text, update
from sqlalchemy.pool import NullPool

from dag.errors import Unavailable
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.postgres import PostgresStore
from metastore.queries.events import START, page, place
from metastore.settings import DatabaseSettings
from metastore.wire import Timeouts
from tests.databases import elsewhere
from tests.metastore.proxy import Proxy
from tests.world import FakeClock, SeededEntropy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection

    from metastore.sqlite import SqliteStore
    from metastore.store import Store, Tx
    from tests.databases import PostgresServer
    from tests.metastore.proxy import Fault

HASTY = Timeouts(connect=0.5, command=0.5, statement=0.4, lock=0.2, idle_in_transaction=1, patience=2)


def add(tx: Tx, key: str) -> None:
    tx.conn.execute(insert(limits), {"key": key})


def increment(tx: Tx, key: str) -> int:
    query = select(limits.c.used).where(limits.c.key == key)
    value: int = tx.conn.execute(query.with_for_update() if tx.postgres else query).scalar_one()
    tx.conn.execute(update(limits).where(limits.c.key == key).values(used=value + 1))
    return value + 1


def used(conn: Connection, key: str) -> int | None:
    found: int | None = conn.execute(select(limits.c.used).where(limits.c.key == key)).scalar()
    return found


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(postgres_url) as proxy:
        yield proxy


@pytest.fixture
async def fragile(proxy: Proxy, clock: FakeClock, entropy: SeededEntropy) -> AsyncIterator[PostgresStore]:
    """A hasty store behind a wire that can be broken."""
    store = await PostgresStore.open(
        DatabaseSettings(proxy.url), clock=clock, entropy=entropy, timeouts=HASTY, notify=False
    )
    yield store
    await store.close()


# SQLite


def test_the_defaults_of_sqlalchemy_and_sqlite_lose_updates(sqlite_url: str) -> None:
    """The contrast: what our store must not be built on.  Two of two increments, no error, and one of them is gone."""
    engine = create_engine(sqlite_url, poolclass=NullPool)
    query = text("SELECT used FROM limits WHERE key = 'a'")
    change = text("UPDATE limits SET used = :new WHERE key = 'a'")
    with engine.begin() as conn:
        conn.execute(insert(limits), {"key": "a"})
    with engine.connect() as one, engine.connect() as two:
        first, second = one.execute(query).scalar_one(), two.execute(query).scalar_one()
        one.execute(change, {"new": first + 1})
        one.commit()
        two.execute(change, {"new": second + 1})
        two.commit()
        assert one.execute(query).scalar_one() == 1


async def test_ten_concurrent_increments_through_a_store_are_ten(store: Store) -> None:
    await store.write(add, "a")

    await asyncio.gather(*(store.write(increment, "a") for _ in range(10)))

    assert await store.read(used, "a") == 10


def test_a_reader_that_becomes_a_writer_is_busy_at_once_whatever_the_timeout(sqlite_url: str) -> None:
    """The contrast: why every write begins with BEGIN IMMEDIATE."""
    path = DatabaseSettings(sqlite_url).path
    one, two = (sqlite3.connect(path, isolation_level=None, timeout=60) for _ in range(2))
    one.execute("BEGIN")
    one.execute("SELECT * FROM limits").fetchall()
    two.execute("INSERT INTO limits (key) VALUES ('a')")

    with pytest.raises(sqlite3.OperationalError) as busy:  # the test's own time limit proves "at once"
        one.execute("UPDATE limits SET used = 1")

    assert busy.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"
    one.close()
    two.close()


async def test_a_write_waits_for_another_process_and_then_sees_what_it_did(sqlite_store: SqliteStore) -> None:
    await sqlite_store.write(add, "a")
    other = sqlite3.connect(sqlite_store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE limits SET used = used + 1")

    write = asyncio.create_task(sqlite_store.write(increment, "a"))
    done, _ = await asyncio.wait({write}, timeout=0.1)
    assert not done
    other.execute("COMMIT")

    assert await write == 2
    other.close()


async def test_a_lock_that_is_never_given_back_makes_the_metastore_unavailable(sqlite_store: SqliteStore) -> None:
    await sqlite_store.write(lambda tx: tx.conn.exec_driver_sql("PRAGMA busy_timeout = 50").close())
    other = sqlite3.connect(sqlite_store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    results = await asyncio.gather(*(sqlite_store.write(add, key) for key in "abc"), return_exceptions=True)

    assert [type(r) for r in results] == [Unavailable] * 3
    other.execute("ROLLBACK")
    await sqlite_store.write(add, "a")
    other.close()


# The end of a COMMIT


@pytest.mark.postgres
@pytest.mark.parametrize(
    "faults",
    [
        ("lose the reply",),
        ("lose the commit",),
        ("lose the commit", "lose the reply"),
        ("lose the reply", "lose the reply"),
        ("hold the reply",),
    ],
    ids=", then ".join,
)
async def test_a_write_takes_effect_once_whatever_becomes_of_its_commit(
    fragile: PostgresStore, proxy: Proxy, faults: tuple[Fault, ...]
) -> None:
    """An increment is as far from idempotent as can be."""
    await fragile.write(add, "a")
    proxy.break_at_commit(*faults)

    assert await fragile.write(increment, "a") == 1

    assert await fragile.read(used, "a") == 1


@pytest.mark.postgres
async def test_the_number_of_a_transaction_that_a_crash_has_lost_is_not_taken_for_it(
    fragile: PostgresStore, postgres_server: PostgresServer, postgres_url: str
) -> None:
    """After a crash Postgres hands a number out again whose transaction never reached the disk."""
    await fragile.write(add, "a")
    await fragile.write(add, "b")
    numbers: dict[str, str] = {}

    def number(tx: Tx) -> str:
        return str(tx.conn.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar())

    async def somebody_else() -> str:
        other = await PostgresStore.open(DatabaseSettings(postgres_url), clock=FakeClock(), entropy=SeededEntropy())
        try:
            return await other.write(lambda tx: (increment(tx, "b"), number(tx))[1])
        finally:
            await other.close()

    def command(tx: Tx) -> int:
        if "ours" in numbers:  # it was found out, and runs again
            return increment(tx, "a")
        value = increment(tx, "a")
        numbers["ours"] = number(tx)
        postgres_server.crash()
        while int(numbers.get("other", "0")) < int(numbers["ours"]):
            numbers["other"] = elsewhere(somebody_else())
        return value

    for _ in range(5):  # Postgres may have happened to write it to the disk, and goes on with the next then
        numbers.clear()
        before = await fragile.read(used, "a")
        (answer,) = await asyncio.gather(fragile.write(command), return_exceptions=True)
        if numbers["other"] == numbers["ours"]:
            break
    assert numbers["other"] == numbers["ours"], "no number was given out again: nothing was tested"

    assert isinstance(answer, Unavailable)
    assert "nobody knows" in str(answer)
    assert await fragile.read(used, "a") == before


async def test_a_caller_that_is_cancelled_leaves_a_whole_write_and_a_store_that_works(store: Store) -> None:
    loop = asyncio.get_running_loop()

    def command(tx: Tx) -> None:
        add(tx, "a")
        loop.call_soon_threadsafe(caller.cancel)
        increment(tx, "a")

    caller = asyncio.create_task(store.write(command))
    waiter = store.subscribe("done")
    with pytest.raises(asyncio.CancelledError):
        await caller

    def tell(tx: Tx) -> None:
        tx.topics.add("done")

    await store.write(tell)  # on SQLite behind the first; on Postgres beside it
    assert await waiter.wait(5)
    await _until(store, "a", 1)
    waiter.close()


@pytest.mark.postgres
async def test_cancelling_while_the_commit_is_on_its_way_does_not_tear_it(fragile: PostgresStore, proxy: Proxy) -> None:
    await fragile.write(add, "a")
    proxy.break_at_commit("hold the reply")

    caller = asyncio.create_task(fragile.write(increment, "a"))
    await proxy.held.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    await _until(fragile, "a", 1)
    assert await fragile.write(increment, "a") == 2


async def _until(store: Store, key: str, value: int) -> None:
    async with asyncio.timeout(5):
        while await store.read(used, key) != value:  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0.01)


# The wire and the server


@pytest.mark.postgres
async def test_a_wire_that_falls_silent_ends_in_unavailable_within_the_patience(
    fragile: PostgresStore, proxy: Proxy
) -> None:
    await fragile.write(add, "a")
    proxy.fall_silent()

    async with asyncio.timeout(HASTY.patience + 5):
        results = await asyncio.gather(fragile.write(increment, "a"), fragile.read(used, "a"), return_exceptions=True)

    assert [type(r) for r in results] == [Unavailable] * 2
    proxy.fall_silent(silent=False)
    value = await fragile.write(increment, "a")
    assert await fragile.read(used, "a") == value == 1


@pytest.mark.postgres
async def test_connections_that_the_server_has_closed_are_not_the_callers_business(
    fragile: PostgresStore, postgres_url: str
) -> None:
    await fragile.write(add, "a")
    await asyncio.gather(*(fragile.read(used, "a") for _ in range(8)))  # fill the pool
    other = await asyncpg.connect(postgres_url)
    await other.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_catalog AND pid <> pg_backend_pid()"
    )
    await other.close()

    assert sorted(await asyncio.gather(*(fragile.write(increment, "a") for _ in range(8)))) == list(range(1, 9))


@pytest.mark.postgres
async def test_a_migration_beside_a_running_service_is_not_the_callers_business(
    fragile: PostgresStore, postgres_server: PostgresServer
) -> None:
    await fragile.write(add, "a")
    for _ in range(3):
        await fragile.write(increment, "a")
    name = await fragile.read(lambda conn: conn.exec_driver_sql("SELECT current_catalog").scalar_one())

    for kind in ("bigint", "integer"):
        await asyncio.to_thread(postgres_server.run, f"ALTER TABLE limits ALTER COLUMN used TYPE {kind}", database=name)
        await fragile.write(increment, "a")
        await fragile.read(used, "a")

    assert await fragile.read(used, "a") == 5


@pytest.mark.postgres
async def test_two_commands_that_deadlock_both_succeed(fragile: PostgresStore) -> None:
    for key in "ab":
        await fragile.write(add, key)
    meet = {"a": False, "b": False}

    def crosswise(tx: Tx, first: str, second: str) -> None:
        increment(tx, first)
        meet[first] = True
        while not all(meet.values()):  # lets the other command run: each of these is a trip to the database
            tx.conn.execute(text("SELECT 1"))
        increment(tx, second)

    await asyncio.gather(fragile.write(crosswise, "a", "b"), fragile.write(crosswise, "b", "a"))

    assert [await fragile.read(used, key) for key in "ab"] == [2, 2]


@pytest.mark.postgres
async def test_a_lock_that_somebody_keeps_is_waited_for_in_small_portions(
    fragile: PostgresStore, postgres_url: str
) -> None:
    await fragile.write(add, "a")
    other = await asyncpg.connect(postgres_url)
    keep = other.transaction()
    await keep.start()
    await other.execute("UPDATE limits SET used = used + 1")

    write = asyncio.create_task(fragile.write(increment, "a"))
    done, _ = await asyncio.wait({write}, timeout=2 * HASTY.lock)
    assert not done
    await keep.commit()

    assert await write == 2
    await other.close()


@pytest.mark.postgres
async def test_a_server_that_is_not_there_is_unavailable_and_its_password_is_not_told(
    clock: FakeClock, entropy: SeededEntropy
) -> None:
    settings = DatabaseSettings("postgresql://me:s3cret@127.0.0.1:1/nothing")

    with pytest.raises(Unavailable) as unavailable:
        await PostgresStore.open(settings, clock=clock, entropy=entropy, timeouts=HASTY)

    assert "127.0.0.1:1" in str(unavailable.value)
    assert "s3cret" not in str(unavailable.value)


# The event log


def happen(tx: Tx, kind: str) -> None:
    tx.conn.execute(insert(events).inline(), {"at": tx.now, "kind": kind, "actor": "system"})


def since(conn: Connection, number: int) -> list[tuple[int, str]]:
    """How the log would be read by its sequence alone."""
    rows = conn.execute(select(events.c.id, events.c.kind).where(events.c.id > number).order_by(events.c.id))
    return [(row.id, row.kind) for row in rows]


@pytest.mark.postgres
async def test_events_that_commit_late_are_read_all_the_same(fragile: PostgresStore, postgres_url: str) -> None:
    late = await asyncpg.connect(postgres_url)
    going_on = late.transaction()
    await going_on.start()
    await late.execute("INSERT INTO events (at, kind, actor) VALUES (clock_timestamp(), 'late', 'system')")
    await fragile.write(happen, "early")

    naive = await fragile.read(since, 0)
    ours = await fragile.read(page, after=START, limit=10)
    await going_on.commit()

    # By the sequence alone the late row lies behind the reader for ever.
    assert [kind for _, kind in naive] == ["early"]
    assert await fragile.read(since, naive[-1][0]) == []
    # By transaction, and not past one that is still running, nothing is missed.
    assert ours == []
    ours = await fragile.read(page, after=START, limit=10)
    assert [event.kind for event in ours] == ["late", "early"]
    assert await fragile.read(page, after=place(ours[-1]), limit=10) == []
    await late.close()


async def test_the_whole_log_is_read_page_by_page_without_a_gap_or_a_double(store: Store) -> None:
    await asyncio.gather(*(store.write(happen, f"n{n}") for n in range(25)))

    found: list[Any] = []
    after = START
    while events_page := await store.read(page, after=after, limit=10):
        found += events_page
        after = place(events_page[-1])

    assert sorted(event.kind for event in found) == sorted(f"n{n}" for n in range(25))
