"""The one way in: a store runs commands in write transactions and queries on snapshots.

A command is a plain function ``def f(tx: Tx, …)`` and a query ``def f(conn: Connection, …)``; both are synchronous,
with statements built once at import.  On SQLite they run on threads (one writer), on Postgres inside
``AsyncConnection.run_sync``.  There is no await inside a transaction, so nothing but the database can stand between two
statements.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Concatenate, Final, Literal, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

    from dag.plan import Plan
    from dag.world import Entropy
    from metastore.each import Write

P = ParamSpec("P")
T = TypeVar("T")

#: How often at most a check tries to write after a write that failed.
PROBE_EVERY: Final = 3.0

#: What a hint may be about: ``runs`` (a run may start), ``due`` (an instance has to be looked at, now or at a new
#: time), ``ready`` (an instance waits for a slot), ``stop`` (an attempt was asked to stop), ``run:<id>`` (that run
#: has new events), or ``ended:<id>`` (that run has ended).
Topic = str


class Plans(Protocol):
    """Compiled DAG versions; immutable, so they are kept in memory."""

    def get(self, conn: Connection, dag_id: str, version: int, content_hash: str) -> Plan:
        """Return the plan of one version, from memory or from its stored document."""
        ...


@dataclass(slots=True)
class Tx:
    """A write transaction, as a command sees it."""

    conn: Connection
    #: Database time (Postgres: ``clock_timestamp()`` at the first statement; SQLite: the one service's clock).
    now: datetime
    entropy: Entropy
    plans: Plans
    #: What to tell others about once the COMMIT has returned; never told when it has not.
    topics: set[Topic] = field(default_factory=set)
    #: What is written with the end of the turns (``metastore/each.py``): nothing reads it before.
    due: list[tuple[Write, Sequence[Mapping[str, Any]]]] = field(default_factory=list)
    #: Numbers what happens, so that the log of several runs has the order of its causes.
    happened: Iterator[int] = field(default_factory=count)

    def finish(self) -> None:
        """Raise an error before the COMMIT where something is still due: whoever admits has to close the turns."""
        if self.due:
            msg = f"{len(self.due)} writes were left: the turns were not closed."
            raise RuntimeError(msg)

    @property
    def postgres(self) -> bool:
        """Whether row locks exist here; on SQLite the one writer is the lock."""
        return self.conn.dialect.name == "postgresql"


class Subscription(Protocol):
    """A level-triggered flag: set by any of its topics, cleared by waiting."""

    async def wait(self, timeout: float | None) -> bool:  # noqa: ASYNC109  # a deadline is part of the promise
        """Return True when a topic was told since the last wait, False after *timeout* seconds."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """A metastore."""

    dialect: Literal["sqlite", "postgresql"]

    async def write(self, command: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *command* in one write transaction and return its result once the COMMIT has returned.

        The transaction goes on when the caller is cancelled.  After a lost connection, a deadlock or a serialization
        failure the whole command runs again in a fresh transaction, also when the reply to COMMIT was lost: a command
        must be safe to run twice with the same arguments.  Raises :exc:`~dag.errors.Unavailable` when the database
        cannot be reached.
        """
        ...

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run *query* on one snapshot and return its result."""
        ...

    async def check(self) -> None:
        """Raise :exc:`~dag.errors.Unavailable` when the database takes no writes.

        Costs nothing while writes succeed: only after one that failed does it write, and that not more often than every
        :data:`PROBE_EVERY` seconds.
        """
        ...

    def subscribe(self, *topics: Topic) -> Subscription:
        """Listen to hints.  A hint may be lost; whoever waits looks again after a while."""
        ...

    async def close(self) -> None: ...
