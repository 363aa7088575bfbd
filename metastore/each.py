"""Writes of several rows each, and several of them in one go.

On SQLite a statement costs microseconds, and each write is an ``executemany``.  On Postgres it costs a round trip under
the run's lock.  So writes that do not read each other are put into one statement there: each is a CTE over arrays, one
for each value, with an element for each row.  Such a statement sees everything as it was before (PostgreSQL manual,
7.8.4 "Data-Modifying Statements in WITH"), so no row may be changed by two of its writes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import ARRAY, bindparam, column, func, insert, literal_column, select

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement, Table, Update
    from sqlalchemy.types import TypeEngine

    from metastore.store import Tx

_ONE: Final[ColumnElement[Any]] = literal_column("1")


class Superseded(Exception):
    """A compare-and-set found nothing under the run's lock: the code is wrong, or somebody edited the tables."""


class Write:
    """A statement for each of several rows; *types* are those of their values, *what* names them in an error."""

    def __init__(self, what: str, types: Mapping[str, Any], one: Any) -> None:
        self.what = what
        self._types = types
        #: For one row; each value is a parameter.
        self.one = one

    def over_arrays(self, prefix: str) -> Any:
        """Return the same as a CTE over arrays, whose parameters begin with *prefix*; a row for each one done."""
        raise NotImplementedError

    def arrays(self, prefix: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the parameters of :meth:`over_arrays` for *rows*."""
        return {f"{prefix}{name}": [row[name] for row in rows] for name in self._types}


class Each(Write):
    """An UPDATE for each of several rows, which it finds by their primary key and compares with what was read.

    *build* gets a function that returns what stands for the value of a name, and returns the statement.
    """

    def __init__(
        self,
        what: str,
        types: Mapping[str, TypeEngine[Any] | type[TypeEngine[Any]]],
        build: Callable[[Callable[[str], ColumnElement[Any]]], Update],
    ) -> None:
        super().__init__(what, types, build(lambda name: bindparam(name, type_=types[name])))
        self._build = build

    def over_arrays(self, prefix: str) -> Any:
        values = _unnested(self._types, prefix)
        return self._build(lambda name: values.c[name]).returning(_ONE).cte(f"{prefix}done")


class EachNew(Write):
    """An INSERT of several rows with values for *columns*; they are numbered in their order."""

    def __init__(self, what: str, table: Table, columns: Sequence[str]) -> None:
        super().__init__(what, {name: table.c[name].type for name in columns}, insert(table).inline())
        self._table = table

    def over_arrays(self, prefix: str) -> Any:
        values = _unnested(self._types, prefix)
        rows = select(*(values.c[name] for name in self._types))
        return insert(self._table).from_select(list(self._types), rows).returning(_ONE).cte(f"{prefix}done")


def write(tx: Tx, *writes: tuple[Write, Sequence[Mapping[str, Any]]]) -> None:
    """Do *writes*, in any order; raise :exc:`Superseded` where one did not find each of its rows."""
    due = [(each, rows) for each, rows in writes if rows]
    if not tx.postgres:
        for each, rows in due:
            expect(tx.conn.execute(each.one, list(rows)).rowcount, len(rows), each.what)
    elif due:
        values: dict[str, Any] = {}
        for number, (each, rows) in enumerate(due):
            values |= each.arrays(f"w{number}_", rows)
        done = tx.conn.execute(together(tuple(each for each, _ in due)), values).one()
        for (each, rows), count in zip(due, done, strict=True):
            expect(count, len(rows), each.what)


def expect(rowcount: int, wanted: int, what: str) -> None:
    """Look at the row count of a compare-and-set that the run's lock makes certain."""
    if rowcount != wanted:
        raise Superseded(f"{what}: {rowcount} rows changed, {wanted} expected")


@cache  # by identity: all of them are made at import, and few of their combinations occur
def together(writes: tuple[Write, ...]) -> Any:
    """Return one statement for Postgres that does all *writes*, and answers how many rows each of them has done."""
    done = [each.over_arrays(f"w{number}_") for number, each in enumerate(writes)]
    return select(*(select(func.count()).select_from(one).scalar_subquery() for one in done))


def _unnested(types: Mapping[str, Any], prefix: str) -> Any:
    arrays = [bindparam(f"{prefix}{name}", type_=ARRAY(type_, dimensions=1)) for name, type_ in types.items()]
    columns = [column(name, type_) for name, type_ in types.items()]
    return func.unnest(*arrays).table_valued(*columns, name=f"{prefix}rows").render_derived()
