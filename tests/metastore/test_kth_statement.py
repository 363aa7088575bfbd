"""The reference scenario, broken at its k-th statement: an error, a lost reply, the end of the process.

The caller repeats what was not answered, and the end is the same, whatever k is.  A spread of them in the test run,
all with ``--long``.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from typing import TYPE_CHECKING

import pytest

from metastore import sqlite
from metastore.commands import materialise
from metastore.postgres import PostgresStore
from metastore.settings import DatabaseSettings
from metastore.sqlite import SqliteStore
from metastore.wire import Timeouts
from tests.metastore.flow import Flow
from tests.metastore.history import judged
from tests.metastore.outside import Outside
from tests.metastore.reference import Reference
from tests.metastore.requests import VERDICTS
from tests.metastore.statements import FAULTS, Cutter, Fault, Statements
from tests.world import FakeClock, SeededEntropy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from metastore.store import Store
    from tests.databases import PostgresServer, SqliteFiles

#: Small enough that a run has more than one, so that what lies between them is broken as well.
CHUNK = 3
LIMITS = {"slots:local@*": 2, "slots:farm/*": 3}
#: How many messages to Postgres are broken in the test run, for each fault.
MESSAGES = 3
PATIENT = Timeouts(connect=2, command=3, statement=2, lock=2, idle_in_transaction=3, patience=1)

pytestmark = pytest.mark.timeout(3 * 3600)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialise, "CHUNK", CHUNK)


def spread(texts: Sequence[str], fault: Fault, *, long: bool) -> list[int]:
    """Return which statements are broken: all of them, or some, of which no two are alike.

    What is lost with a COMMIT's reply is what callers have to find out about: one for each kind of transaction.
    """
    if long:
        return list(range(1, len(texts) + 1))
    commits: dict[frozenset[str], int] = {}
    writes: dict[str, int] = {}
    inside: set[str] = set()
    for k, text in enumerate(texts, 1):
        if text.startswith(("INSERT", "UPDATE", "DELETE")):
            inside.add(text)
            writes.setdefault(text, k)
        elif text == "COMMIT":
            commits.setdefault(frozenset(inside), k)
            inside = set()
    match fault:
        case "lost reply":
            return list(commits.values())
        case "kill":  # right after a COMMIT
            return [k + 1 for k in commits.values()][::2]
        case "error before":
            return [*writes.values(), *commits.values()][::6]


async def verify(store: Store, outside: Outside, clock: FakeClock | None) -> None:
    """Everything has ended as it had to, nothing is held, and the whole history is a good one."""
    assert await Reference(store, outside, clock).states() == VERDICTS
    report = await judged(store, outside.lines, clients=True, slots=LIMITS)
    assert not report.total, str(report)
    await Flow(store, clock or FakeClock()).check()


async def open_sqlite(path: Path, outside: Outside, seed: int) -> tuple[SqliteStore, FakeClock]:
    """Open the database as the *seed*-th process; its clock has gone on."""
    clock = FakeClock()
    for _ in range(outside.waits):
        Outside.pass_by(clock)
    return await SqliteStore.open(path, clock=clock, entropy=SeededEntropy(seed)), clock


async def play_on_sqlite(path: Path, memory: Path, statements: Statements, seed: int = 1) -> None:
    outside = Outside(memory)
    sqlite._connect, before = statements.connect, sqlite._connect  # what a driver is to a store
    try:
        store, clock = await open_sqlite(path, outside, seed)
    finally:
        sqlite._connect = before
    statements.armed = True
    try:
        await Reference(store, outside, clock).play()
        statements.armed = False
        await verify(store, outside, clock)
    finally:
        statements.armed = False
        await store.close()
        outside.close()


def play_until_killed(path: Path, memory: Path, k: int) -> None:
    """Play in a process of its own, which dies at its *k*-th statement."""
    materialise.CHUNK = CHUNK  # type: ignore[misc]  # as the fixture does in the other process
    asyncio.run(play_on_sqlite(path, memory, Statements(k, "kill")))


@pytest.fixture(scope="module")
def sqlite_texts(sqlite_files: SqliteFiles, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The statements of the scenario when nothing is broken."""
    folder = tmp_path_factory.mktemp("clean")
    statements = Statements()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(materialise, "CHUNK", CHUNK)
        asyncio.run(play_on_sqlite(path_of(sqlite_files, folder), folder / "outside", statements))
    return statements.texts


