"""What all tables share: one metadata with named constraints, and column types that mean the same on both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, MetaData, Text, TypeDecorator
from sqlalchemy.ext.compiler import compiles

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

#: Every constraint has a name, so that a migration can drop it.
metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """A moment: ``timestamptz`` on Postgres, integer microseconds since 1970 on SQLite; aware and UTC in Python."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Integer())
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return (value - _EPOCH) // _MICRO

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None or dialect.name != "sqlite":
            return value  # type: ignore[no-any-return]  # asyncpg gives aware datetimes
        return _EPOCH + timedelta(microseconds=value)


class Json(TypeDecorator[Any]):
    """A JSON value, stored as text as it was given: no database reads inside it, and the bytes stay the author's."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002  # the interface's
        return None if value is None else json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002  # the interface's
        return None if value is None else json.loads(value)


@compiles(BigInteger, "sqlite")
@compiles(Boolean, "sqlite")
def _strict(_type: TypeEngine[Any], _compiler: Any, **_: Any) -> str:
    """SQLite's STRICT tables refuse BIGINT and BOOLEAN; every whole number there has 64 bits."""
    return "INTEGER"


def identity() -> Column[int]:
    """Return the primary key of a table whose rows are numbered; SQLite's rowid, Postgres' identity."""
    return Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def in_states(column: str, states: Any) -> str:
    """Return the CHECK that *column* holds one of *states*."""
    return f"{column} IN ({', '.join(repr(str(s)) for s in states)})"
