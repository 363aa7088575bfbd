"""The reference scenario, broken at its k-th statement: an error, a lost reply, the end of the process.

The caller repeats what was not answered, and the end is the same, whatever k is.  Clocks, chance and order are those of
the clean play, so that every k is met, and is the statement it was there.  A spread of them in the test run, all with
``--long``, in as many parts as there may be processes to share them.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import signal
from typing import TYPE_CHECKING, Any, Final

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
from tests.metastore.ticking import Ticking, lent
from tests.world import FakeClock, SeededEntropy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from metastore.store import Store
    from tests.databases import PostgresServer, SqliteFiles

_LOG: Final = logging.getLogger(__name__)

#: Small enough that a run has more than one, so that what lies between them is broken as well.
CHUNK: Final = 3
LIMITS: Final = {"slots:local@*": 2, "slots:farm/*": 3}
#: In the test run one COMMIT is broken of so many kinds of transaction; on SQLite it takes less time.
SHARES: Final[dict[str, dict[Fault, int]]] = {
    "sqlite": {"error before": 8, "lost reply": 1, "kill": 6, "kill unanswered": 4},
    "postgres": {"error before": 20, "lost reply": 12, "kill": 20, "kill unanswered": 16},
}
#: How many tests share the statements with ``--long``.
PARTS: Final = 32
PATIENT: Final = Timeouts(connect=2, command=3, statement=2, lock=2, idle_in_transaction=3, patience=1)

pytestmark = pytest.mark.timeout(6 * 3600)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "part" in metafunc.fixturenames:
        metafunc.parametrize("part", range(PARTS if metafunc.config.getoption("--long") else 1))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materialise, "CHUNK", CHUNK)


def kind_of(text: str) -> str:
    """Return what a statement is: all of a BEGIN, and of anything else its first word."""
    return text if text.startswith("BEGIN") else text.split(maxsplit=1)[0].rstrip(";").upper()


def spread(texts: Sequence[str], fault: Fault, share: int, *, long: bool) -> list[int]:
    """Return which statements are broken: all, or the first, the last, some COMMITs and one of every other kind.

    What is lost with a COMMIT's reply is what callers have to find out about: no two transactions are alike.  Nothing
    but a COMMIT has an effect that a process can die of without having seen it.
    """
    kinds: dict[str, list[int]] = {}
    commits: dict[frozenset[str], int] = {}
    inside: set[str] = set()
    for k, text in enumerate(texts, 1):
        kinds.setdefault(kind := kind_of(text), []).append(k)
        if kind in ("INSERT", "UPDATE", "DELETE", "WITH"):
            inside.add(text)
        elif kind in ("COMMIT", "ROLLBACK"):
            if inside:
                commits.setdefault(frozenset(inside), k)
            inside = set()
    if long:
        return kinds["COMMIT"] if fault == "kill unanswered" else list(range(1, len(texts) + 1))
    turn = FAULTS.index(fault)
    chosen = set(list(commits.values())[turn % share :: share])
    if fault == "kill":  # between two transactions
        chosen = {min(k + 1, len(texts)) for k in chosen}
    if fault != "kill unanswered":
        ends = {kind_of(texts[0]): 1, kind_of(texts[-1]): len(texts)}
        for kind in [*kinds][turn % 2 :: 2]:
            ends.setdefault(kind, kinds[kind][len(kinds[kind]) * (2 * turn + 1) // (2 * len(FAULTS))])
        chosen |= {*ends.values()}
    return sorted(chosen)


async def verify(store: Store, outside: Outside, clock: FakeClock) -> None:
    """Everything has ended as it had to, nothing is held, and the whole history is a good one."""
    assert await Reference(store, outside, clock).states() == VERDICTS
    report = await judged(store, outside.lines, clients=True, slots=LIMITS)
    assert not report.total, str(report)
    await Flow(store, clock).check()


async def play_on_sqlite(path: Path, memory: Path, statements: Statements, seed: int = 1) -> None:
    """Play as the *seed*-th process, and judge the end."""
    outside = Outside(memory)
    clock = outside.clock()
    sqlite._connect, before = statements.connect, sqlite._connect  # what a driver is to a store
    try:
        store = await SqliteStore.open(path, clock=clock, entropy=SeededEntropy(seed))
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


async def play_on_postgres(url: str, memory: Path, wire: Cutter | str | None = None, seed: int = 1) -> None:
    """Play as the *seed*-th process, through a wire or the URL of one that another process has, and judge the end."""
    outside = await Ticking.open(memory, url)
    clock = outside.clock()
    settings = DatabaseSettings(wire.url if isinstance(wire, Cutter) else wire or url)
    store = await PostgresStore.open(settings, clock=clock, entropy=SeededEntropy(seed), timeouts=PATIENT, notify=False)
    try:
        await Reference(store, outside, clock).play()
        if isinstance(wire, Cutter):
            wire.armed = False
        await verify(store, outside, clock)
    finally:
        await store.close()
        outside.close()


# A process of its own, which is killed


def die_on_sqlite(path: Path, memory: Path, k: int, fault: Fault) -> None:
    materialise.CHUNK = CHUNK  # type: ignore[misc]  # as the fixture does in the other process
    asyncio.run(play_on_sqlite(path, memory, Statements(k, fault)))


def die_on_postgres(url: str, memory: Path, wire: str) -> None:
    materialise.CHUNK = CHUNK  # type: ignore[misc]  # as above
    asyncio.run(play_on_postgres(url, memory, wire))


def begin(target: Callable[..., None], *given: Any) -> Any:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    child = processes.Process(target=target, args=given)
    child.start()
    return child


async def kill_on_postgres(url: str, memory: Path, wire: Cutter) -> None:
    """Have a process play that the wire kills, and another one, which is this, go on."""
    child = begin(die_on_postgres, url, memory, wire.url)
    wire.victim = child.pid
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(child.sentinel, gone.set)
    await gone.wait()
    loop.remove_reader(child.sentinel)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    await play_on_postgres(url, memory, seed=2)


# All of them on SQLite


def path_of(files: SqliteFiles, folder: Path) -> Path:
    return DatabaseSettings(files.create(folder)).path


@pytest.fixture(scope="module")
def sqlite_texts(sqlite_files: SqliteFiles, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The statements of the scenario when nothing is broken."""
    folder = tmp_path_factory.mktemp("clean")
    statements = Statements()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(materialise, "CHUNK", CHUNK)
        asyncio.run(play_on_sqlite(path_of(sqlite_files, folder), folder / "outside", statements))
    return statements.texts


