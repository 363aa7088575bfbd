"""The metastore on Postgres: whole transactions, repeated when the wire or a rival broke them.

Commands run inside ``run_sync``, under READ COMMITTED, on a connection from a pool; queries under REPEATABLE READ,
READ ONLY, so that all their statements see one snapshot.  Each write is a task of its own: a caller that is cancelled
(its client went away) stops waiting and does not tear a COMMIT apart.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, TypeVar

from sqlalchemy.ext.asyncio import create_async_engine

from dag.errors import Unavailable
from metastore.hints import Hub
from metastore.notify import Exchange
from metastore.store import Tx
from metastore.wire import Timeouts, again, connect, not_now, refused

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
        self._exchange = Exchange(settings, timeouts, self._hub, entropy) if notify else None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

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
        except BaseException:
            await store.close()
            raise
        return store

    async def write(self, command: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        def body(conn: Connection) -> tuple[T, set[Topic]]:
            with conn.begin():
                now = conn.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
                tx = Tx(conn=conn, now=now, entropy=self._entropy, plans=self._plans)
                return command(tx, *args, **kwargs), tx.topics

        async def once() -> T:
            async with self._engine.connect() as conn:
                result, topics = await conn.run_sync(body)
            self._tell(topics)
            return result

        return await self._alone(self._repeatedly(once))

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
                    msg = f"The database {self.settings.shown} does not answer: {error or type(error).__name__}"
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


def _ping(conn: Connection) -> None:
    conn.exec_driver_sql("SELECT 1")
