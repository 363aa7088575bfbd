"""Putting, finding, changing and deleting DAGs, on each database."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select, update

from dag.errors import AlreadyExists, NotFound, RevisionMismatch, StillActive
from metastore.commands.dags import delete_dag, patch_dag, purge_runs
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.models.runs import runs, task_instances
from metastore.queries import dags
from metastore.queries import runs as run_queries
from tests.metastore.examples import a_document, put

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.store import Store, Tx


def kinds(conn: Connection) -> list[str]:
    return list(conn.execute(select(events.c.kind).order_by(events.c.id)).scalars())


def capacities(conn: Connection) -> dict[str, int | None]:
    rows = conn.execute(select(limits.c.key, limits.c.capacity))
    return {row.key: row.capacity for row in rows}


def add_run(tx: Tx, dag_id: str, state: str, run_id: str = "r") -> int:
    row: dict[str, Any] = {
        "dag_id": dag_id,
        "run_id": run_id,
        "version": 1,
        "content_hash": "x",
        "run_type": "manual",
        "state": state,
        "params": {},
        "labels": {},
        "run_after": tx.now,
        "queued_at": tx.now,
        "request_id": run_id,
        "created_by": "key:k",
    }
    number: int = tx.conn.execute(insert(runs).returning(runs.c.id), row).scalar_one()
    return number


async def test_a_new_document_makes_version_1(store: Store) -> None:
    document = a_document(tags=["x", "y"], owners=["me"], description="What it does.", max_active_runs=2)

    done = await put(store, document)

    record = await store.read(dags.get, "d")
    assert (done.created, done.changed, done.version, done.record) == (True, True, 1, record)
    assert record is not None
    assert (record.revision, record.paused, record.tags, record.owners) == (1, False, ["x", "y"], ["me"])
    stored = await store.read(dags.document, "d", 1)
    assert stored is not None
    assert (stored.document, stored.task_count, stored.created_by) == (document, 1, "key:k")
    assert await store.read(capacities) == {"dag:d:runs": 2, "dag:d:tasks": None}
    assert await store.read(kinds) == ["dag.put"]


async def test_an_identical_put_changes_nothing(store: Store) -> None:
    first = await put(store, a_document())

    second = await put(store, a_document())

    assert (second.created, second.changed, second.version) == (False, False, 1)
    assert second.record == first.record
    assert await store.read(kinds) == ["dag.put"]


async def test_a_changed_document_is_the_next_version_and_the_old_one_stays(store: Store) -> None:
    await put(store, a_document())

    done = await put(store, a_document(max_active_tasks=3))

    assert (done.created, done.changed, done.version, done.record.revision) == (False, True, 2, 2)
    old = await store.read(dags.document, "d", 1)
    assert old is not None
    assert old.document == a_document()
    assert (await store.read(capacities))["dag:d:tasks"] == 3


async def test_raising_max_active_tasks_lets_go_of_what_it_held_back(store: Store) -> None:
    await put(store, a_document(max_active_tasks=1))

    def block(tx: Tx) -> None:
        row = {
            "run": add_run(tx, "d", "running"),
            "task_no": 0,
            "task_id": "a",
            "state": "scheduled",
            "executor": "local",
            "priority_weight": 1,
            "blocked_on": "dag:d:tasks",
        }
        tx.conn.execute(insert(task_instances), row)

    await store.write(block)
    waiter = store.subscribe("ready")

    await put(store, a_document(max_active_tasks=2))

    def blocked(conn: Connection) -> list[str | None]:
        return list(conn.execute(select(task_instances.c.blocked_on)).scalars())

    assert await store.read(blocked) == [None]
    assert await waiter.wait(1)
    waiter.close()


async def test_ten_concurrent_puts_of_different_documents_are_ten_versions(store: Store) -> None:
    done = await asyncio.gather(*(put(store, a_document(description=f"number {n}")) for n in range(10)))

    assert sorted(d.version for d in done) == list(range(1, 11))
    assert sum(d.created for d in done) == 1


async def test_a_stale_revision_is_refused(store: Store) -> None:
    await put(store, a_document())
    await put(store, a_document(description="new"), if_revision=1)

    with pytest.raises(RevisionMismatch):
        await put(store, a_document(description="newer"), if_revision=1)
    with pytest.raises(RevisionMismatch):
        await store.write(patch_dag, "d", paused=True, if_revision=1, actor="key:k")
    with pytest.raises(RevisionMismatch):
        await store.write(delete_dag, "d", if_revision=1, actor="key:k")
    with pytest.raises(RevisionMismatch):
        await put(store, a_document("other"), if_revision=1)


async def test_what_must_not_exist_is_refused_when_it_does(store: Store) -> None:
    await put(store, a_document(), must_not_exist=True)

    with pytest.raises(AlreadyExists):
        await put(store, a_document(), must_not_exist=True)


async def test_a_patch_pauses_tags_and_tells(store: Store) -> None:
    await put(store, a_document(tags=["x"]))

    paused = await store.write(patch_dag, "d", paused=True, tags=["y", "z", "y"], actor="key:k")
    same = await store.write(patch_dag, "d", paused=True, actor="key:k")

    assert (paused.paused, paused.tags, paused.revision) == (True, ["y", "z"], 2)
    assert same == paused
    assert [r.dag_id for r in await store.read(dags.page, limit=10, tags=["z", "y"], paused=True)] == ["d"]
    assert await store.read(dags.page, limit=10, tags=["x"]) == []
    assert await store.read(kinds) == ["dag.put", "dag.paused", "dag.tagged"]
    with pytest.raises(NotFound):
        await store.write(patch_dag, "nobody", paused=True, actor="key:k")


@pytest.mark.parametrize("state", ["queued", "running", "cancelling"])
async def test_a_dag_with_an_active_run_is_not_deleted(store: Store, state: str) -> None:
    await put(store, a_document())
    await store.write(add_run, "d", state)

    with pytest.raises(StillActive):
        await store.write(delete_dag, "d", actor="key:k")
    with pytest.raises(StillActive):
        await store.write(purge_runs, "d")

    assert await store.read(dags.get, "d") is not None


async def test_a_deleted_dag_takes_everything_with_it_but_the_note(store: Store) -> None:
    await put(store, a_document())
    await store.write(add_run, "d", "success", "r1")
    await store.write(add_run, "d", "failed", "r2")

    assert await store.write(purge_runs, "d", limit=1) == 1
    await store.write(delete_dag, "d", actor="key:k")

    assert await store.read(dags.get, "d") is None
    assert await store.read(run_queries.page, limit=10) == []
    assert await store.read(capacities) == {}
    assert await store.read(kinds) == ["dag.put", "dag.deleted"]


async def test_numbers_of_deleted_runs_are_not_given_again(store: Store) -> None:
    await put(store, a_document())
    first = await store.write(add_run, "d", "success")
    await store.write(delete_dag, "d", actor="key:k")
    await put(store, a_document())

    assert await store.write(add_run, "d", "success") > first


async def test_pages_of_dags_follow_one_another_and_obey_their_filters(store: Store) -> None:
    for dag_id in ("team-A.x", "team-a.x", "team-b.x", "team_a", "zebra"):
        await put(store, a_document(dag_id))

    first = await store.read(dags.page, limit=2)
    rest = await store.read(dags.page, limit=10, after=first[-1].dag_id)
    assert sorted(r.dag_id for r in first + rest) == ["team-A.x", "team-a.x", "team-b.x", "team_a", "zebra"]
    # What a caller may see is exact: case and wildcards included.
    assert [r.dag_id for r in await store.read(dags.page, limit=10, dag_prefix="team-a")] == ["team-a.x"]
    assert await store.read(dags.page, limit=10, dag_prefix="team%") == []
    assert [r.dag_id for r in await store.read(dags.page, limit=10, id_contains="M_A")] == ["team_a"]
    assert await store.read(dags.get, "zebra", prefix="team") is None


async def test_a_lowered_limit_keeps_its_use(store: Store) -> None:
    await put(store, a_document(max_active_runs=5))

    def use(tx: Tx) -> None:
        tx.conn.execute(update(limits).where(limits.c.key == "dag:d:runs").values(used=4))

    await store.write(use)
    await put(store, a_document(max_active_runs=1))

    def row(conn: Connection) -> tuple[int | None, int]:
        found = conn.execute(select(limits.c.capacity, limits.c.used).where(limits.c.key == "dag:d:runs")).one()
        return found[0], found[1]

    assert await store.read(row) == (1, 4)
