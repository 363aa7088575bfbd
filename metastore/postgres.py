"""The metastore on Postgres: whole transactions, repeated when the wire or a rival broke them.

Commands run inside ``run_sync``, under READ COMMITTED, on a connection from a pool; queries under REPEATABLE READ,
READ ONLY, so that all their statements see one snapshot.  Each write is a task of its own: a caller that is cancelled
(its client went away) stops waiting and does not tear a COMMIT apart.  Where the reply to a COMMIT is lost, the
database is asked how that transaction ended: what it knows to be committed is done, what it knows not to be runs again,
and what nobody can tell is the caller's to repeat (see :mod:`metastore.witness`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from dag.errors import Unavailable
from metastore.hints import Hub
from metastore.notify import Exchange
from metastore.store import PROBE_EVERY, Tx
from metastore.wire import READ_ONLY, Timeouts, again, ambiguous, connect, not_now, refused, said, sqlstate
from metastore.witness import OUTCOME, Witness

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from sqlalchemy import Connection

    from dag.world import Clock, Entropy
    from metastore.hints import Waiter
    from metastore.settings import DatabaseSettings
    from metastore.store import Plans, Topic

P = ParamSpec("P")
T = TypeVar("T")

_POOL: Final = 8
_PREPARED: Final = 500
_DEFAULTS: Final = Timeouts()
#: How the statements of a write are planned: by their indexes, which each of them has.  What the planner knows of a
#: table may be minutes old, when it was empty, and a plan that reads all of it would be kept.
PLANNED: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")
#: Names the transaction, so that its end can be asked for when nobody told it; and database time.
_BEGUN: Final = "SELECT pg_current_xact_id()::text, clock_timestamp(), " + ", ".join(
    f"set_config('{name}', 'off', true)" for name in PLANNED
)
_IN_THE_FUTURE: Final = "22023"


class _InDoubt(Exception):
    """The wire broke between COMMIT and its reply."""

    def __init__(self, xid: str, result: Any, topics: set[Topic]) -> None:
        super().__init__(xid)
        self.xid = xid
        self.result = result
        self.topics = topics


class PostgresStore:
    """A metastore that several services on several hosts share."""

    dialect: Literal["sqlite", "postgresql"] = "postgresql"

    def __init__(
        self, settings: DatabaseSettings, *, entropy: Entropy, plans: Plans, timeouts: Timeouts, notify: bool
    ) -> None:
        async def wire(**_: Any) -> Any:
            return await connect(settings, timeouts)

        self.settings = settings
        self._entropy = entropy
        self._plans = plans
        self._timeouts = timeouts
        self._engine = create_async_engine(
            "postgresql+asyncpg://",
            hide_parameters=True,  # they are the users', and errors are logged
            async_creator=wire,
            connect_args={"prepared_statement_cache_size": _PREPARED},
            isolation_level="READ COMMITTED",
            pool_size=_POOL,
            max_overflow=0,
            pool_timeout=timeouts.patience,
            pool_use_lifo=True,
        )
        self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._hub = Hub()
        self._witness = Witness(settings, timeouts)
        self._exchange = Exchange(settings, timeouts, self._hub, entropy) if notify else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        #: Why the last write failed; None when it did not.
        self._trouble: Unavailable | None = None
        self._probe_at = 0.0

    @classmethod
    async def open(  # each of them is a choice of the caller's
        cls,
        settings: DatabaseSettings,
        *,
        clock: Clock,  # noqa: ARG003  # one signature for both stores; here the database has the clock
        entropy: Entropy,
        plans: Plans | None = None,
        timeouts: Timeouts = _DEFAULTS,
        notify: bool = True,
    ) -> PostgresStore:
        """Open the migrated database; *notify* false does without LISTEN and NOTIFY."""
        if plans is None:
            from metastore.plans import PlanCache  # noqa: PLC0415  # the same as on SQLite

            plans = PlanCache()
        store = cls(settings, entropy=entropy, plans=plans, timeouts=timeouts, notify=notify)
        try:
            await store.read(_ping)
            await store._witness.open()
        except BaseException:
            await store.close()
            raise
        return store

    async def write(self, command: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def body(conn: Connection) -> tuple[T, set[Topic]]:
            transaction = conn.begin()
            try:
                xid, now, *_ = conn.exec_driver_sql(_BEGUN).one()
                tx = Tx(conn=conn, now=now, entropy=self._entropy, plans=self._plans)
                result = command(tx, *args, **kwargs)
                tx.finish()
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except Exception as error:
                if not ambiguous(error):
                    raise
                raise _InDoubt(xid, result, tx.topics) from error
            return result, tx.topics

        async def once() -> T:
            witness = self._witness.present()
            try:
                async with self._engine.connect() as conn:
                    try:
                        result, topics = await conn.run_sync(body)
                    except DBAPIError as error:
                        if sqlstate(error) != READ_ONLY:
                            raise
                        await conn.invalidate()
                        msg = "This server takes no writes."
                        raise ConnectionError(msg) from error
            except _InDoubt as doubt:
                if not await self._committed(doubt.xid, witness):
                    raise doubt.__cause__ or doubt from None
                result, topics = doubt.result, doubt.topics
            self._tell(topics)
            return result

        return await self._alone(self._noted(once))

    async def _noted(self, once: Callable[[], Awaitable[T]]) -> T:
        """Do :meth:`_repeatedly` and remember whether writing is in trouble."""
        try:
            result = await self._repeatedly(once)
        except Unavailable as error:
            self._trouble = error
            raise
        self._trouble = None
        return result

    async def check(self) -> None:
        if self._trouble is None:
            return
        now = asyncio.get_running_loop().time()
        if now < self._probe_at:
            raise Unavailable(str(self._trouble))
        self._probe_at = now + PROBE_EVERY
        await self.write(_nothing)

    async def _committed(self, xid: str, witness: Any) -> bool:
        """Return how a transaction ended whose reply to COMMIT was lost; wait while it is still going on.

        Raises Unavailable where nobody knows.
        """

        async def ask() -> str | None:
            async with self._snapshots.connect() as conn:
                try:
                    found: str | None = (await conn.exec_driver_sql(OUTCOME, (xid,))).scalar()
                except DBAPIError as error:
                    if sqlstate(error) != _IN_THE_FUTURE:
                        raise
                    return None  # a server that never heard of it
                return found

        async with asyncio.timeout(self._timeouts.patience):
            outcome = await _settled(lambda: self._witness.outcome(witness, xid))
            if outcome is not None:
                return outcome == "committed"
            # Who was not there may say that it did not commit: what has committed keeps its number.
            outcome = await _settled(lambda: self._repeatedly(ask))
        if outcome == "committed":
            msg = f"The database {self.settings.shown} went away in a COMMIT, and nobody knows if that took effect."
            raise Unavailable(msg)
        return False

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        async def once() -> T:
            async with self._snapshots.connect() as conn:
                return await conn.run_sync(query, *args, **kwargs)

        return await self._alone(self._repeatedly(once))

    def subscribe(self, *topics: Topic) -> Waiter:
        return self._hub.subscribe(*topics)

    async def close(self) -> None:
        """Finish what was accepted, then let go of the connections."""
        self._closed = True
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._exchange is not None:
            await self._exchange.close()
        await self._witness.close()
        await self._engine.dispose()

    async def _alone(self, work: Coroutine[Any, Any, T]) -> T:
        """Run *work* in a task that a cancelled caller leaves running."""
        if self._closed:
            work.close()
            msg = "The metastore is closed."
            raise Unavailable(msg)
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even where the caller has gone

    async def _repeatedly(self, once: Callable[[], Awaitable[T]]) -> T:
        """Run a whole transaction until it succeeds, fails for good, or patience ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeouts.patience
        failures = 0
        while True:
            try:
                return await once()
            except Exception as error:
                pause = min(1.0, 0.01 * 2**failures) * (0.5 + self._entropy.luck())
                if not_now(error) or refused(error) or (again(error) and loop.time() + pause > deadline):
                    msg = f"The database {self.settings.shown} does not answer: {said(error)}"
                    raise Unavailable(msg) from error
                if not again(error):
                    raise
            failures += 1
            await asyncio.sleep(pause)

    def _tell(self, topics: set[Topic]) -> None:
        if topics:
            self._hub.tell(topics)
            if self._exchange is not None:
                self._exchange.tell(topics)


async def _settled(ask: Callable[[], Awaitable[str | None]]) -> str | None:
    """Return how a transaction ended, once it has."""
    while (outcome := await ask()) == "in progress":  # noqa: ASYNC110  # of the database: it tells nobody
        await asyncio.sleep(0.05)
    return outcome


def _nothing(tx: Tx) -> None:
    """Do nothing: the transaction has a number by now, so that its COMMIT is written to the disk."""


def _ping(conn: Connection) -> None:
    conn.exec_driver_sql("SELECT 1")
