"""What is SQLite's own: durability, shared COMMITs, trouble with the disk."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from dag.errors import Unavailable
from metastore import sqlite
from metastore.disk import file_system
from metastore.models.limits import limits
from metastore.settings import DatabaseSettings
from metastore.sqlite import SqliteStore
from tests.metastore.statements import Statements

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.store import Tx
    from tests.world import FakeClock, SeededEntropy


def add(tx: Tx, key: str) -> None:
    tx.conn.execute(insert(limits), {"key": key})


def every(conn: Connection) -> list[str]:
    return list(conn.execute(select(limits.c.key).order_by(limits.c.key)).scalars())


def pragmas(conn: Connection) -> dict[str, Any]:
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout", "query_only")
    return {name: conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}


async def test_every_connection_is_durable_and_checks_foreign_keys(sqlite_store: SqliteStore) -> None:
    safe = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}

    assert await sqlite_store.write(lambda tx: pragmas(tx.conn)) == safe | {"query_only": 0}
    assert await sqlite_store.read(pragmas) == safe | {"query_only": 1}


async def test_commands_that_are_ready_together_share_one_commit(sqlite_store: SqliteStore) -> None:
    def version(conn: Connection) -> int:
        found: int = conn.exec_driver_sql("PRAGMA data_version").scalar_one()  # counts others' COMMITs
        return found

    other = sqlite3.connect(sqlite_store.path)
    before = other.execute("PRAGMA data_version").fetchone()[0]
    commits: list[Any] = []

    def traced(tx: Tx, key: str) -> None:
        add(tx, key)
        commits.append(other.execute("PRAGMA data_version").fetchone()[0])

    other.close()
    other = sqlite3.connect(sqlite_store.path, check_same_thread=False)
    await asyncio.gather(*(sqlite_store.write(traced, f"{n:02}") for n in range(20)))

    assert before is not None
    assert len(set(commits)) < 20
    assert len(await sqlite_store.read(every)) == 20
    assert await sqlite_store.read(version) > 0
    other.close()


async def test_a_full_disk_is_unavailable_and_what_was_told_as_written_is_there(sqlite_store: SqliteStore) -> None:
    def cap(tx: Tx, pages: int) -> None:
        tx.conn.exec_driver_sql(f"PRAGMA max_page_count = {pages}").close()

    def fill(tx: Tx, key: str) -> None:
        add(tx, key + "x" * 100_000)

    size = await sqlite_store.read(lambda conn: conn.exec_driver_sql("PRAGMA page_count").scalar_one())
    await sqlite_store.write(cap, size + 60)

    results = await asyncio.gather(*(sqlite_store.write(fill, f"{n}") for n in range(10)), return_exceptions=True)

    assert Unavailable in {type(r) for r in results}
    there = {key[0] for key in await sqlite_store.read(every)}
    assert there == {f"{n}" for n, r in enumerate(results) if r is None}
    await sqlite_store.write(cap, 10_000)
    await sqlite_store.write(add, "after")
    assert "after" in await sqlite_store.read(every)


async def test_a_disk_that_has_room_for_the_log_only_does_not_end_the_writer(
    sqlite_store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_CHECKPOINT_AFTER", 0.5)
    size = sqlite_store.path.stat().st_size
    for key in "abc":
        await sqlite_store.write(add, key + "x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # of any file, as a full disk is full for all
    try:
        async with asyncio.timeout(10):
            while sqlite_store._trouble is None:  # noqa: ASYNC110  # on another thread
                await asyncio.sleep(0.05)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    async with asyncio.timeout(10):
        await sqlite_store.check()
        await sqlite_store.write(add, "after")
    assert [key[0] for key in await sqlite_store.read(every)] == ["a", "a", "b", "c"]


@pytest.mark.parametrize("place", ["write", "read"])
async def test_a_commit_that_fails_and_leaves_its_transaction_open_hurts_nobody_else(
    sqlite_url: str, clock: FakeClock, entropy: SeededEntropy, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """SQLite ends a transaction with most errors at COMMIT; after some it does not."""
    statements = Statements()
    monkeypatch.setattr(sqlite, "_connect", statements.connect)
    store = await SqliteStore.open(DatabaseSettings(sqlite_url).path, clock=clock, entropy=entropy)
    for key in ("a", "b"):  # a statement is prepared when it comes a second time
        await store.write(add, key)
    statements.armed = True
    statements.k = 3  # BEGIN, the statement, COMMIT
    with pytest.raises(Unavailable):
        await (store.write(add, "c") if place == "write" else store.read(every))
    assert statements.fired == "COMMIT"
    await store.write(add, "d")
    assert [await store.read(every) for _ in range(3)] == [["a", "b", "d"]] * 3
    await store.close()


async def test_after_a_write_that_failed_a_check_tries_one_but_not_all_the_time(
    sqlite_store: SqliteStore, clock: FakeClock
) -> None:
    def full(_: Tx) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    for _ in range(2):
        with pytest.raises(Unavailable, match="full"):
            await sqlite_store.write(full)
        await sqlite_store.check()
        await sqlite_store.check()
        with pytest.raises(Unavailable, match="full"):
            await sqlite_store.write(full)
        with pytest.raises(Unavailable, match="full"):
            await sqlite_store.check()
        clock.move(timedelta(seconds=5))


async def test_a_database_that_cannot_be_written_is_trouble(sqlite_store: SqliteStore) -> None:
    def read_only(tx: Tx) -> None:
        tx.conn.exec_driver_sql("PRAGMA query_only = ON").close()

    await sqlite_store.write(read_only)
    await sqlite_store.check()
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await sqlite_store.write(add, "one")
    with pytest.raises(Unavailable, match="readonly"):
        await sqlite_store.check()


async def test_a_sound_store_is_not_written_to_when_it_is_checked(sqlite_store: SqliteStore) -> None:
    other = sqlite3.connect(sqlite_store.path)
    await sqlite_store.write(add, "one")
    before = other.execute("PRAGMA data_version").fetchone()
    for _ in range(10):
        await sqlite_store.check()
    assert other.execute("PRAGMA data_version").fetchone() == before
    other.close()


async def test_a_refused_command_is_no_trouble(sqlite_store: SqliteStore) -> None:
    await sqlite_store.write(add, "one")
    with pytest.raises(IntegrityError):
        await sqlite_store.write(add, "one")
    await sqlite_store.check()


@pytest.mark.parametrize("way", ["removed", "replaced"])
async def test_a_file_that_is_not_the_one_that_was_opened_is_not_written_to(
    sqlite_store: SqliteStore, way: str
) -> None:
    await sqlite_store.write(add, "before")
    kept = sqlite_store.path.rename(sqlite_store.path.with_name("kept.db"))
    if way == "replaced":
        sqlite_store.path.touch()

    results = await asyncio.gather(*(sqlite_store.write(add, f"{n}") for n in range(3)), return_exceptions=True)

    assert [type(result) for result in results] == [Unavailable] * 3
    assert "removed or replaced" in str(results[0])
    with pytest.raises(Unavailable, match="removed or replaced"):
        await sqlite_store.check()
    kept.rename(sqlite_store.path)
    await sqlite_store.write(add, "after")
    await sqlite_store.check()
    assert await sqlite_store.read(every) == ["after", "before"]


async def test_a_damaged_file_is_named_with_a_way_out(sqlite_store: SqliteStore) -> None:
    def damaged(_: Tx) -> None:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(Unavailable, match=r"malformed.*copy"):
        await sqlite_store.write(damaged)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path, clock: FakeClock, entropy: SeededEntropy) -> None:
    path = tmp_path / "runyard.db"
    path.write_text("This is not a database at all, it is a letter. " * 50)

    with pytest.raises(Unavailable, match=r"runyard\.db cannot be opened"):
        await SqliteStore.open(path, clock=clock, entropy=entropy)


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/home/me/.runyard/runyard.db", "ext4"),
        ("/mnt/share/runyard.db", "nfs4"),
        ("/mnt/share too/runyard.db", "cifs"),
        ("/mnt/shared/runyard.db", "ext4"),
        ("/mnt/share/local/runyard.db", "xfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(place: str, kind: str) -> None:
    mounts = (
        "20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "30 20 0:40 / /mnt/share rw shared:1 - nfs4 server:/export rw\n"
        "31 20 0:41 / /mnt/share\\040too rw - cifs //server/share rw\n"
        "32 30 8:2 / /mnt/share/local rw - xfs /dev/sdb1 rw\n"
    )
    assert file_system(place, mounts) == kind


async def test_a_network_file_system_is_refused(
    tmp_path: Path, clock: FakeClock, entropy: SeededEntropy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "20 1 0:40 / / rw - nfs4 server:/export rw\n")

    with pytest.raises(Unavailable, match="network file system"):
        await SqliteStore.open(tmp_path / "runyard.db", clock=clock, entropy=entropy)
