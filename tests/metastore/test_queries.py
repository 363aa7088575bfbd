"""Pages, filters and counts, on each database; and that they walk an index."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, insert
from sqlalchemy.pool import NullPool

from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.dags import dags as dags_table
from metastore.models.events import events as events_table
from metastore.models.limits import limits
from metastore.models.runs import outputs, run_labels, task_instances
from metastore.models.runs import runs as runs_table
from metastore.queries import attempts as attempt_queries
from metastore.queries import dags, events, executors, keys, runs, stats, tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from metastore.store import Store, Tx

STATES = ("queued", "running", "success", "failed", "cancelled")


def add_dag(tx: Tx, dag_id: str) -> None:
    row = {"dag_id": dag_id, "version": 1, "revision": 1, "tags": [], "owners": []}
    tx.conn.execute(insert(dags_table), row | {"created_at": tx.now, "updated_at": tx.now})


def add_run(tx: Tx, dag_id: str, number: int, state: str, **more: Any) -> int:
    row: dict[str, Any] = {
        "dag_id": dag_id,
        "run_id": f"r{number}",
        "version": 1,
        "content_hash": "x",
        "run_type": "manual",
        "state": state,
        "params": {"n": number},
        "labels": {},
        "run_after": tx.now,
        "queued_at": tx.now + timedelta(seconds=number),
        "request_id": f"{number}",
        "created_by": "key:k",
    }
    found: int = tx.conn.execute(insert(runs_table).returning(runs_table.c.id), row | more).scalar_one()
    return found


def add_task(tx: Tx, run: int, number: int, state: str, **more: Any) -> int:
    row: dict[str, Any] = {
        "run": run,
        "task_no": number,
        "task_id": f"t{number}",
        "state": state,
        "executor": "local",
        "priority_weight": 1,
        "scheduled_at": tx.now,
    }
    found: int = tx.conn.execute(insert(task_instances).returning(task_instances.c.id), row | more).scalar_one()
    return found


def add_attempt(tx: Tx, run: int, instance: int, number: int, state: str) -> None:
    row = {"id": f"a{instance}.{number}", "run": run, "instance": instance, "try_number": number, "state": state}
    tx.conn.execute(insert(attempts), row | {"executor": "local", "queued_at": tx.now})


def fill(tx: Tx) -> None:
    """Two DAGs with 10 runs each, all states in turn; every third one is labelled."""
    for dag_id in ("one", "two"):
        add_dag(tx, dag_id)
    for number in range(20):
        run = add_run(tx, ("one", "two")[number % 2], number, STATES[number % 5])
        if number % 3 == 0:
            tx.conn.execute(insert(run_labels), {"run": run, "name": "team", "value": "x"})
        if number % 4 == 0:
            tx.conn.execute(insert(run_labels), {"run": run, "name": "tier", "value": "1"})


async def numbers(store: Store, **filters: Any) -> list[int]:
    return [int(run.run_id[1:]) for run in await store.read(runs.page, limit=100, **filters)]


async def test_runs_come_newest_first_and_pages_follow_one_another(store: Store) -> None:
    await store.write(fill)

    pages, before = [], None
    while page := await store.read(runs.page, limit=7, before=before):
        pages.append([int(run.run_id[1:]) for run in page])
        before = page[-1].id

    assert [len(page) for page in pages] == [7, 7, 6]
    assert [number for page in pages for number in page] == list(range(19, -1, -1))


async def test_runs_are_found_by_every_filter_and_by_all_together(store: Store) -> None:
    await store.write(fill)
    first = (await store.read(runs.page, limit=100))[-1]

    assert await numbers(store, dag_id="one") == list(range(18, -1, -2))
    assert await numbers(store, states=["failed"]) == [18, 13, 8, 3]
    assert await numbers(store, states=["failed", "running", "failed"]) == [18, 16, 13, 11, 8, 6, 3, 1]
    assert await numbers(store, run_types=["scheduled"]) == []
    assert await numbers(store, labels={"team": "x"}) == [18, 15, 12, 9, 6, 3, 0]
    assert await numbers(store, labels={"team": "y"}) == []
    assert await numbers(store, labels={"team": "x", "tier": "1"}, states=["failed", "success"]) == [12]
    assert await numbers(store, dag_prefix="tw", states=["success", "queued"]) == [17, 15, 7, 5]
    bounds = {
        "queued_at_gte": first.queued_at + timedelta(seconds=5),
        "queued_at_lte": first.queued_at + timedelta(seconds=8),
    }
    assert await numbers(store, **bounds) == [8, 7, 6, 5]
    assert await numbers(store, **bounds, dag_id="one", states=["failed", "queued"], labels={"team": "x"}) == []
    assert await numbers(store, **bounds, dag_id="one", states=["running", "failed"]) == [8, 6]


async def test_a_run_is_found_by_its_names_and_its_number(store: Store) -> None:
    await store.write(fill)

    run = await store.read(runs.get, "one", "r4")

    assert run is not None
    assert (run.state, run.params, run.labels, run.materialised) == ("cancelled", {"n": 4}, {}, False)
    assert await store.read(runs.by_id, run.id) == run
    assert await store.read(runs.get, "two", "r4") is None


async def test_task_instances_come_in_the_order_of_the_document_with_their_attempts(store: Store) -> None:
    def some(tx: Tx) -> int:
        fill(tx)
        run = add_run(tx, "one", 99, "running")
        for number in (2, 0, 1):
            instance = add_task(tx, run, number, "success" if number == 1 else "running")
        add_attempt(tx, run, instance, 1, "failed")
        add_attempt(tx, run, instance, 2, "running")
        tx.conn.execute(insert(outputs), {"instance": instance, "attempt_id": "a", "value": '{"x": 1}'})
        add_task(tx, run, 3, "running", map_index=0)
        add_task(tx, run, 3, "running", map_index=1, task_id="t3")
        return run

    run = await store.write(some)

    page = await store.read(tasks.page, run, limit=3)
    rest = await store.read(tasks.page, run, limit=3, after=(page[-1].task_no, page[-1].map_index))
    assert [(t.task_no, t.map_index) for t in page + rest] == [(0, -1), (1, -1), (2, -1), (3, 0), (3, 1)]
    assert [t.task_id for t in await store.read(tasks.page, run, limit=9, states=["success"])] == ["t1"]
    task = await store.read(tasks.get, run, "t1")
    assert task == page[1]
    assert await store.read(tasks.get, run, "t1", 7) is None
    assert await store.read(tasks.output, page[1].id) == '{"x": 1}'
    assert await store.read(tasks.output, page[0].id) is None
    tries = await store.read(attempt_queries.of_instance, page[1].id)
    assert [(a.try_number, a.state) for a in tries] == [(1, "failed"), (2, "running")]
    assert await store.read(attempt_queries.of_instance, page[1].id, after_try=1) == tries[1:]
    assert await store.read(attempt_queries.get, page[1].id, 2) == tries[1]
    assert await store.read(attempt_queries.by_id, tries[0].id) == tries[0]


async def test_events_of_a_run_are_read_by_their_place_in_it(store: Store) -> None:
    def some(tx: Tx) -> int:
        fill(tx)
        run = add_run(tx, "one", 99, "running")
        rows = [
            {"at": tx.now, "kind": f"k{n}", "run": run, "run_seq": n, "actor": "system", "data": {"n": n}}
            for n in (3, 1, 2)
        ]
        tx.conn.execute(insert(events_table).inline(), rows)
        return run

    run = await store.write(some)

    page = await store.read(events.of_run, run, limit=2)
    rest = await store.read(events.of_run, run, after_seq=page[-1].run_seq or 0, limit=2)
    assert [e.kind for e in page + rest] == ["k1", "k2", "k3"]
    assert [e.data for e in rest] == [{"n": 3}]
    assert (rest[0].xid is None) == (store.dialect == "sqlite")


async def test_counts_are_of_what_is_alive(store: Store) -> None:
    def some(tx: Tx) -> None:
        fill(tx)
        run = add_run(tx, "one", 99, "running")
        for number in range(3):
            add_task(tx, run, number, "scheduled")
        add_task(tx, run, 3, "scheduled", executor="sequential")
        add_task(tx, run, 4, "scheduled", blocked_on="dag:one:tasks")
        for number, state in enumerate(("running", "running", "queued", "success"), 5):
            add_attempt(tx, run, add_task(tx, run, number, "running"), 1, state)

    await store.write(some)

    found = await store.read(stats.count)

    assert {state: depth.count for state, depth in found.runs.items()} == {"queued": 4, "running": 5, "cancelling": 0}
    assert {name: depth.count for name, depth in found.ready.items()} == {"local": 3, "sequential": 1}
    assert {key: depth.count for key, depth in found.blocked.items()} == {"dag:one:tasks": 1}
    assert {name: depth.count for name, depth in found.queued.items()} == {"local": 1}
    assert {name: depth.count for name, depth in found.running.items()} == {"local": 2}
    oldest = found.ready["local"].oldest
    assert oldest is not None
    assert oldest.utcoffset() == timedelta(0)


async def test_executors_are_what_agents_announce_with_the_use_of_their_slots(store: Store) -> None:
    def announce(tx: Tx) -> None:
        told = [
            {"name": "local", "slots": 4, "placed": True, "status": "ready", "detail": ""},
            {"name": "queue", "slots": None, "placed": False, "status": "down", "detail": "no broker"},
        ]
        for agent_id in ("a2", "a1"):
            row = {"agent_id": agent_id, "host": f"host of {agent_id}", "executors": told, "seen_at": tx.now}
            tx.conn.execute(insert(agents), row)
        tx.conn.execute(insert(limits), [{"key": "slots:local@a1", "capacity": 4, "used": 3}])

    await store.write(announce)

    found = await store.read(executors.every)

    assert [(e.name, e.agent_id, e.slots, e.used, e.status) for e in found] == [
        ("local", "a1", 4, 3, "ready"),
        ("local", "a2", 4, 0, "ready"),
        ("queue", "a1", None, 0, "down"),
        ("queue", "a2", None, 0, "down"),
    ]


#: Each with the index that it has to begin with.
PAGES: dict[str, tuple[str, Callable[[Connection], Any]]] = {
    "a run": ("(dag_id=? AND run_id=?)", lambda conn: runs.get(conn, "one", "r")),
    "all runs": ("PRIMARY KEY (rowid<?)", lambda conn: runs.page(conn, limit=10, before=50)),
    "runs of a DAG": ("ix_runs_dag_id_id", lambda conn: runs.page(conn, limit=10, dag_id="one", before=50)),
    "runs in a state": ("ix_runs_state_id", lambda conn: runs.page(conn, limit=10, states=["success"], before=50)),
    "runs in states": ("ix_runs_state_id", lambda conn: runs.page(conn, limit=10, states=["success", "failed"])),
    "runs of a DAG in a state": (
        "ix_runs_dag_id_state_id (dag_id=? AND state=?",
        lambda conn: runs.page(conn, limit=10, dag_id="one", states=["failed"], before=50),
    ),
    "runs of a DAG in states": (
        "ix_runs_dag_id_state_id (dag_id=? AND state=?",
        lambda conn: runs.page(conn, limit=10, dag_id="one", states=["failed", "cancelled"]),
    ),
    "runs with a label": ("ix_run_labels_name", lambda conn: runs.page(conn, limit=10, labels={"team": "x"})),
    "runs with two": ("ix_run_labels_name", lambda conn: runs.page(conn, limit=10, labels={"a": "x", "b": "y"})),
    "DAGs": ("(dag_id>?)", lambda conn: dags.page(conn, limit=10, after="a", tags=["x"])),
    "tasks": ("(run=? AND (task_no,map_index)>(?,?))", lambda conn: tasks.page(conn, 1, limit=10, after=(1, -1))),
    "a task": ("(run=? AND task_id=? AND map_index=?)", lambda conn: tasks.get(conn, 1, "t")),
    "attempts": ("(instance=? AND try_number>?)", lambda conn: attempt_queries.of_instance(conn, 1)),
    "events of a run": ("ix_events_run", lambda conn: events.of_run(conn, 1, after_seq=5, limit=10)),
    "all events": ("PRIMARY KEY (rowid>?)", lambda conn: events.page(conn, limit=10)),
    "keys": ("(key_id>?)", lambda conn: keys.page(conn, limit=10)),
    "counts": ("INDEX ix_task_instances_", stats.count),
}


@pytest.mark.parametrize("name", PAGES)
def test_no_page_scans_a_table_or_sorts_one(sqlite_url: str, name: str) -> None:
    engine = create_engine(sqlite_url, poolclass=NullPool)
    asked: list[tuple[str, Any]] = []
    with engine.connect() as conn:

        @event.listens_for(engine, "before_cursor_execute")
        def _(_conn: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            asked.append((statement, parameters))

        index, ask = PAGES[name]
        ask(conn)
        driver = conn.connection.driver_connection
        assert driver is not None
        steps = [row[3] for sql, values in asked for row in driver.execute(f"EXPLAIN QUERY PLAN {sql}", values)]

    assert any(index in step for step in steps), steps
    for step in steps:
        assert not step.startswith("SCAN") or "USING" in step or "SUBQUERY" in step or "anon" in step, steps
        assert "TEMP B-TREE" not in step or step == "USE TEMP B-TREE FOR GROUP BY", steps
