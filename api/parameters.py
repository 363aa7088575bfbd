"""What params a DAG takes: known from memory, so that a trigger is one write and no read.

What is remembered may be old.  It is only a guess of the current version: the trigger compares the version that its run
was pinned to with the one its params were checked against, and begins again when they differ.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dag import params as dag_params
from dag.errors import NotFound, RunyardError
from metastore.queries import dags

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metastore.store import Store

_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class Checked:
    """Params of one trigger, checked against one version."""

    version: int
    content_hash: str
    #: Complete, with defaults; empty where *wrong* says what is wrong with them.
    params: dict[str, Any]
    wrong: RunyardError | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    version: int
    content_hash: str
    schema: Mapping[str, Any] | None


class ParameterSchemas:
    """The params schemas of the DAGs that are triggered, the least recently used go first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._current: OrderedDict[str, _Known] = OrderedDict()

    async def check(self, dag_id: str, version: int | None, given: Mapping[str, Any]) -> Checked:
        """Return *given* checked for *version* (None: the current one, as far as is known)."""
        known = self._current.get(dag_id)
        checked: Checked | None = None
        if known is not None and version in (None, known.version):
            self._current.move_to_end(dag_id)
            checked = await _applied(known, given)
            if checked.wrong is None:
                return checked
        # Unknown, or refused by what may be old: look before anything is refused.
        found = await self._read(dag_id, version)
        if isinstance(found, RunyardError):
            return Checked(0, "", {}, found)
        if checked is not None and (checked.version, checked.content_hash) == (found.version, found.content_hash):
            return checked
        return await _applied(found, given)

    def forget(self, dag_id: str) -> None:
        """Read the DAG again next time: it was changed."""
        self._current.pop(dag_id, None)

    async def _read(self, dag_id: str, version: int | None) -> _Known | RunyardError:
        found = await self._store.read(_version, dag_id, version)
        if isinstance(found, RunyardError) or version is not None:
            return found
        self._current[dag_id] = found
        if len(self._current) > _REMEMBERED:
            self._current.popitem(last=False)
        return found


async def _applied(known: _Known, given: Mapping[str, Any]) -> Checked:
    """Check *given* where it stalls nobody: a schema may ask for a second of work, and its author is not its victim."""
    if known.schema is None:
        return _apply(known, given)
    return await asyncio.to_thread(_apply, known, given)


def _apply(known: _Known, given: Mapping[str, Any]) -> Checked:
    try:
        complete = dag_params.apply(known.schema, given)
    except RunyardError as wrong:
        return Checked(known.version, known.content_hash, {}, wrong)
    return Checked(known.version, known.content_hash, complete)


def _version(conn: Any, dag_id: str, version: int | None) -> _Known | RunyardError:
    dag = dags.get(conn, dag_id)
    if dag is None:
        return NotFound("DAG", dag_id)
    record = dags.document(conn, dag_id, version or dag.version)
    if record is None:
        return NotFound("DAG version", f"{dag_id}/{version}")
    return _Known(record.version, record.content_hash, record.document.get("params"))
