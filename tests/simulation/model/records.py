"""Rows of the model as the records that the product gives."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from dag.ids import AttemptId
from dag.states import AttemptState
from metastore.queries.work import Placed
from metastore.records import DagRecord, RunRecord, TaskRecord

if TYPE_CHECKING:
    from tests.simulation.model.rows import Attempt, Dag, Instance, Run


def dag_record(dag: Dag) -> DagRecord:
    return DagRecord(
        dag.dag_id,
        len(dag.versions),
        dag.revision,
        dag.paused,
        dag.description,
        list(dag.tags),
        list(dag.owners),
        dag.created_at,
        dag.updated_at,
    )


def run_record(run: Run) -> RunRecord:
    derived = {
        "dag_id": run.dag.dag_id,
        "content_hash": run.dag.versions[run.version - 1].content_hash,
        "created_instances": len(run.instances),
        "unfinished": run.unfinished,
        "bad": run.bad,
        "cancelled": run.cancelled,
    }
    facts: dict[str, Any] = {
        name: derived[name] if name in derived else getattr(run, name) for name in RunRecord.__slots__
    }
    return RunRecord(**facts)


def task_record(one: Instance) -> TaskRecord:
    counts = Counter(one.run.instances[number].state for number in one.task.upstream)
    derived = {
        "run": one.run.id,
        "task_no": one.task.no,
        "task_id": one.task.task_id,
        "map_index": -1,
        "queue": one.task.queue,
        "priority_weight": one.task.priority_weight,
        **{f"n_{state}": counts[state] for state in ("success", "failed", "upstream_failed", "skipped", "cancelled")},
    }
    facts: dict[str, Any] = {
        name: derived[name] if name in derived else getattr(one, name) for name in TaskRecord.__slots__
    }
    return TaskRecord(**facts)


def placed(attempt: Attempt) -> Placed:
    labels = {
        "dag_id": attempt.run.dag.dag_id,
        "run_id": attempt.run.run_id,
        "task_id": attempt.instance.task.task_id,
        "map_index": "-1",
        "try_number": str(attempt.try_number),
    }
    state = AttemptState(attempt.state)
    return Placed(
        AttemptId(attempt.id),
        attempt.executor,
        attempt.placed_on,
        state,
        attempt.boot_id,
        attempt.queued_at,
        attempt.launch_after,
        attempt.stop_reason,
        labels,
        attempt.deferred_reason,
        attempt.relaunches,
        attempt.queue,
        attempt.instance.task.priority_weight,
    )
