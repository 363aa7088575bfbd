"""Stopping: a cancel by somebody, a run that ran out of time, a failure that ends its run early.

What has not started ends at once, in this transaction; what runs is asked to stop, and ends when its supervisor says
so.
After the commit nothing of it starts: every start compares with the state that is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select, update

from dag.errors import IllegalStep, NotFound
from dag.states import (
    ATTEMPT_STEPS,
    TASK_STEPS,
    AttemptState,
    AttemptStep,
    RunState,
    RunStep,
    TaskState,
    TaskStep,
    step,
)
from metastore.commands.turn import open_by_name, open_turn
from metastore.each import expect
from metastore.models.attempts import attempts
from metastore.models.runs import task_instances
from metastore.queries.runs import get as get_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metastore.commands.turn import Turn
    from metastore.records import RunRecord
    from metastore.store import Tx
    from worker.protocol import StopReason

_attempt = attempts.c
_instance = task_instances.c
_OPEN: Final = (
    TaskState.PENDING,
    TaskState.SCHEDULED,
    TaskState.UP_FOR_RETRY,
    TaskState.QUEUED,
    TaskState.RUNNING,
)
_OPEN_ROWS: Final = (
    select(
        _instance.id,
        _instance.task_no,
        _instance.task_id,
        _instance.map_index,
        _instance.state,
        _instance.try_number,
        _attempt.id.label("attempt_id"),
        _attempt.slots,
    )
    .select_from(
        task_instances.outerjoin(
            attempts,
            (_attempt.instance == _instance.id)
            & _attempt.state.in_([AttemptState.QUEUED.value, AttemptState.RUNNING.value]),
        )
    )
    .where(_instance.run == bindparam("run"), _instance.state.in_([str(state) for state in _OPEN]))
    .order_by(_instance.id)
)
_END_UNSTARTED: Final = (
    update(task_instances)
    .where(_instance.run == bindparam("of_run"), _instance.state == bindparam("from_state"))
    .values(state=bindparam("to"), reason=bindparam("why"), ended_at=bindparam("now"), due_at=None, blocked_on=None)
)
_STOP_RUNNING: Final = (
    update(task_instances)
    .where(_instance.run == bindparam("of_run"), _instance.state == TaskState.RUNNING.value)
    .values(state=TaskState.CANCELLING.value, reason=bindparam("why"))
)
_END_QUEUED_ATTEMPTS: Final = (
    update(attempts)
    .where(_attempt.run == bindparam("of_run"), _attempt.state == AttemptState.QUEUED.value)
    .values(
        state=step(ATTEMPT_STEPS, AttemptState.QUEUED, AttemptStep.CANCEL).value,
        stop_reason=bindparam("why"),
        stop_asked_at=bindparam("now"),
        ended_at=bindparam("now"),
    )
)
_STOP_ATTEMPTS: Final = (
    update(attempts)
    .where(
        _attempt.run == bindparam("of_run"),
        _attempt.state == AttemptState.RUNNING.value,
        _attempt.stop_reason.is_(None),
    )
    .values(stop_reason=bindparam("why"), stop_asked_at=bindparam("now"))
)


def cancel_run(tx: Tx, dag_id: str, run_id: str, *, actor: str) -> RunRecord:
    """Ask a run to stop; it is cancelled once its running tasks are.

    Asking again changes nothing.  Raises :exc:`NotFound`, and :exc:`IllegalStep` for a run that succeeded or failed.
    """
    turn = open_by_name(tx, dag_id, run_id)
    if turn is None:
        raise NotFound("run", f"{dag_id}/{run_id}")
    if turn.state in (RunState.SUCCESS, RunState.FAILED):
        raise IllegalStep(turn.state, RunStep.CANCEL)
    if turn.state in (RunState.QUEUED, RunState.RUNNING):
        turn.cancel_asked = True
        was_queued = turn.state is RunState.QUEUED
        turn.take(RunStep.CANCEL, actor=actor, reason="user")
        stop_everything(turn, TaskStep.CANCEL, "user", actor=actor)
        if was_queued:
            turn.ended_at = tx.now
        turn.close(actor)
    record = get_run(tx.conn, dag_id, run_id)
    assert record is not None  # noqa: S101  # its row is locked
    return record


def time_out_run(tx: Tx, run: int) -> bool:
    """Stop a run that has passed its ``run_timeout``; it fails once its running tasks are stopped."""
    turn = open_turn(tx, run)
    if turn is None or turn.state is not RunState.RUNNING or turn.deadline_at is None or turn.deadline_at > tx.now:
        return False
    turn.take(RunStep.CANCEL, actor="scheduler", reason="run_timeout")
    stop_everything(turn, TaskStep.SKIP, "run_timeout", actor="scheduler")
    turn.close()
    return True


def fail_fast(turn: Turn) -> None:
    """End what has not started and stop what runs: an instance failed and its DAG says ``fail_fast``."""
    stop_everything(turn, TaskStep.SKIP, "fail_fast", actor="scheduler")


def stop_everything(turn: Turn, unstarted: TaskStep, reason: StopReason, *, actor: str) -> None:
    """End every instance that has not started by the step *unstarted*, and ask the running ones to stop."""
    tx = turn.tx
    # Instances that were not created yet never will be, unless a clear goes on with them.
    turn.materialised = True
    rows = tx.conn.execute(_OPEN_ROWS, {"run": turn.id}).all()
    _end_unstarted(turn, [row for row in rows if row.state != TaskState.RUNNING], unstarted, reason, actor)
    running = [row for row in rows if row.state == TaskState.RUNNING]
    if not running:
        return
    done = tx.conn.execute(_STOP_RUNNING, {"of_run": turn.id, "why": reason})
    expect(done.rowcount, len(running), "stop running instances")
    done = tx.conn.execute(_STOP_ATTEMPTS, {"of_run": turn.id, "why": reason, "now": tx.now})
    expect(done.rowcount, len(running), "stop running attempts")
    for row in running:
        to = step(TASK_STEPS, TaskState.RUNNING, TaskStep.STOP)
        turn.task_event(row, to, actor=actor, attempt_id=row.attempt_id, reason=reason)
    tx.topics.add("stop")


def _end_unstarted(turn: Turn, rows: Sequence[Any], taken: TaskStep, reason: str, actor: str) -> None:
    tx = turn.tx
    for state in _OPEN:
        those = [row for row in rows if row.state == state]
        if not those:
            continue
        to = step(TASK_STEPS, state, taken)
        values = {"of_run": turn.id, "from_state": state, "to": to, "why": reason, "now": tx.now}
        expect(tx.conn.execute(_END_UNSTARTED, values).rowcount, len(those), f"end {state} instances")
        for row in those:
            turn.task_event(row, to, actor=actor, attempt_id=row.attempt_id, reason=reason)
            turn.count_end(row.task_no, to)
    queued = [row for row in rows if row.state == TaskState.QUEUED]
    if queued:
        done = tx.conn.execute(_END_QUEUED_ATTEMPTS, {"of_run": turn.id, "why": reason, "now": tx.now})
        expect(done.rowcount, len(queued), "end queued attempts")
        tx.topics.add("stop")
    for row in queued:
        turn.freed[turn.tasks_key] += 1
        turn.freed[row.slots] += 1
