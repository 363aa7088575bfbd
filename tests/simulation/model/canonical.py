"""The state of a metastore in one form, whether it stands in tables or in the model: what the two are compared by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Table, select

from metastore.models.agents import agents
from metastore.models.attempts import attempts, staged_outputs
from metastore.models.dags import dags
from metastore.models.events import events
from metastore.models.limits import limits
from metastore.models.runs import outputs, runs, task_instances
from metastore.models.service import presence

if TYPE_CHECKING:
    from tests.simulation.model.rows import Attempt, Instance, Metastore, Run

State = dict[str, Any]

_RUN: Final = (
    "id", "dag_id", "run_id", "version", "run_type", "state", "reason", "run_after", "queued_at", "started_at",
    "ended_at", "deadline_at", "materialised", "unfinished", "bad", "cancelled", "cancel_asked", "seq",
    "quarantined_until", "quarantines", "request_id", "created_by", "created_instances",
)  # fmt: skip
_INSTANCE: Final = (
    "id", "state", "reason", "try_number", "failures", "losses", "due_at", "executor", "blocked_on", "scheduled_at",
    "queued_at", "started_at", "ended_at", "error",
)  # fmt: skip
_ATTEMPT: Final = (
    "id", "try_number", "state", "executor", "queue", "slots", "placed_on", "boot_id", "key_hash", "queued_at",
    "started_at", "ended_at", "launch_after", "deferred_reason", "relaunches", "stop_reason", "cause", "error",
)  # fmt: skip
_AGENT: Final = (
    "agent_id", "kind", "host", "executors", "seen_at", "lease_until", "executor", "queues", "slots", "boot_id",
    "token_hash", "boot_number", "draining", "drain_asked",
)  # fmt: skip
_EVENT: Final = (
    "at", "kind", "dag_id", "run_id", "task_id", "map_index", "try_number", "attempt_id", "from_state", "to_state",
    "actor", "reason", "data",
)  # fmt: skip
_DAG: Final = ("dag_id", "version", "revision", "paused", "description", "tags", "owners", "updated_at")
_COUNTERS: Final = ("n_success", "n_failed", "n_upstream_failed", "n_skipped", "n_cancelled")


def of_tables(conn: Any) -> State:
    """Return the state that the tables hold."""

    def rows(table: Table, *names: str) -> list[dict[str, Any]]:
        key = next(iter(table.primary_key.columns))
        found = conn.execute(select(*(table.c[name] for name in names)).order_by(key)).all()
        return [dict(zip(names, row, strict=True)) for row in found]

    return {
        "dags": rows(dags, *_DAG),
        "runs": rows(runs, *_RUN),
        "instances": [
            _while_it_counts(row)
            for row in rows(task_instances, "run", "task_id", "queue", "priority_weight", *_INSTANCE, *_COUNTERS)
        ],
        "attempts": rows(attempts, "run", "instance", *_ATTEMPT),
        "limits": {row["key"]: (row["capacity"], row["used"]) for row in rows(limits, "key", "capacity", "used")},
        "agents": [_plain(row) for row in rows(agents, *_AGENT)],
        "outputs": rows(outputs, "instance", "attempt_id", "value"),
        "staged": rows(staged_outputs, "attempt_id", "value"),
        "presence": [(row["since"], row["seen_at"]) for row in rows(presence, "since", "seen_at")],
    }


def events_of_tables(conn: Any, after: int) -> tuple[int, list[tuple[Any, ...]]]:
    """Return the number of the last event, and the events after the number *after*, in an order of their own."""
    names = ("id", *_EVENT)
    found = conn.execute(select(*(events.c[name] for name in names)).where(events.c.id > after)).all()
    last = max((row[0] for row in found), default=after)
    return last, sorted((tuple(row[1:]) for row in found), key=repr)


def events_of_model(data: Metastore, after: int) -> list[tuple[Any, ...]]:
    return sorted((tuple(event.get(name) for name in _EVENT) for event in data.events[after:]), key=repr)


def _plain(agent: dict[str, Any]) -> dict[str, Any]:
    """Return an agent as the model has it: nothing is empty, not null."""
    empty = {"queues": [], "slots": 0, "token_hash": ""}
    return {name: empty[name] if value is None and name in empty else value for name, value in agent.items()}


def of_model(data: Metastore) -> State:
    """Return the state of the model."""
    instances = sorted((one for run in data.runs.values() for one in run.instances), key=lambda one: one.id)
    tried = sorted(data.attempts.values(), key=lambda one: one.id)
    return {
        "dags": [
            _named(dag, _DAG, version=len(dag.versions)) for dag in sorted(data.dags.values(), key=lambda d: d.dag_id)
        ],
        "runs": [_run(run) for run in data.runs.values()],
        "instances": [_instance(one) for one in instances],
        "attempts": [_attempt(one) for one in tried],
        "limits": {key: (one.capacity, one.used) for key, one in sorted(data.limits.items())},
        "agents": [_named(one, _AGENT) for one in sorted(data.agents.values(), key=lambda one: one.agent_id)],
        "outputs": [
            {"instance": one.id, "attempt_id": one.output[0], "value": one.output[1]}
            for one in instances
            if one.output is not None
        ],
        "staged": [{"attempt_id": one.id, "value": one.staged} for one in tried if one.staged is not None],
        "presence": [] if data.presence is None else [data.presence],
    }


def _named(row: Any, names: tuple[str, ...], **derived: Any) -> dict[str, Any]:
    return {name: derived[name] if name in derived else getattr(row, name) for name in names}


def _run(run: Run) -> dict[str, Any]:
    return _named(run, _RUN, dag_id=run.dag.dag_id, created_instances=len(run.instances))


def _instance(one: Instance) -> dict[str, Any]:
    states = [one.run.instances[number].state for number in one.task.upstream]
    counters = {name: states.count(name.removeprefix("n_")) for name in _COUNTERS}
    place = {"queue": one.task.queue, "priority_weight": one.task.priority_weight}
    row = {"run": one.run.id, "task_id": one.task.task_id} | place | _named(one, _INSTANCE) | counters
    return _while_it_counts(row)


def _while_it_counts(row: dict[str, Any]) -> dict[str, Any]:
    """Leave the counters of what has been decided out: nobody reads them, and a stop does not write them."""
    return row if row["state"] == "pending" else {name: row[name] for name in row if name not in _COUNTERS}


def _attempt(one: Attempt) -> dict[str, Any]:
    return {"run": one.run.id, "instance": one.instance.id} | _named(one, _ATTEMPT)
