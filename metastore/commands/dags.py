"""Putting, changing and deleting DAGs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, insert, select, text, update
from sqlalchemy.dialects import postgresql, sqlite

from dag.errors import AlreadyExists, NotFound, RevisionMismatch, StillActive
from metastore.models.dags import dag_tags, dag_versions, dags
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.models.runs import runs, task_instances
from metastore.records import DagRecord, columns, one

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dag.spec import DagSpec
    from metastore.store import Tx


@dataclass(frozen=True, slots=True)
class DagPut:
    """What a PUT did."""

    record: DagRecord
    version: int
    created: bool
    #: There is a new version; an identical document changes nothing.
    changed: bool


# Any: the two have the same methods and no common class that has them.
_INSERT: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_DAG: Final = columns(DagRecord, dags)
_LOCK: Final = select(*_DAG).where(dags.c.dag_id == bindparam("dag_id")).with_for_update()
_ADD: Final = {
    dialect: add(dags).on_conflict_do_nothing(index_elements=["dag_id"]).returning(*_DAG)
    for dialect, add in _INSERT.items()
}
_CHANGE: Final = (
    update(dags)
    .where(dags.c.dag_id == bindparam("of_dag"), dags.c.revision == bindparam("old_revision"))
    .values(
        version=bindparam("version"),
        revision=dags.c.revision + 1,
        paused=bindparam("paused"),
        description=bindparam("description"),
        tags=bindparam("tags"),
        owners=bindparam("owners"),
        updated_at=bindparam("updated_at"),
    )
    .returning(*_DAG)
)
_REMOVE: Final = delete(dags).where(dags.c.dag_id == bindparam("dag_id"))
_HASH: Final = select(dag_versions.c.content_hash).where(
    dag_versions.c.dag_id == bindparam("dag_id"), dag_versions.c.version == bindparam("version")
)
_ADD_VERSION: Final = insert(dag_versions).inline()
_ADD_TAGS: Final = insert(dag_tags).inline()
_REMOVE_TAGS: Final = delete(dag_tags).where(dag_tags.c.dag_id == bindparam("dag_id"))
_ADD_EVENT: Final = insert(events).inline()
_LIMIT: Final = select(limits.c.capacity).where(limits.c.key == bindparam("limit_key"))
_SET_LIMIT: Final = {
    dialect: add(limits).on_conflict_do_update(index_elements=["key"], set_={"capacity": add(limits).excluded.capacity})
    for dialect, add in _INSERT.items()
}
_REMOVE_LIMITS: Final = delete(limits).where(limits.c.key.in_(bindparam("keys", expanding=True)))
_UNBLOCK: Final = (
    update(task_instances)
    .where(task_instances.c.blocked_on == bindparam("limit_key"), task_instances.c.state == "scheduled")
    .values(blocked_on=None, reason=None)
)
_WAITING: Final = select(runs.c.id).where(text("state = 'queued'"), runs.c.dag_id == bindparam("dag_id")).limit(1)
_ACTIVE: Final = (
    select(runs.c.id).where(text("state IN ('running', 'cancelling')"), runs.c.dag_id == bindparam("dag_id")).limit(1)
)
_SOME_RUNS: Final = select(runs.c.id).where(runs.c.dag_id == bindparam("dag_id")).order_by(runs.c.id)
_REMOVE_RUNS: Final = delete(runs).where(runs.c.id.in_(bindparam("ids", expanding=True)))


def put_dag(  # what a PUT is made of
    tx: Tx,
    *,
    spec: DagSpec,
    document: Mapping[str, Any],
    content_hash: str,
    actor: str,
    if_revision: int | None = None,
    must_not_exist: bool = False,
) -> DagPut:
    """Make *document* the current version of its DAG; the same document again changes nothing.

    Raises :exc:`RevisionMismatch` where the DAG is not at *if_revision*, :exc:`AlreadyExists` where it must not exist.
    """
    row = {
        "description": spec.description,
        "tags": list(spec.tags),
        "owners": list(spec.owners),
        "updated_at": tx.now,
    }
    old = one(DagRecord, tx.conn.execute(_LOCK, {"dag_id": spec.dag_id}).first())
    new: DagRecord | None = None
    if old is None and if_revision is None:
        first = row | {"dag_id": spec.dag_id, "version": 1, "revision": 1, "created_at": tx.now}
        new = one(DagRecord, tx.conn.execute(_ADD[tx.conn.dialect.name], first).first())
        if new is None:  # somebody else has made it a moment ago, and has committed
            old = one(DagRecord, tx.conn.execute(_LOCK, {"dag_id": spec.dag_id}).first())
    created = new is not None
    if new is None:
        _compare(spec.dag_id, old, if_revision)
        if old is None:  # made and deleted in between
            raise NotFound("DAG", spec.dag_id)
        if must_not_exist:
            raise AlreadyExists("DAG", spec.dag_id)
        if tx.conn.execute(_HASH, {"dag_id": old.dag_id, "version": old.version}).scalar() == content_hash:
            return DagPut(old, old.version, created=False, changed=False)
        new = _change(tx, old, version=old.version + 1, **row)
    version = {
        "dag_id": spec.dag_id,
        "version": new.version,
        "content_hash": content_hash,
        "document": document,
        "task_count": len(spec.tasks),
        "created_at": tx.now,
        "created_by": actor,
    }
    tx.conn.execute(_ADD_VERSION, version)
    _set_tags(tx, spec.dag_id, spec.tags, clean=created)
    _set_limits(tx, spec)
    _tell(tx, "dag.put", spec.dag_id, actor, {"version": new.version, "content_hash": content_hash})
    return DagPut(new, new.version, created=created, changed=True)


def patch_dag(  # what a PATCH is made of
    tx: Tx,
    dag_id: str,
    *,
    actor: str,
    paused: bool | None = None,
    tags: Sequence[str] | None = None,
    if_revision: int | None = None,
) -> DagRecord:
    """Pause or unpause a DAG, or give it other tags; what is None stays as it is."""
    old = _locked(tx, dag_id, if_revision)
    now_paused = old.paused if paused is None else paused
    now_tags = old.tags if tags is None else list(dict.fromkeys(tags))
    if (now_paused, now_tags) == (old.paused, old.tags):
        return old
    new = _change(tx, old, paused=now_paused, tags=now_tags, updated_at=tx.now)
    if now_paused != old.paused:
        _tell(tx, "dag.paused" if now_paused else "dag.unpaused", dag_id, actor)
    if now_tags != old.tags:
        _set_tags(tx, dag_id, now_tags, clean=False)
        _tell(tx, "dag.tagged", dag_id, actor, {"tags": now_tags})
    return new


def delete_dag(tx: Tx, dag_id: str, *, actor: str, if_revision: int | None = None) -> None:
    """Delete a DAG with all its versions and runs; refuse with :exc:`StillActive` while a run of it has not ended.

    What it takes grows with the runs: :func:`purge_runs` before it keeps this transaction short.
    """
    _locked(tx, dag_id, if_revision)
    _refuse_active(tx, dag_id)
    tx.conn.execute(_REMOVE, {"dag_id": dag_id})
    tx.conn.execute(_REMOVE_LIMITS, {"keys": [f"dag:{dag_id}:runs", f"dag:{dag_id}:tasks"]})
    _tell(tx, "dag.deleted", dag_id, actor)


def purge_runs(tx: Tx, dag_id: str, *, limit: int = 50) -> int:
    """Delete up to *limit* runs of a DAG none of whose runs is active, oldest first; return how many there were."""
    _locked(tx, dag_id, None)
    _refuse_active(tx, dag_id)
    ids = list(tx.conn.execute(_SOME_RUNS.limit(limit), {"dag_id": dag_id}).scalars())
    if ids:
        tx.conn.execute(_REMOVE_RUNS, {"ids": ids})
    return len(ids)


def _locked(tx: Tx, dag_id: str, if_revision: int | None) -> DagRecord:
    found = one(DagRecord, tx.conn.execute(_LOCK, {"dag_id": dag_id}).first())
    if found is None:
        raise NotFound("DAG", dag_id)
    _compare(dag_id, found, if_revision)
    return found


def _compare(dag_id: str, found: DagRecord | None, if_revision: int | None) -> None:
    revision = None if found is None else found.revision
    if if_revision is not None and if_revision != revision:
        raise RevisionMismatch("DAG", dag_id, if_revision, revision)


def _refuse_active(tx: Tx, dag_id: str) -> None:
    for query in (_WAITING, _ACTIVE):
        if tx.conn.execute(query, {"dag_id": dag_id}).first() is not None:
            raise StillActive("DAG", dag_id, "Cancel its runs, or wait for them to end.")


def _change(tx: Tx, old: DagRecord, **changes: Any) -> DagRecord:
    same = {name: getattr(old, name) for name in ("version", "paused", "description", "tags", "owners")}
    values = same | changes | {"of_dag": old.dag_id, "old_revision": old.revision}
    new = one(DagRecord, tx.conn.execute(_CHANGE, values).first())
    if new is None:  # not with the row locked
        raise RevisionMismatch("DAG", old.dag_id, old.revision, None)
    return new


def _set_tags(tx: Tx, dag_id: str, tags: Sequence[str], *, clean: bool) -> None:
    if not clean:
        tx.conn.execute(_REMOVE_TAGS, {"dag_id": dag_id})
    if tags:
        tx.conn.execute(_ADD_TAGS, [{"dag_id": dag_id, "tag": tag} for tag in dict.fromkeys(tags)])


def _set_limits(tx: Tx, spec: DagSpec) -> None:
    """Keep the DAG's limits at what the document says; lowering one below its use admits nothing until it drains."""
    # In the order that everybody locks limits in: runs before tasks.
    for key, capacity, topic in (
        (f"dag:{spec.dag_id}:runs", spec.max_active_runs, "runs"),
        (f"dag:{spec.dag_id}:tasks", spec.max_active_tasks, "ready"),
    ):
        before = tx.conn.execute(_LIMIT, {"limit_key": key}).first()
        if before is not None and before.capacity == capacity:
            continue
        tx.conn.execute(_SET_LIMIT[tx.conn.dialect.name], {"key": key, "capacity": capacity, "used": 0})
        tx.topics.add(topic)
        if before is not None and topic == "ready":
            tx.conn.execute(_UNBLOCK, {"limit_key": key})  # whoever still does not fit is held back again


def _tell(tx: Tx, kind: str, dag_id: str, actor: str, data: Any = None) -> None:
    row = {"at": tx.now, "kind": kind, "dag_id": dag_id, "actor": actor, "data": data}
    tx.conn.execute(_ADD_EVENT, row)
    tx.topics.add("runs")
