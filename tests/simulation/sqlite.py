"""SQLite under the simulation: a file in memory, connections to it, and what is known of each statement."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.dml import Insert, Update, UpdateBase

from metastore import models
from metastore.models import agents, attempts, dags, events, keys, limits, runs, service
from metastore.models.base import metadata
from metastore.prepared import Answer as PreparedAnswer
from metastore.prepared import _expands, _Prepared

if TYPE_CHECKING:
    import random

    from sqlalchemy import Connection, Dialect, Engine

#: All modules of tables: importing them is what puts the tables into the metadata.
TABLES: Final = (models, agents, attempts, dags, events, keys, limits, runs, service)
_PRAGMAS: Final = ("journal_mode = WAL", "synchronous = OFF", "foreign_keys = ON", "temp_store = MEMORY")


@dataclass(frozen=True, slots=True)
class Traits:
    """What a statement is."""

    #: It writes, or locks what it reads.
    locks: bool
    skips_locked: bool
    #: It may change how much a limit has.
    changes_capacity: bool


#: By identity; the statement is kept, so that its number is not given to another one.
_known: dict[int, tuple[Any, Traits]] = {}


def traits(statement: Any) -> Traits:
    found = _known.get(id(statement))
    if found is None:
        found = _known[id(statement)] = (statement, _traits_of(statement))
    return found[1]


def _traits_of(statement: Any) -> Traits:
    if isinstance(statement, UpdateBase):
        on_limits = cast("Any", statement).table.name == "limits"
        changes = on_limits and (isinstance(statement, Insert) or _sets(statement, "capacity"))
        return Traits(locks=True, skips_locked=False, changes_capacity=changes)
    clause = getattr(statement, "_for_update_arg", None)
    return Traits(
        locks=clause is not None,
        skips_locked=bool(clause is not None and clause.skip_locked),
        changes_capacity=False,
    )


def _sets(statement: Any, name: str) -> bool:
    values = statement._values if isinstance(statement, Update) else None
    return values is not None and any(getattr(column, "name", column) == name for column in values)


class Answer:
    """The rows of a statement; like the product's own, and rows can be left out of it."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def without(self, dice: random.Random) -> Answer:
        """Return an answer in which some rows are missing."""
        return Answer([row for row in self._rows if dice.random() < 0.5], self.rowcount)

    def __iter__(self) -> Any:
        return iter(self._rows)

    def all(self) -> list[Any]:
        return self._rows

    def first(self) -> Any:
        return self._rows[0] if self._rows else None

    def one(self) -> Any:
        (row,) = self._rows
        return row

    def scalar(self) -> Any:
        return self._rows[0][0] if self._rows else None

    def scalar_one(self) -> Any:
        return self.one()[0]

    def scalars(self) -> Any:
        return [row[0] for row in self._rows]


class Wire:
    """One connection."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw
        self.dialect = _dialect()
        self._plain: Connection | None = None

    def close(self) -> None:
        if self._plain is not None:
            self._plain.close()
        self.raw.close()

    def begin(self, how: str) -> None:
        self.raw.execute(how)

    def commit(self) -> None:
        self.raw.execute("COMMIT")

    def finish(self) -> None:
        """Throw away what is not committed."""
        if self.raw.in_transaction:
            self.raw.execute("ROLLBACK")

    def execute(self, statement: Any, given: Any = None) -> Answer:
        first = given[0] if isinstance(given, list) else given
        prepared = _prepared(statement, tuple(first) if first else ())
        if prepared is None:
            return self._usual(statement, given)
        answer: PreparedAnswer = prepared.execute(self.raw, given or {})
        return Answer(answer.all(), answer.rowcount)

    def _usual(self, statement: Any, given: Any) -> Answer:
        """Execute what is put together for one call, through all of SQLAlchemy."""
        if self._plain is None:
            self._plain = _usual(self.raw)
        result = self._plain.execute(statement, given)
        return Answer(list(result.all()) if result.returns_rows else [], result.rowcount)


#: SQL texts, written once in this interpreter whichever connection runs them.
_texts: dict[tuple[int, tuple[str, ...]], tuple[Any, _Prepared | None]] = {}


def _prepared(statement: Any, names: tuple[str, ...]) -> _Prepared | None:
    key = (id(statement), names)
    found = _texts.get(key)
    if found is None:
        text = None if _expands(statement) else _Prepared(statement, names, _dialect())
        found = _texts[key] = (statement, text)
    return found[1]


_adopted: list[sqlite3.Connection] = []


@cache
def _engine() -> Engine:
    """Return the engine of all wires; it has met a connection, and rolls back none of those that come now."""
    _adopted.append(sqlite3.connect(":memory:", isolation_level=None))
    engine = create_engine("sqlite://", creator=_adopted.pop, poolclass=NullPool)
    engine.connect().close()
    return engine


def _usual(raw: sqlite3.Connection) -> Connection:
    engine = _engine()
    _adopted.append(raw)
    return engine.connect()


def _dialect() -> Dialect:
    return _engine().dialect


@cache
def _template() -> bytes:
    """Return an empty database."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=NullPool)
    with engine.connect() as conn:
        metadata.create_all(conn)
        conn.commit()
        return raw.serialize()


class SqliteFile:
    """A database of one seed; in memory where the system has a file system there."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108  # a private folder is made in it
        self._folder = Path(mkdtemp(prefix="runyard-sim-", dir=memory if memory.is_dir() else None))
        self._path = self._folder / "db"
        self._path.write_bytes(_template())
        self._wires: list[Wire] = []
        self.dialect = _dialect()

    def connect(self) -> Wire:
        raw = sqlite3.connect(self._path, isolation_level=None, cached_statements=512, check_same_thread=False)
        for pragma in _PRAGMAS:
            raw.execute(f"PRAGMA {pragma}").close()
        wire = Wire(raw)
        self._wires.append(wire)
        return wire

    def close(self) -> None:
        for wire in self._wires:
            wire.close()
        shutil.rmtree(self._folder, ignore_errors=True)
