"""The real SQL in the loop: one SQLite database, its one writer and its readers, in virtual time.

Commands and queries are the product's own, and so is the way their statements take (:mod:`metastore.prepared`).  Each
runs in a greenlet, so that every statement of it is a point where time may pass: other processes read the last
committed state, wait for the writer's lock, crash, and the connection may break.

A transaction takes the lock at its first statement that locks or writes, as on Postgres; what it reads before is the
committed state of that moment.  The lock is of the whole database, which is what SQLite has.  Where a statement says
SKIP LOCKED, now and then some rows are left out, as if somebody held them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from greenlet import getcurrent, greenlet  # type: ignore[import-untyped]  # it ships none

from metastore.plans import PlanCache
from metastore.store import Tx
from tests.simulation.chance import true_time
from tests.simulation.dump import dump, is_at_rest, last_event
from tests.simulation.sqlite import Answer, SqliteFile, traits
from tests.simulation.store import Broken, Done, InDoubt

if TYPE_CHECKING:
    import random
    import sqlite3
    from collections.abc import Callable

    from sqlalchemy import Connection

    from metastore.store import Plans
    from tests.simulation.chance import SimEntropy
    from tests.simulation.loop import Process, SimLoop
    from tests.simulation.sqlite import Traits, Wire
    from tests.simulation.store import Call, Dump
    from tests.simulation.weather import Weather

T = TypeVar("T")

#: How long a transaction waits for the lock before it is given up and run again.
LOCK_TIMEOUT: Final = 3.0
#: How long the server bears a transaction whose owner says nothing.
IDLE_IN_TRANSACTION: Final = 10.0
#: How often time passes at a statement, and how much at the most.
_POINT: Final = 0.15
_PAUSE: Final = 0.01


class _Conversation:
    """What the server knows of a client's transaction; stands where a connection is asked for."""

    def __init__(self, database: SqlDatabase, process: Process) -> None:
        self.database = database
        self.process = process
        self.wire: Wire | None = None
        self.reader: Wire | None = None
        self.is_broken = False
        self.said_at = 0.0
        self.changes_capacity = False
        self.dialect = database.file.dialect

    def execute(self, statement: Any, given: Any = None) -> Any:
        found = traits(statement)
        self.database.point(self)
        if self.wire is None and (found.locks or self.reader is None):
            self.database.lock(self)
        wire = self.reader if self.wire is None else self.wire
        assert wire is not None
        self.changes_capacity = self.changes_capacity or found.changes_capacity
        answer = wire.execute(statement, given)
        return self.database.some_locked(found, answer)


