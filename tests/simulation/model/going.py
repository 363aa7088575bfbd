"""How a run goes on: instances that become ready, slots for them, stops, ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dag.ids import AttemptId, uuid7
from dag.plan import resolved
from dag.references import Scope, Unresolved
from metastore.commands.admission import MOST_AT_ONCE, TAKEN_WITHIN, Admitted
from tests.simulation.model import rules
from tests.simulation.model.rows import Attempt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.simulation.model.rows import Instance, ModelTx, Run


def look_at(tx: ModelTx, rows: Iterable[Instance]) -> None:
    """Schedule or settle what its rule has decided about, and everything that this decides in turn."""
    waiting = sorted(rows, key=lambda one: one.id)
    while waiting:
        told: set[int] = set()
        run = waiting[0].run
        decided = [(one, rules.judge(one)) for one in waiting if one.state == "pending"]
        for one, _ in [pair for pair in decided if pair[1] == "run" and pair[0].task.kind != "empty"]:
            schedule(tx, one)
        for one, _ in [pair for pair in decided if pair[1] == "run" and pair[0].task.kind == "empty"]:
            told |= _settled(tx, one, "success", None)
        for word, state in (("skip", "skipped"), ("upstream_failed", "upstream_failed")):
            for one, _ in [pair for pair in decided if pair[1] == word]:
                told |= _settled(tx, one, state, "trigger_rule")
        waiting = [run.instances[number] for number in sorted(told)]


def _settled(tx: ModelTx, one: Instance, state: str, reason: str | None) -> set[int]:
    tx.task_event(one, state, actor="scheduler", reason=reason)
    one.reason, one.ended_at, one.due_at = reason, tx.now, None
    return set(one.task.downstream)


def schedule(tx: ModelTx, one: Instance) -> None:
    tx.task_event(one, "scheduled", actor="scheduler")
    one.scheduled_at, one.due_at, one.reason, one.blocked_on = tx.now, None, None, None
    tx.topics.add("ready")


def look_at_due(tx: ModelTx, run: Run) -> None:
    """Look at the instances of a run whose time has come."""
    due = [
        one
        for one in run.instances
        if one.due_at is not None and one.due_at <= tx.now and one.state in ("pending", "up_for_retry")
    ]
    pending = [one for one in due if one.state == "pending"]
    for one in sorted(due, key=lambda one: (one.due_at, one.id)):
        if one.state == "up_for_retry":
            schedule(tx, one)
    look_at(tx, pending)
    for one in pending:
        if one.state == "pending":
            one.due_at = None


def end_if_done(tx: ModelTx, run: Run, actor: str) -> None:
    if run.materialised and not run.unfinished and run.state in ("running", "cancelling"):
        run.ended_at = tx.now
        tx.run_event(run, rules.verdict(run), actor=actor)
        tx.free(run.runs_key)
        tx.topics.add("runs")


def stop_everything(tx: ModelTx, run: Run, unstarted: str, reason: str, *, actor: str) -> None:
    """End what has not started as *unstarted*, and ask what runs to stop."""
    run.materialised = True
    for one in run.instances:
        attempt = one.attempt
        if one.state in ("pending", "scheduled", "up_for_retry", "queued"):
            if attempt is not None and attempt.state == "queued":
                _end_attempt(tx, attempt, "cancelled")
                attempt.stop_reason = reason
                tx.topics.add("stop")
            tx.task_event(one, unstarted, actor=actor, attempt=_active(attempt), reason=reason)
            one.reason, one.ended_at, one.due_at, one.blocked_on, one.attempt = reason, tx.now, None, None, None
        elif one.state == "running":
            assert attempt is not None
            attempt.stop_reason = reason
            tx.task_event(one, "cancelling", actor=actor, attempt=attempt.id, reason=reason)
            one.reason = reason
            tx.topics.add("stop")


def _active(attempt: Attempt | None) -> str | None:
    return None if attempt is None else attempt.id


def _end_attempt(tx: ModelTx, attempt: Attempt, state: str) -> None:
    """Let an attempt be over; its slots are free."""
    attempt.state, attempt.ended_at = state, tx.now
    del tx.data.active[attempt.id]
    tx.free(attempt.run.tasks_key)
    tx.free(attempt.slots)


def over(tx: ModelTx, attempt: Attempt, state: str) -> None:
    _end_attempt(tx, attempt, state)
    attempt.instance.attempt = None


# Slots


def admit(tx: ModelTx, outlets: Sequence[Any], *, actor: str = "scheduler") -> list[Admitted]:
    """Give the free slots of *outlets* to what is ready, best first."""
    let_go_of_waiting(tx)
    limits = tx.data.limits
    candidates = []
    for key, outlet, queue in _places(tx, outlets):
        limit = limits.get(key)
        if limit is not None and limit.has_room:
            most = MOST_AT_ONCE if limit.free is None else min(limit.free, MOST_AT_ONCE)
            ready = sorted(
                (
                    one
                    for run in tx.data.runs.values()
                    if run.state == "running"
                    for one in run.instances
                    if one.state == "scheduled" and one.blocked_on is None and one.executor == outlet.executor
                    if queue is None or one.task.queue == queue
                ),
                key=lambda one: (-one.task.priority_weight, one.scheduled_at, one.id),
            )
            candidates += [(key, outlet, queue, one) for one in ready[:most] if not tx.passes_over()]
    return _grant(tx, candidates, actor)


def let_go_of_waiting(tx: ModelTx) -> None:
    """Let what waits for the limits that this command freed be admitted again, as far as there is room."""
    for key in sorted(tx.freed):
        free = tx.data.limits[key].free if key in tx.data.limits else None
        if free is not None and free > 0:
            unblock(tx, key, free)
    tx.freed.clear()


def _places(tx: ModelTx, outlets: Sequence[Any]) -> list[tuple[str, Any, str | None]]:
    """Return what can take something: (limit, outlet, queue), in the order of their limits."""
    found: list[tuple[str, Any, str | None]] = []
    for outlet in outlets:
        if not outlet.by_queue:
            at = f"@{outlet.placed_on}" if outlet.placed_on else ""
            found.append((f"slots:{outlet.executor}{at}", outlet, None))
            continue
        prefix = f"slots:{outlet.executor}/"
        for key, limit in tx.data.limits.items():
            if key.startswith(prefix) and limit.capacity is not None and limit.used < limit.capacity:
                found.append((key, outlet, key.removeprefix(prefix)))
    return sorted(found, key=lambda place: place[0])


def _grant(tx: ModelTx, candidates: Sequence[tuple[str, Any, str | None, Instance]], actor: str) -> list[Admitted]:
    admitted = []
    for key, outlet, queue, one in candidates:
        limit = tx.data.limits[one.run.tasks_key]
        if not limit.has_room:
            one.blocked_on, one.reason = one.run.tasks_key, "max_active_tasks"
            tx.topics.add("ready")
            continue
        limit.used += 1
        tx.data.limits[key].used += 1
        admitted.append(_open(tx, key, outlet, queue, one, actor))
    return admitted


def _open(tx: ModelTx, key: str, outlet: Any, queue: str | None, one: Instance, actor: str) -> Admitted:
    """Open an attempt; start it too where its outlet names a supervisor."""
    attempt_id = AttemptId(str(uuid7(tx.now, tx.entropy.token(10))))
    one.try_number += 1
    body = None
    if outlet.boot_id is not None:
        try:
            body = body_of(one)
        except Unresolved:
            body = None
    attempt = Attempt(attempt_id, one.run, one, one.try_number, one.executor, queue, key, outlet.placed_on, tx.now)
    attempt.launch_after = None if queue is None else tx.now + TAKEN_WITHIN
    tx.data.attempts[attempt_id] = tx.data.active[attempt_id] = one.attempt = attempt
    one.queued_at, one.started_at, one.ended_at = tx.now, None, None
    one.reason, one.error, one.due_at = None, None, None
    tx.task_event(one, "queued", actor=actor, attempt=attempt_id, data={"slots": key})
    if body is not None:
        attempt.state, attempt.boot_id, attempt.started_at, one.started_at = "running", outlet.boot_id, tx.now, tx.now
        tx.task_event(one, "running", actor="supervisor", attempt=attempt_id)
    labels = {
        "dag_id": one.run.dag.dag_id,
        "run_id": one.run.run_id,
        "task_id": one.task.task_id,
        "map_index": "-1",
        "try_number": str(one.try_number),
    }
    return Admitted(
        attempt_id, outlet.executor, outlet.placed_on, labels, body, one.task.queue, one.task.priority_weight
    )  # fmt: skip


def unblock(tx: ModelTx, key: str, most: int) -> int:
    """Let up to *most* instances that *key* held back be admitted again; return how many."""
    waiting = sorted(
        (one for run in tx.data.runs.values() for one in run.instances if one.blocked_on == key),
        key=lambda one: (-one.task.priority_weight, one.scheduled_at, one.id),
    )[:most]
    for one in waiting:
        one.blocked_on = one.reason = None
    return len(waiting)


def body_of(one: Instance) -> Any:
    """Return what to run; the references are the product's own vocabulary."""
    run, task = one.run, one.task
    outputs: dict[str, Any] = {}
    for number in task.needs:
        upstream = run.instances[number]
        if upstream.state == "success":
            outputs[upstream.task.task_id] = None if upstream.output is None else json.loads(upstream.output[1])
    scope = Scope(
        params=run.params,
        outputs=outputs,
        run={
            "run_id": run.run_id,
            "dag_id": run.dag.dag_id,
            "run_type": run.run_type,
            "logical_date": _iso(run.logical_date),
            "data_interval_start": _iso(run.data_interval_start),
            "data_interval_end": _iso(run.data_interval_end),
        },
        try_number=one.try_number,
    )
    given = resolved(task, scope)
    return {
        "dag_id": run.dag.dag_id,
        "run_id": run.run_id,
        "task_id": task.task_id,
        "map_index": -1,
        "try_number": one.try_number,
        "logical_date": _iso(run.logical_date) or "",
        "kind": task.kind,
        "env": given.env,
        "cwd": task.cwd,
        "timeout": None if task.timeout is None else task.timeout.total_seconds(),
        "kill_grace": task.kill_grace.total_seconds(),
        "on_lost_contact": task.on_lost_contact,
    } | given.body


def _iso(moment: Any) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
