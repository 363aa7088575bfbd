"""Accepting runs.  Triggering inserts only the run's row; its instances are the scheduler's to create."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from dag.errors import AlreadyExists, NotFound
from dag.states import RunState
from metastore.models.dags import dag_versions, dags
from metastore.models.events import events
from metastore.models.runs import run_labels, runs
from metastore.queries.runs import get as get_run
from metastore.records import RunRecord

if TYPE_CHECKING:
    from datetime import datetime

    from metastore.store import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be accepted; *params* are checked and complete."""

    dag_id: str
    run_id: str
    #: Random, one per request: a transaction that runs again after a lost reply finds its own row by it.
    request_id: str
    params: dict[str, Any]
    logical_date: datetime | None
    run_after: datetime
    actor: str
    run_type: str = "manual"
    #: None is the current version.
    version: int | None = None
    data_interval_start: datetime | None = None
    data_interval_end: datetime | None = None
    labels: dict[str, str] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True, slots=True)
class RunCreated:
    """The accepted run, and what its caller should know."""

    run: RunRecord
    #: Codes: ``dag_paused``, ``run_after_in_future``.
    warnings: tuple[str, ...]


# FOR KEY SHARE: triggers do not wait for one another, and the DAG cannot be deleted beneath them.  The version is a
# statement of its own: after waiting for a PUT, the first one sees the new version's number but not yet its row.
_DAG: Final = (
    select(dags.c.version, dags.c.paused)
    .where(dags.c.dag_id == bindparam("dag_id"))
    .with_for_update(read=True, key_share=True)
)
_HASH: Final = select(dag_versions.c.content_hash).where(
    dag_versions.c.dag_id == bindparam("dag_id"), dag_versions.c.version == bindparam("version")
)
_ADD: Final = {
    "sqlite": sqlite.insert(runs).on_conflict_do_nothing(index_elements=["dag_id", "run_id"]).returning(runs.c.id),
    "postgresql": postgresql.insert(runs)
    .on_conflict_do_nothing(index_elements=["dag_id", "run_id"])
    .returning(runs.c.id),
}
_ADD_LABELS: Final = insert(run_labels)
_ADD_EVENT: Final = insert(events).inline()


def create_run(tx: Tx, new: NewRun) -> RunCreated:
    """Accept a run.

    Raises :exc:`NotFound` for a DAG or version that does not exist and :exc:`AlreadyExists` for a ``run_id`` that
    another request has taken.
    """
    version, content_hash, paused = _dag(tx, new)
    row = {
        "dag_id": new.dag_id,
        "run_id": new.run_id,
        "version": version,
        "content_hash": content_hash,
        "run_type": new.run_type,
        "state": RunState.QUEUED.value,
        "params": new.params,
        "labels": new.labels,
        "note": new.note,
        "logical_date": new.logical_date,
        "data_interval_start": new.data_interval_start,
        "data_interval_end": new.data_interval_end,
        "run_after": new.run_after,
        "queued_at": tx.now,
        "seq": 1,
        "request_id": new.request_id,
        "created_by": new.actor,
    }
    warnings = _warnings(tx, new, paused=paused)
    number = tx.conn.execute(_ADD[tx.conn.dialect.name], row).scalar()
    if number is None:
        there = get_run(tx.conn, new.dag_id, new.run_id)
        if there is None or there.request_id != new.request_id:
            raise AlreadyExists("run", f"{new.dag_id}/{new.run_id}")
        return RunCreated(there, warnings)
    if new.labels:
        tx.conn.execute(_ADD_LABELS, [{"run": number, "name": n, "value": v} for n, v in new.labels.items()])
    tx.conn.execute(_ADD_EVENT, _event(tx, new, number))
    tx.topics.update(("runs", f"run:{number}"))
    empty: dict[str, Any] = {name: None for name in RunRecord.__slots__}  # noqa: C420  # fromkeys would be typed None
    zero = dict.fromkeys(("created_instances", "unfinished", "bad", "cancelled", "quarantines"), 0)
    no = dict.fromkeys(("materialised", "cancel_asked"), False)
    return RunCreated(RunRecord(**(empty | zero | no | row | {"id": number})), warnings)


def _dag(tx: Tx, new: NewRun) -> tuple[int, str, bool]:
    """Return the version to pin, its hash, and whether the DAG is paused; the DAG stays until the commit."""
    dag = tx.conn.execute(_DAG, {"dag_id": new.dag_id}).first()
    if dag is None:
        raise NotFound("DAG", new.dag_id)
    version = dag.version if new.version is None else new.version
    content_hash = tx.conn.execute(_HASH, {"dag_id": new.dag_id, "version": version}).scalar()
    if content_hash is None:
        raise NotFound("DAG version", f"{new.dag_id}/{version}")
    return version, content_hash, dag.paused


def _warnings(tx: Tx, new: NewRun, *, paused: bool) -> tuple[str, ...]:
    found = []
    if paused:
        found.append("dag_paused")
    if new.run_after > tx.now:
        found.append("run_after_in_future")
    return tuple(found)


def _event(tx: Tx, new: NewRun, number: int) -> dict[str, Any]:
    return {
        "at": tx.now,
        "kind": f"run.{RunState.QUEUED}",
        "dag_id": new.dag_id,
        "run": number,
        "run_id": new.run_id,
        "run_seq": 1,
        "to_state": RunState.QUEUED.value,
        "actor": new.actor,
    }
