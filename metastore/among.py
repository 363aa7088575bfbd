"""``column IN (a list)`` as one SQL text however long the list is: ``= ANY`` on Postgres, ``json_each`` on SQLite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import ARRAY, BigInteger, Boolean, ColumnElement, Text, TypeDecorator, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.visitors import InternalTraversal

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


class _List(TypeDecorator[Any]):
    """A list in one parameter."""

    impl = Text
    cache_ok = True

    def __init__(self, item: type[TypeEngine[Any]]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Text())
        return dialect.type_descriptor(ARRAY(self.item))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return json.dumps(list(value)) if dialect.name == "sqlite" else list(value)


class Among(ColumnElement[bool]):
    """Whether *column* is one of the values of the parameter *name*."""

    # Without these SQLAlchemy would compile every statement with an Among anew at every execution.
    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012  # SQLAlchemy declares it, and never changes it
        ("column", InternalTraversal.dp_clauseelement),
        ("values", InternalTraversal.dp_clauseelement),
    ]
    # A condition as it stands: SQLite has no booleans, and SQLAlchemy would compare the whole with 1.
    _is_implicitly_boolean = True
    type = Boolean()
    __visit_name__ = "among"

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        item = BigInteger if isinstance(column.type, BigInteger) or column.type.python_type is int else Text
        self.column = column
        self.values = bindparam(name, type_=_List(item))

    def get_children(self, **_: Any) -> list[Any]:
        return [self.column, self.values]

    @property
    def _from_objects(self) -> Any:
        return self.column._from_objects  # noqa: SLF001  # SQLAlchemy's hook for an element's tables


def among(column: Any, name: str) -> ColumnElement[bool]:
    """Return the condition that *column* is one of the values of the parameter *name*."""
    return Among(column, name)


@compiles(Among, "sqlite")
def _sqlite(element: Among, compiler: Any, **kw: Any) -> str:
    column, values = compiler.process(element.column, **kw), compiler.process(element.values, **kw)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608  # a column's name and a placeholder


@compiles(Among, "postgresql")
def _postgresql(element: Among, compiler: Any, **kw: Any) -> str:
    return f"{compiler.process(element.column, **kw)} = ANY({compiler.process(element.values, **kw)})"
