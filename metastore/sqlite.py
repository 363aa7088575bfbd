"""The metastore on SQLite: one writer thread, a few reader threads, each with a connection of its own.

SQLite has one writer, so that a thread that owns the writing connection needs no lock and waits for nobody.  Commands
that are ready at the same time share one COMMIT, each inside its own savepoint: a disk is asked to flush once for all
of them.  The driver is in autocommit and transactions are begun by hand, because its own rule (BEGIN before the first
write) loses updates: what was read before stands outside the transaction.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, TypeVar, cast

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from dag.errors import Unavailable
from metastore.disk import refuse_network
from metastore.hints import Hub
from metastore.prepared import Prepared
from metastore.store import PROBE_EVERY, Tx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from dag.world import Clock, Entropy
    from metastore.hints import Waiter
    from metastore.store import Plans, Topic

P = ParamSpec("P")
T = TypeVar("T")

_READERS: Final = 2
#: How long SQLite waits for another process' lock before it gives up.
_BUSY_MS: Final = 5_000
#: At most so many commands share a COMMIT: the first of them waits for the last.
_SHARED: Final = 32
#: After so many idle seconds the writer moves the log into the database, where nobody has to wait for it.
_CHECKPOINT_AFTER: Final = 2.0
_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    f"PRAGMA busy_timeout = {_BUSY_MS}",
    "PRAGMA foreign_keys = ON",
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -8000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA wal_autocheckpoint = 4000",
)


class _Job:
    """One call on its way to a thread and back."""

    __slots__ = ("call", "error", "future", "result", "topics")

    def __init__(self, call: Callable[[Any], Any], future: asyncio.Future[Any]) -> None:
        self.call = call
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None
        self.topics: set[Topic] = set()


class SqliteStore:
    """A metastore in one file, for one service.

    A file that is unlinked still takes writes, and they are gone with the process.  So each transaction looks, before
    its COMMIT, whether the path still names the file that was opened.
    """

    dialect: Literal["sqlite", "postgresql"] = "sqlite"

    def __init__(
        self, path: Path, conns: Sequence[Connection], *, clock: Clock, entropy: Entropy, plans: Plans
    ) -> None:
        self.path = path
        self._clock = clock
        self._entropy = entropy
        self._plans = plans
        self._hub = Hub()
        self._loop = asyncio.get_running_loop()
        self._done: deque[_Job] = deque()
        self._waking = False
        self._closed = False
        self._file = _identity(path)
        #: Why the last write failed; None when it did not.
        self._trouble: BaseException | None = None
        self._probe_at = 0.0
        self._writes: SimpleQueue[_Job | None] = SimpleQueue()
        self._reads: SimpleQueue[_Job | None] = SimpleQueue()
        writer, *readers = conns
        self._threads = [threading.Thread(target=self._writer, args=[writer], name="metastore-writer", daemon=True)]
        self._threads += [
            threading.Thread(target=self._reader, args=[conn], name="metastore-reader", daemon=True) for conn in readers
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    async def open(cls, path: Path, *, clock: Clock, entropy: Entropy, plans: Plans | None = None) -> SqliteStore:
        """Open the migrated database at *path*; *plans* are kept in memory unless given."""
        refuse_network(path)
        if plans is None:
            from metastore.plans import PlanCache  # noqa: PLC0415  # brings pydantic, which a migration does without

            plans = PlanCache()
        try:
            conns = [_engine(path, begin="BEGIN IMMEDIATE").connect()]
            conns += [_engine(path, begin="BEGIN").connect() for _ in range(_READERS)]
        except (DBAPIError, sqlite3.Error) as error:
            msg = f"{path} cannot be opened as a SQLite database: {error}."
            raise Unavailable(msg) from error
        return cls(path, conns, clock=clock, entropy=entropy, plans=plans)

    async def write(self, command: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def call(tx: Tx) -> T:
            return command(tx, *args, **kwargs)

        result: T = await self._submit(self._writes, call)
        return result

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def call(conn: Connection) -> T:
            return query(conn, *args, **kwargs)

        result: T = await self._submit(self._reads, call)
        return result

    async def check(self) -> None:
        self._refuse_another_file()
        if (trouble := self._trouble) is None:
            return
        now = self._clock.monotonic()
        if now < self._probe_at:
            raise Unavailable(str(trouble))
        self._probe_at = now + PROBE_EVERY
        try:
            await self.write(_touch)
        except (DBAPIError, sqlite3.Error) as error:
            raise Unavailable(str(error)) from error

    def subscribe(self, *topics: Topic) -> Waiter:
        return self._hub.subscribe(*topics)

    async def close(self) -> None:
        """Finish what was accepted, then let go of the file."""
        if self._closed:
            return
        self._closed = True
        self._writes.put(None)
        for _ in range(_READERS):
            self._reads.put(None)
        await asyncio.to_thread(self._join)
        self._deliver()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _submit(self, queue: SimpleQueue[_Job | None], call: Callable[[Any], Any]) -> asyncio.Future[Any]:
        if self._closed:
            msg = "The metastore is closed."
            raise Unavailable(msg)
        future: asyncio.Future[Any] = self._loop.create_future()
        queue.put(_Job(call, future))
        return future

    # From here to _finish: on the threads.

    def _writer(self, conn: Connection) -> None:
        raw = _raw(conn)
        fast = cast("Connection", Prepared(conn, raw))
        dirty = False
        while True:
            try:
                job = self._writes.get(timeout=_CHECKPOINT_AFTER if dirty else None)
            except Empty:
                self._checkpoint(raw)
                dirty = False
                continue
            if job is None:
                break
            jobs = [job, *self._more()]
            self._commit_together(conn, fast, jobs)
            self._trouble = next((job.error for job in jobs if _is_trouble(job.error)), None)
            self._finish(jobs)
            dirty = True
        conn.close()

    def _checkpoint(self, raw: sqlite3.Connection) -> None:
        """Move the log into the file; what the disk does not take stays in the log, where it is as durable."""
        try:
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        except sqlite3.Error as error:
            self._trouble = error

    def _more(self) -> list[_Job]:
        """Return what else is ready to be written."""
        jobs: list[_Job] = []
        while len(jobs) < _SHARED - 1:
            try:
                job = self._writes.get_nowait()
            except Empty:
                break
            if job is None:  # closing: not before these are done
                self._writes.put(None)
                break
            jobs.append(job)
        return jobs

    def _commit_together(self, conn: Connection, fast: Connection, jobs: list[_Job]) -> None:
        """Run *jobs* in one transaction; what fails leaves no trace in it."""
        try:
            with conn.begin():
                for job in jobs:
                    self._in_savepoint(fast, _raw(conn), job, alone=len(jobs) == 1)
                self._refuse_another_file()
        except Exception as error:  # noqa: BLE001  # it is the callers', whatever it is; the writer goes on
            _abandon(_raw(conn))
            if len(jobs) > 1 and not _out_of_order(error):
                for job in jobs:
                    self._commit_together(conn, fast, [job])
                return
            for job in jobs:
                job.error = job.error or _translated(error)
                job.topics.clear()

    def _in_savepoint(self, fast: Connection, raw: sqlite3.Connection, job: _Job, *, alone: bool) -> None:
        tx = Tx(conn=fast, now=self._clock.now(), entropy=self._entropy, plans=self._plans)
        job.error = None
        if alone:
            job.result = job.call(tx)
            tx.finish()
        else:
            raw.execute("SAVEPOINT job")
            try:
                job.result = job.call(tx)
                tx.finish()
            except Exception as error:
                if not raw.in_transaction:  # SQLite has thrown everything away: run each on its own
                    raise
                job.error = error
                raw.execute("ROLLBACK TO job")
            raw.execute("RELEASE job")
        job.topics = set() if job.error else tx.topics

    def _refuse_another_file(self) -> None:
        if _identity(self.path) != self._file:
            msg = (
                f"{self.path} is not the file any more that this service opened: it was removed or replaced, and "
                "nothing is written. Put the file back, or start the service again."
            )
            raise Unavailable(msg)

    def _reader(self, conn: Connection) -> None:
        raw = _raw(conn)
        raw.execute("PRAGMA query_only = ON").close()
        fast = cast("Connection", Prepared(conn, raw))
        while (job := self._reads.get()) is not None:
            try:
                with conn.begin():
                    job.result = job.call(fast)
            except Exception as error:  # noqa: BLE001  # it is the caller's; the reader goes on
                _abandon(raw)
                job.error = _translated(error)
            self._finish([job])
        conn.close()

    def _finish(self, jobs: list[_Job]) -> None:
        self._done.extend(jobs)
        if not self._waking:  # read after the append: a delivery that has begun will see it, or clear this first
            self._waking = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._waking = False

    # On the loop again.

    def _deliver(self) -> None:
        self._waking = False
        while self._done:
            job = self._done.popleft()
            if job.topics:
                self._hub.tell(job.topics)
            if job.future.done():  # the caller was cancelled; what was written stays written
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116  # asked before every COMMIT, and pathlib takes twice as long
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _touch(tx: Tx) -> None:
    """Write something that changes nothing; an UPDATE to the same value would not reach the disk."""
    version = tx.conn.exec_driver_sql("PRAGMA user_version").scalar()
    tx.conn.exec_driver_sql(f"PRAGMA user_version = {version}").close()


def _engine(path: Path, *, begin: str) -> Engine:
    # Parameters are the users', and errors are logged.
    engine = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=NullPool, hide_parameters=True)

    @event.listens_for(engine, "begin")
    def _(conn: Connection) -> None:
        _raw(conn).execute(begin)

    return engine


def _connect(path: Path) -> sqlite3.Connection:
    conn = sqlite3.connect(path, isolation_level=None, cached_statements=512, check_same_thread=False)
    for pragma in _PRAGMAS:
        conn.execute(pragma).close()
    return conn


def _raw(conn: Connection) -> sqlite3.Connection:
    raw = conn.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError(type(raw))
    return raw


def _abandon(raw: sqlite3.Connection) -> None:
    """End what a COMMIT that failed has left open: SQLAlchemy takes it for ended, and SQLite does not always."""
    if raw.in_transaction:
        with suppress(sqlite3.Error):
            raw.execute("ROLLBACK").close()


def _translated(error: BaseException) -> BaseException:
    """Return Unavailable for what may go better later, else *error*."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF in _TRANSIENT:
        unavailable = Unavailable(f"The database does not answer: {cause}.")
        unavailable.__cause__ = error
        return unavailable
    if isinstance(cause, sqlite3.DatabaseError) and getattr(cause, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
        damaged = Unavailable(f"The database file is damaged: {cause}. Stop the service and put a copy in its place.")
        damaged.__cause__ = error
        return damaged
    return error


_TRANSIENT: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
    }
)


_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def _is_trouble(error: BaseException | None) -> bool:
    """Whether the next write will probably fail as well."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    read_only = isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_READONLY
    return read_only or (error is not None and _out_of_order(error))


def _out_of_order(error: BaseException) -> bool:
    """Whether the database itself is in trouble, so that running each job alone would not help."""
    return isinstance(_translated(error), Unavailable)
