"""A metastore as one simulated process sees it: its connections, its patience, and the hints it hears.

It keeps the promises of :class:`metastore.store.Store` as the one on Postgres does: a transaction that a broken
connection ended runs again, one whose COMMIT was not answered is asked for, and after a while the caller is told that
the database is away.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, Protocol, TypeVar

from dag.errors import Unavailable
from metastore.hints import Hub

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

    from metastore.hints import Waiter
    from metastore.store import Topic, Tx
    from tests.simulation.chance import SimEntropy
    from tests.simulation.loop import Process, SimLoop
    from tests.simulation.weather import Weather

P = ParamSpec("P")
T = TypeVar("T")

#: For how long one write or read is tried with all its repetitions, in seconds.
PATIENCE: Final = 20.0
#: How often whoever is asked how a transaction ended has never heard of it, so that it runs once more.
_AGAIN: Final = 0.5


class Broken(Exception):
    """The connection broke, or a lock could not be had: nothing of the transaction has happened."""


class InDoubt(Exception):
    """The COMMIT was not answered; it has happened."""

    def __init__(self, done: Done) -> None:
        super().__init__("no answer to COMMIT")
        self.done = done


@dataclass(slots=True)
class Done:
    """A transaction that was committed."""

    result: Any
    topics: set[Topic] = field(default_factory=set)


class Database(Protocol):
    """The server: what all processes share."""

    #: How often it was restarted: what was on its way then is not answered.
    restarts: int

    async def transact(self, process: Process, entropy: SimEntropy, command: Call) -> Done:
        """Run *command* in a transaction; raise Broken or InDoubt where the connection does not last."""
        ...

    async def query(self, process: Process, query: Call) -> Any:
        """Run *query* on one snapshot; raise Broken where the connection does not last."""
        ...

    def leave(self, process: Process) -> None:
        """Notice that a process is gone: what it has not committed is rolled back."""
        ...

    def break_all(self) -> None:
        """Restart: every connection breaks, and nothing that was committed is lost."""
        ...

    def last_event(self) -> int:
        """Return the number of the last event that is committed; 0: there is none."""
        ...

    def dump(self) -> Dump:
        """Return what is committed, for the history."""
        ...

    def is_at_rest(self) -> bool:
        """Whether every run that can end has ended, and nothing holds a slot."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Dump:
    """What a metastore holds in the end."""

    #: Rows of the event log, in their order, each with its ``id``.
    events: list[dict[str, Any]]
    #: (id of the last event before it, limit, capacity), in the order of the commits.
    capacities: list[tuple[int, str, int | None]]
    #: (DAG, version, document).
    documents: list[tuple[str, int, Any]]
    runs: list[dict[str, Any]]
    instances: list[dict[str, Any]]
    #: Uses, by limit.
    used: dict[str, int]
    #: ``dag/run`` of what is held back by a paused DAG, or a time to come.
    held: list[str]


class Exchange:
    """What carries hints from process to process; any of them may be lost."""

    def __init__(self, loop: SimLoop, dice: random.Random, weather: Weather) -> None:
        self._loop = loop
        self._dice = dice
        self._weather = weather
        self._ears: dict[Process, Hub] = {}

    def join(self, process: Process, hub: Hub) -> None:
        self._ears[process] = hub
        process.on_death.append(partial(self._leave, process))

    def _leave(self, process: Process) -> None:
        del self._ears[process]

    def tell(self, sender: Process, topics: Iterable[Topic]) -> None:
        """Tell all others, soon or never."""
        told = sorted(topics)
        if self._weather.is_down(f"database:{sender.host}"):
            return
        for process, hub in self._ears.items():
            if process is sender or self._weather.is_down(f"database:{process.host}"):
                continue
            if self._weather.strikes("hint.lost"):
                continue
            process.later(0.001 + 0.05 * self._dice.random(), hub.tell, told)