class SqlDatabase:
    """The server."""

    def __init__(self, loop: SimLoop, dice: random.Random, weather: Weather) -> None:
        self._loop = loop
        self._dice = dice
        self._weather = weather
        #: Of nobody's process.
        self._outer = copy_context()
        self.file = SqliteFile()
        #: A seed's own: what another one has left in it would spare this one its statements.
        self._plans: Plans = PlanCache()
        self._writer = self.file.connect()
        self._idle: list[Wire] = []
        self._holder: _Conversation | None = None
        self._waiting: deque[tuple[_Conversation, asyncio.Future[None]]] = deque()
        self._open: list[_Conversation] = []
        #: (number of the last event before it, limit, capacity), in the order of the commits.
        self.capacities: list[tuple[int, str, int | None]] = []
        self._known: dict[str, int | None] = {}
        self.statements = 0
        self.restarts = 0

    def close(self) -> None:
        self.file.close()

    def last_event(self) -> int:
        return self._outside(last_event)

    def dump(self) -> Dump:
        return self._outside(lambda raw: dump(raw, self.capacities))

    def is_at_rest(self) -> bool:
        return self._outside(is_at_rest)

    def _outside(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read what is committed, from outside of the simulated world."""
        wire = self._reader()
        try:
            return read(wire.raw)
        finally:
            self._idle.append(wire)

    # Transactions

    async def transact(self, process: Process, entropy: SimEntropy, command: Call) -> Done:
        talk = _Conversation(self, process)
        if self._dice.random() < 0.5:
            talk.reader = self._reader()  # as on Postgres: what locks nothing waits for nobody
        self._open.append(talk)
        tx = Tx(conn=cast("Connection", talk), now=true_time(self._loop), entropy=entropy, plans=self._plans)
        try:
            result = await self._drive(talk, lambda: command(tx))
            tx.finish()
            self._break_or(talk, "db.error")
            self._commit(talk)
        finally:
            self._end(talk)
        done = Done(result, tx.topics)
        if self._weather.strikes("db.lost_reply"):
            raise InDoubt(done)
        return done

    async def query(self, process: Process, query: Call) -> Any:
        talk = _Conversation(self, process)
        talk.reader = self._reader()
        talk.wire = talk.reader
        talk.wire.begin("BEGIN")
        self._open.append(talk)
        try:
            result = await self._drive(talk, lambda: query(talk))
            self._break_or(talk, "db.error")
        finally:
            self._end(talk)
        return result

    async def _drive(self, talk: _Conversation, work: Callable[[], Any]) -> Any:
        """Run *work* in a greenlet; what it wants to wait for is waited for here."""
        runner = greenlet(work)
        runner.gr_context = copy_context()
        wanted = runner.switch()
        while not runner.dead:
            try:
                await wanted
            except Exception as error:  # noqa: BLE001  # it belongs to the statement that waited
                wanted = runner.throw(error)
                continue
            wanted = runner.throw(Broken("the server ended the connection")) if talk.is_broken else runner.switch()
        return wanted

    def _break_or(self, talk: _Conversation, fault: str) -> None:
        if talk.is_broken or self._weather.is_down("database"):
            raise Broken("the server ended the connection")
        if self._weather.strikes(fault):
            raise Broken("connection reset")

    def _commit(self, talk: _Conversation) -> None:
        if talk.wire is None:
            return
        talk.wire.commit()
        if talk.changes_capacity:
            self._note_capacities()

    def _end(self, talk: _Conversation) -> None:
        """Roll back what was not committed, and let the next one have the lock."""
        if talk in self._open:
            self._open.remove(talk)
        if talk.reader is not None:
            talk.reader.finish()
            self._idle.append(talk.reader)
            if talk.wire is talk.reader:
                talk.wire = None
            talk.reader = None
        if self._holder is talk:
            self._writer.finish()
            self._holder = None
            self._next()
        talk.wire = None

    # What a statement meets

    def point(self, talk: _Conversation) -> None:
        """Let time pass before a statement, now and then, and break the connection when it is to break."""
        self.statements += 1
        talk.said_at = self._loop.time()
        if self._weather.strikes("db.statement"):
            raise Broken("connection reset")
        if self._weather.strikes("db.crash"):
            talk.process.kill()
            raise Broken("its client is dead")
        if self._weather.strikes("db.stall"):
            self._stall(talk.process)
            _wait(asyncio.sleep(0))
        if self._dice.random() < _POINT:
            _wait(asyncio.sleep(_PAUSE * self._dice.random()))

    def _stall(self, process: Process) -> None:
        """Have a process stand still in the middle of its transaction."""
        process.freeze()
        self._loop.call_later(self._dice.choice((0.5, 4.0, 15.0)), process.thaw, context=self._outer)

    def lock(self, talk: _Conversation) -> None:
        """Have the writer to oneself from here on."""
        if self._holder is not None:
            _wait(self._queue(talk))
        self._holder = talk
        talk.said_at = self._loop.time()
        talk.wire = self._writer
        self._writer.begin("BEGIN IMMEDIATE")

    async def _queue(self, talk: _Conversation) -> None:
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append((talk, turn))
        try:
            async with asyncio.timeout(LOCK_TIMEOUT):
                await turn
        except TimeoutError:
            if self._holder is talk:
                return
            if (talk, turn) in self._waiting:
                self._waiting.remove((talk, turn))
            self._weather.count("db.lock_timeout")
            self._end_idle()
            raise Broken("lock timeout") from None

    def _next(self) -> None:
        while self._waiting and self._holder is None:
            talk, turn = self._waiting.popleft()
            if not turn.done():
                self._holder = talk
                talk.said_at = self._loop.time()
                turn.set_result(None)

    def _end_idle(self) -> None:
        holder = self._holder
        if holder is not None and self._loop.time() - holder.said_at > IDLE_IN_TRANSACTION:
            self._weather.count("db.idle_in_transaction")
            self._abort(holder)

    def _abort(self, talk: _Conversation) -> None:
        talk.is_broken = True
        self._end(talk)

    def leave(self, process: Process) -> None:
        self._waiting = deque(one for one in self._waiting if one[0].process is not process)
        for talk in [one for one in self._open if one.process is process]:
            self._abort(talk)

    def break_all(self) -> None:
        """Restart: every connection breaks, and nothing that was committed is lost."""
        self.restarts += 1
        for talk in list(self._open):
            self._abort(talk)

    def some_locked(self, found: Traits, answer: Answer) -> Answer:
        """Leave out rows that somebody else might hold, where the statement says that it can do without."""
        if found.skips_locked and len(answer.all()) and self._weather.strikes("db.skip_locked"):
            return answer.without(self._dice)
        return answer

    # Odds and ends

    def _reader(self) -> Wire:
        return self._idle.pop() if self._idle else self.file.connect()

    def _note_capacities(self) -> None:
        rows = self._writer.raw.execute("SELECT key, capacity FROM limits WHERE key LIKE 'slots:%' ORDER BY key")
        for key, capacity in rows.fetchall():
            if self._known.get(key, -1) != capacity:
                self._known[key] = capacity
                self.capacities.append((last_event(self._writer.raw), key, capacity))


def _wait(work: Any) -> None:
    """Wait for *work*, from inside of a greenlet."""
    parent = getcurrent().parent
    assert parent is not None
    parent.switch(work)
