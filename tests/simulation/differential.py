"""The model beside the real commands: the same random steps, the same answers, the same state after each."""

from __future__ import annotations

import random
from datetime import timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import text

from dag.errors import RunyardError
from metastore.plans import PlanCache
from metastore.records import TaskRecord
from metastore.store import Tx
from scheduler.decide import Snapshot
from tests.simulation.chance import EPOCH, SimEntropy
from tests.simulation.memory import TWINS
from tests.simulation.model import canonical
from tests.simulation.model.driver import Driver
from tests.simulation.model.rows import Metastore, ModelTx
from tests.simulation.sqlite import SqliteFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tests.simulation.model.driver import Step

_COUNT_ROWS = text("SELECT setval(pg_get_serial_sequence('runs', 'id'), (SELECT count(*) + 1 FROM runs), false)")


class Real(Protocol):
    """A database with the product's own tables, and commands run at a time that the test says."""

    async def perform(self, now: datetime, entropy: SimEntropy, work: Callable[[Any], Any]) -> Any:
        """Run *work* in a transaction; it is rolled back where it raises."""
        ...


class RealSqlite:
    """SQLite."""

    def __init__(self) -> None:
        self._file = SqliteFile()
        self._wire = self._file.connect()
        self._plans = PlanCache()

    async def perform(self, now: datetime, entropy: SimEntropy, work: Callable[[Any], Any]) -> Any:
        conn: Any = self._wire
        self._wire.begin("BEGIN IMMEDIATE")
        try:
            tx = Tx(conn=conn, now=now, entropy=entropy, plans=self._plans)
            result = work(tx)
            tx.finish()
            self._wire.commit()
        finally:
            self._wire.finish()
        return result

    def close(self) -> None:
        self._file.close()


class RealPostgres:
    """Postgres, over an engine of SQLAlchemy's."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._plans = PlanCache()

    async def perform(self, now: datetime, entropy: SimEntropy, work: Callable[[Any], Any]) -> Any:
        def body(conn: Any) -> Any:
            tx = Tx(conn=conn, now=now, entropy=entropy, plans=self._plans)
            result = work(tx)
            tx.finish()
            return result

        async with self._engine.begin() as conn:
            # A number is spent on a run that turns out to be there, or is rolled back; the model counts rows.
            await conn.execute(_COUNT_ROWS)
            return await conn.run_sync(body)


async def compare(seed: int, steps: int, real: Real, *, look_every: int = 1) -> int:
    """Take *steps* random steps on both; raise AssertionError where they differ, return how many did something."""
    dice = random.Random(f"differential/{seed}")  # noqa: S311  # repeatable is the point
    data = Metastore()
    driver = Driver(data, dice)
    ours, theirs = (SimEntropy(random.Random(seed)) for _ in range(2))  # noqa: S311  # as above
    now = EPOCH
    seen = last = did = 0
    for number in range(steps):
        now += timedelta(milliseconds=dice.choice((1, 10, 300, 2_000, 9_000)))
        step = driver.step(now)
        tx = ModelTx(data, now, ours, TWINS)
        modelled = _outcome(lambda: _twin(step)(tx, *step[1], **step[2]))  # noqa: B023  # called at once
        did += modelled[0] == "returned"
        told = f"seed {seed}, step {number}: {step[0].__name__}{step[1]} {step[2]}"

        def work(tx: Tx) -> Any:
            function, args, kwargs = step  # noqa: B023  # called at once
            given = tx.conn if _is_query(function) else tx
            return _outcome_or_raise(lambda: function(given, *args, **kwargs))

        try:
            found = await real.perform(now, theirs, work)
        except _Refused as refusal:
            found = refusal.outcome
        if _shown(found) != _shown(modelled):
            raise AssertionError(f"{told}\n  real:  {_shown(found)}\n  model: {_shown(modelled)}")
        if number % look_every == 0:
            state, last, events = await real.perform(now, theirs, lambda tx: _look(tx.conn, last))  # noqa: B023  # called before the loop goes on
            _same(state, canonical.of_model(data), told)
            expected = canonical.events_of_model(data, seen)
            if events != expected:
                only = [one for one in events if one not in expected], [one for one in expected if one not in events]
                raise AssertionError(f"{told}\nevents:\n  real:  {only[0]}\n  model: {only[1]}")
            seen = len(data.events)
    return did


def _twin(step: Step) -> Callable[..., Any]:
    return TWINS[step[0].__name__]


def _is_query(function: Callable[..., Any]) -> bool:
    """Whether *function* wants a connection, not a transaction."""
    return next(iter(function.__annotations__)) == "conn"


class _Refused(Exception):
    def __init__(self, outcome: tuple[str, Any]) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def _outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    try:
        return "returned", call()
    except RunyardError as error:
        return type(error).__name__, str(error)


def _outcome_or_raise(call: Callable[[], Any]) -> tuple[str, Any]:
    """As above, and have the transaction rolled back."""
    found = _outcome(call)
    if found[0] != "returned":
        raise _Refused(found)
    return found


def _look(conn: Any, after: int) -> tuple[canonical.State, int, list[tuple[Any, ...]]]:
    last, events = canonical.events_of_tables(conn, after)
    return canonical.of_tables(conn), last, events


def _shown(outcome: tuple[str, Any]) -> tuple[str, Any]:
    """Return an outcome without the order that nobody promises."""
    kind, value = outcome
    if isinstance(value, Snapshot):
        return kind, {name: sorted(getattr(value, name)) for name in Snapshot.__slots__}
    return (kind, [_shown_one(one) for one in value]) if isinstance(value, list) else outcome


def _shown_one(value: Any) -> Any:
    if isinstance(value, Exception):
        return type(value).__name__, str(value)
    if isinstance(value, TaskRecord):  # its counters are not kept once it has been decided
        return {name: getattr(value, name) for name in TaskRecord.__slots__ if not name.startswith("n_")}
    return value


def _same(state: canonical.State, modelled: canonical.State, told: str) -> None:
    for table, rows in state.items():
        if rows == modelled[table]:
            continue
        pairs = zip_longest(rows, modelled[table]) if isinstance(rows, list) else [(rows, modelled[table])]
        for row, model in pairs:
            if row != model:
                raise AssertionError(f"{told}\n{table}:\n{_difference(row, model)}")


def _difference(row: Any, model: Any) -> str:
    if not isinstance(row, dict) or not isinstance(model, dict):
        return f"  real:  {row}\n  model: {model}"
    names = [name for name in row if row[name] != model.get(name)] + [name for name in model if name not in row]
    return f"  {row}\n" + "\n".join(f"  {name}: real {row.get(name)!r}, model {model.get(name)!r}" for name in names)