class SimStore:
    """The metastore of one process."""

    #: As on Postgres: several schedulers, leases.
    dialect: Literal["sqlite", "postgresql"] = "postgresql"

    def __init__(  # what it needs of the world, each injected
        self,
        database: Database,
        process: Process,
        exchange: Exchange,
        entropy: SimEntropy,
        dice: random.Random,
        weather: Weather,
    ) -> None:
        self._database = database
        self._process = process
        self._exchange = exchange
        self._entropy = entropy
        self._dice = dice
        self._weather = weather
        self._hub = Hub()
        exchange.join(process, self._hub)
        process.on_death.append(lambda: database.leave(process))

    async def write(self, command: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = Call(command, args, kwargs)
        result: T = await self._alone(self._repeatedly(lambda: self._write_once(call)))
        return result

    async def read(self, query: Callable[Concatenate[Any, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = Call(query, args, kwargs)
        result: T = await self._repeatedly(lambda: self._read_once(call))
        return result

    async def check(self) -> None:
        """Nothing asks it here."""

    def subscribe(self, *topics: Topic) -> Waiter:
        return self._hub.subscribe(*topics)

    async def close(self) -> None:
        self._database.leave(self._process)

    async def _write_once(self, call: Call) -> Any:
        await self._wire()
        try:
            done = await self._database.transact(self._process, self._entropy, call)
        except InDoubt as doubt:
            done = await self._find_out(doubt.done)
        # It is told before its answer comes to who asked.
        if done.topics:
            self._hub.tell(sorted(done.topics))
            self._exchange.tell(self._process, done.topics)
        restarts = self._database.restarts
        await self._wire()
        if self._database.restarts != restarts:
            self._weather.count("db.reset")
            done = await self._find_out(done)
        return done.result

    async def _find_out(self, done: Done) -> Done:
        """Ask how a transaction ended whose COMMIT was not answered, while there is somebody to ask."""
        until = self._loop.time() + PATIENCE
        while self._is_away():
            if self._loop.time() > until:
                raise Unavailable("It is not known how a transaction ended.")
            await asyncio.sleep(0.5)
        if self._dice.random() < _AGAIN:
            self._weather.count("db.again")
            # What the protocol of the store allows as well: whoever answers now does not know, and it runs once more.
            raise Broken("a server that never heard of it")
        await self._wire()
        return done

    async def _read_once(self, call: Call) -> Any:
        await self._refused()
        result = await self._database.query(self._process, call)
        await self._wire()
        return result

    def _is_away(self) -> bool:
        """Whether there is no database, or no way to it from here."""
        return self._weather.is_down("database") or self._weather.is_down(f"database:{self._process.host}")

    async def _refused(self) -> None:
        """Take the time to notice that there is no database, if there is none."""
        if self._is_away():
            await asyncio.sleep(0.01 + 0.2 * self._dice.random())
            self._weather.count("db.refused" if self._weather.is_down("database") else "db.cut")
            raise Broken("connection refused")

    async def _wire(self) -> None:
        """Take the time that a message to or from the database takes, if there is one.

        A question needs none: what it is asked about does not depend on when it was put.
        """
        await self._refused()
        slow = 2.0 if self._weather.strikes("db.slow") else 0.004
        if self._weather.strikes("db.crawls"):
            slow = 15.0
        await asyncio.sleep(slow * self._dice.random())

    async def _repeatedly(self, once: Callable[[], Any]) -> Any:
        until = self._loop.time() + PATIENCE
        failures = 0
        while True:
            try:
                return await once()
            except Broken as error:
                pause = min(1.0, 0.01 * 2**failures) * (0.5 + self._dice.random())
                if self._loop.time() + pause > until:
                    self._weather.count("db.unavailable")
                    raise Unavailable(f"The database does not answer: {error}") from error
            failures += 1
            await asyncio.sleep(pause)

    async def _alone(self, work: Any) -> Any:
        """Run *work* in a task that a cancelled caller leaves running."""
        told = self._loop.create_future()
        self._loop.create_task(work).add_done_callback(partial(_tell, told))
        return await told

    @property
    def _loop(self) -> SimLoop:
        return self._process.loop


@dataclass(frozen=True, slots=True)
class Call:
    """A command or a query with its arguments."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self, conn: Any) -> Any:
        return self.function(conn, *self.args, **self.kwargs)


def _tell(told: asyncio.Future[Any], task: asyncio.Task[Any]) -> None:
    """Tell the caller how a task ended, if it still waits; the error of a task is known either way."""
    if task.cancelled():
        told.cancel()
        return
    error = task.exception()
    if told.done():
        return
    if error is None:
        told.set_result(task.result())
    else:
        told.set_exception(error)
        told.exception()  # seen, also where the caller is cancelled in the same instant
