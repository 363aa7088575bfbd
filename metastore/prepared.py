"""SQLite's short way: statements that come again and again go to the driver past SQLAlchemy's execution layer.

That layer is most of what a statement costs, and the end of an attempt has a dozen of them (``bench/README.md`` has
the figures).  SQLAlchemy still writes the SQL and converts every value; only what it does anew at each execution (cache
keys, contexts, result objects) is done once.  A statement is prepared when the same object comes a second time, so that
what is put together for one call takes the usual way.
"""

from __future__ import annotations

from collections import namedtuple
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from weakref import WeakValueDictionary

from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BindParameter
from sqlalchemy.sql.visitors import iterate

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler

#: More statements than this release has; a bound all the same.
_MOST: Final = 2_000


class _Slot(NamedTuple):
    """One ``?`` of a statement."""

    name: str
    #: What stands there when the call names nothing.
    default: Any
    required: bool
    convert: Callable[[Any], Any] | None


class Answer:
    """What a prepared statement gives: the part of SQLAlchemy's result that commands and queries use."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
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

    def scalars(self) -> list[Any]:
        return [row[0] for row in self._rows]


class _Prepared:
    """One statement, written for one set of parameter names."""

    __slots__ = ("_converts", "_make", "_many", "_slots", "_sql")

    def __init__(self, statement: Any, names: Sequence[str], dialect: Dialect) -> None:
        keys = list(names) if isinstance(statement, UpdateBase) else None
        compiled = cast("SQLCompiler", statement.compile(dialect=dialect, column_keys=keys))
        self._sql = compiled.string
        binds = compiled.binds
        converts = compiled._bind_processors  # noqa: SLF001  # what Connection.execute uses as well
        self._slots = [
            _Slot(name, binds[name].effective_value, binds[name].required, cast("Any", converts.get(name)))
            for name in compiled.positiontup or ()
        ]
        columns = compiled._result_columns  # noqa: SLF001  # as above
        self._converts = [
            (at, convert)
            for at, column in enumerate(columns)
            if (convert := column.type._cached_result_processor(dialect, None)) is not None  # noqa: SLF001  # as above
        ]
        self._make: Any = None
        if columns:
            # Not NamedTuple: the names are those of the SQL.
            shape: Any = namedtuple("Row", [column.keyname for column in columns], rename=True)  # type: ignore[misc]  # noqa: PYI024
            self._make = shape._make

    def values(self, given: Mapping[str, Any]) -> list[Any]:
        """Return the values in the order of the SQL, converted for the driver."""
        values = []
        for name, default, required, convert in self._slots:
            value = given[name] if required or name in given else default
            values.append(value if convert is None else convert(value))
        return values

    def execute(self, raw: sqlite3.Connection, given: Any) -> Answer:
        if isinstance(given, list):
            cursor = raw.executemany(self._sql, [self.values(row) for row in given])
            return Answer([], cursor.rowcount)
        cursor = raw.execute(self._sql, self.values(given))
        if self._make is None:
            return Answer([], cursor.rowcount)
        rows = cursor.fetchall()
        if self._converts:
            rows = [self._converted(row) for row in rows]
        make = self._make
        return Answer([make(row) for row in rows], cursor.rowcount)

    def _converted(self, row: tuple[Any, ...]) -> list[Any]:
        values = list(row)
        for at, convert in self._converts:
            values[at] = convert(values[at])
        return values


class Prepared:
    """All statements of one thread's connection; stands where a :class:`~sqlalchemy.Connection` is asked for."""

    def __init__(self, conn: Connection, raw: sqlite3.Connection) -> None:
        self._conn = conn
        self._raw = raw
        self.dialect = conn.dialect
        #: None where the SQL depends on the values: always the usual way.
        self._prepared: dict[tuple[int, tuple[str, ...]], _Prepared | None] = {}
        self._kept: dict[int, Any] = {}  # an id must not be given to another statement
        self._seen: WeakValueDictionary[int, Any] = WeakValueDictionary()

    def __getattr__(self, name: str) -> Any:
        """Everything else is the connection's own."""
        return getattr(self._conn, name)

    def execute(self, statement: Any, given: Any = None) -> Any:
        """Execute *statement*; the first time through SQLAlchemy, from then on straight."""
        first = given[0] if isinstance(given, list) else given
        names = tuple(first) if first else ()
        key = (id(statement), names)
        if key not in self._prepared:
            if self._seen.get(key[0]) is not statement or len(self._prepared) >= _MOST:
                self._seen[key[0]] = statement
                return self._conn.execute(statement, given)
            self._kept[key[0]] = statement
            self._prepared[key] = None if _expands(statement) else _Prepared(statement, names, self.dialect)
        prepared = self._prepared[key]
        if prepared is None:
            return self._conn.execute(statement, given)
        return prepared.execute(self._raw, given or {})


def _expands(statement: Any) -> bool:
    """Whether the SQL of *statement* depends on how many values a parameter has."""
    return any(isinstance(part, BindParameter) and part.expanding for part in iterate(statement))