def break_sqlite(path: Path, memory: Path, k: int, fault: Fault, text: str) -> None:
    if fault not in ("kill", "kill unanswered"):
        statements = Statements(k, fault)
        asyncio.run(play_on_sqlite(path, memory, statements))
        assert statements.fired == text
        return
    child = begin(die_on_sqlite, path, memory, k, fault)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    asyncio.run(play_on_sqlite(path, memory, Statements(), seed=2))


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_at_any_statement_on_sqlite(
    sqlite_files: SqliteFiles,
    sqlite_texts: list[str],
    tmp_path: Path,
    fault: Fault,
    part: int,
    *,
    long: bool,
) -> None:
    chosen = spread(sqlite_texts, fault, SHARES["sqlite"][fault], long=long)[part :: PARTS if long else 1]
    _LOG.info("%s: %d of %d", fault, len(chosen), len(sqlite_texts))
    for k in chosen:
        (folder := tmp_path / str(k)).mkdir()
        try:
            break_sqlite(path_of(sqlite_files, folder), folder / "outside", k, fault, sqlite_texts[k - 1])
        except BaseException as error:
            error.add_note(f"{fault} at statement {k}: {sqlite_texts[k - 1]}")
            raise


# All of them on Postgres


async def break_postgres(url: str, memory: Path, k: int = 0, fault: Fault = "error before") -> Cutter:
    async with Cutter(url, k, fault) as wire:
        if fault in ("kill", "kill unanswered"):
            await kill_on_postgres(url, memory, wire)
        else:
            await play_on_postgres(url, memory, wire)
    return wire


@pytest.fixture(scope="module")
def postgres_texts(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The messages of the scenario that ask for an answer, when nothing is broken."""
    folder = tmp_path_factory.mktemp("clean")
    plays = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(materialise, "CHUNK", CHUNK)
        for number in range(2):
            with lent(postgres_server) as url:
                plays.append(asyncio.run(break_postgres(url, folder / f"outside-{number}")).texts)
    assert plays[0] == plays[1], "no k means the same in every play"
    return plays[0]


@pytest.mark.postgres
@pytest.mark.parametrize("fault", FAULTS)
def test_broken_at_any_message_on_postgres(
    postgres_server: PostgresServer,
    postgres_texts: list[str],
    tmp_path: Path,
    fault: Fault,
    part: int,
    *,
    long: bool,
) -> None:
    chosen = spread(postgres_texts, fault, SHARES["postgres"][fault], long=long)[part :: PARTS if long else 1]
    _LOG.info("%s: %d of %d", fault, len(chosen), len(postgres_texts))
    for k in chosen:
        try:
            with lent(postgres_server) as url:
                wire = asyncio.run(break_postgres(url, tmp_path / f"outside-{k}", k, fault))
            assert wire.fired == postgres_texts[k - 1]
        except BaseException as error:
            error.add_note(f"{fault} at message {k}: {postgres_texts[k - 1]}")
            raise