def path_of(files: SqliteFiles, folder: Path) -> Path:
    return DatabaseSettings(files.create(folder)).path


@pytest.mark.parametrize("fault", ["error before", "lost reply"])
def test_broken_at_any_statement_on_sqlite(
    sqlite_files: SqliteFiles, sqlite_texts: list[str], tmp_path: Path, fault: Fault, *, long: bool
) -> None:
    chosen = spread(sqlite_texts, fault, long=long)
    for k in chosen:
        (folder := tmp_path / str(k)).mkdir()
        statements = Statements(k, fault)
        try:
            asyncio.run(play_on_sqlite(path_of(sqlite_files, folder), folder / "outside", statements))
        except BaseException as error:
            error.add_note(f"{fault} at statement {k}: {statements.fired}")
            raise
        assert statements.fired


def test_killed_at_any_statement_on_sqlite(
    sqlite_files: SqliteFiles, sqlite_texts: list[str], tmp_path: Path, *, long: bool
) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    for k in spread(sqlite_texts, "kill", long=long):
        (folder := tmp_path / str(k)).mkdir()
        path, memory = path_of(sqlite_files, folder), folder / "outside"
        killed = processes.Process(target=play_until_killed, args=(path, memory, k))
        killed.start()
        killed.join()
        assert killed.exitcode == -signal.SIGKILL
        try:
            asyncio.run(play_on_sqlite(path, memory, Statements(), seed=2))
        except BaseException as error:
            error.add_note(f"killed at statement {k}: {sqlite_texts[k - 1]}")
            raise


async def play_on_postgres(url: str, memory: Path, wire: Cutter) -> None:
    outside = Outside(memory)
    settings = DatabaseSettings(wire.url)
    store = await PostgresStore.open(
        settings, clock=FakeClock(), entropy=SeededEntropy(1), timeouts=PATIENT, notify=False
    )
    wire.armed = True
    playing = asyncio.create_task(Reference(store, outside, None).play())
    dying = asyncio.create_task(wire.dead.wait())
    await asyncio.wait([playing, dying], return_when=asyncio.FIRST_COMPLETED)
    wire.armed = False
    dying.cancel()
    if wire.dead.is_set():
        playing.cancel()
    await asyncio.gather(playing, dying, return_exceptions=True)
    if wire.dead.is_set():
        await store.close()
        store = await PostgresStore.open(
            DatabaseSettings(url), clock=FakeClock(), entropy=SeededEntropy(2), notify=False
        )
        await Reference(store, outside, None).play()
    else:
        playing.result()
    await verify(store, outside, None)
    await store.close()
    outside.close()


@pytest.mark.postgres
@pytest.mark.parametrize("fault", FAULTS)
def test_broken_at_any_message_on_postgres(
    postgres_server: PostgresServer, tmp_path: Path, fault: Fault, *, long: bool
) -> None:
    async def play(k: int) -> Cutter:
        url = postgres_server.borrow()
        async with Cutter(url, k, fault) as wire:
            try:
                await play_on_postgres(url, tmp_path / f"outside-{k}", wire)
            except BaseException as error:
                error.add_note(f"{fault} at message {k}: {wire.fired}")
                raise
        postgres_server.give_back(url)
        return wire

    messages = asyncio.run(play(0)).count
    # No two plays are alike here: they go by the database's clock.  The sample ends where every play still is.
    step = 1 if long else messages // MESSAGES
    last = messages if long else messages * 4 // 5
    broken = [asyncio.run(play(k)) for k in range(1 + FAULTS.index(fault) * step // len(FAULTS), last, step)]
    assert sum(bool(wire.fired) for wire in broken) >= len(broken) * 4 // 5
