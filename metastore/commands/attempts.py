"""The life of an attempt: its start, its end, its loss.

``start`` is the fence: the compare-and-set on ``queued`` with a random boot_id commits before any user code runs.
``end`` accepts one end, from the supervisor that won the start, and tells the downstream neighbours in the same
transaction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from dag.errors import BadCredential
from dag.outcomes import Ended, Settlement, delay_after_loss, settle
from dag.references import Unresolved
from dag.retry import delay_before
from dag.states import ATTEMPT_STEPS, TASK_FINAL, TASK_STEPS, AttemptState, AttemptStep, TaskState, TaskStep, step
from metastore.commands.admission import Admitted, Outlet, admit
from metastore.commands.advance import propagate
from metastore.commands.agents import is_expired
from metastore.commands.body import build_body
from metastore.commands.staging import take_staged
from metastore.commands.stopping import fail_fast
from metastore.commands.turn import Turn, expect, open_by_attempt
from metastore.commands.workers import hold_alone, let_go, lone, require_server
from metastore.models.attempts import attempts
from metastore.models.base import Instant
from metastore.models.runs import outputs, task_instances

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from metastore.store import Tx
    from worker.protocol import Refusal, TaskBody

#: An error line in the database; the log has the whole.
_LONGEST_ERROR: Final = 2_000

#: What an attempt became by an end that nobody but its supervisor tells.
_TOLD: Final = {
    Ended.SUCCESS: AttemptState.SUCCESS,
    Ended.FAILED: AttemptState.FAILED,
    Ended.TIMED_OUT: AttemptState.TIMED_OUT,
    Ended.CANCELLED: AttemptState.CANCELLED,
}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_attempt = attempts.c
_instance = task_instances.c
_BOTH: Final = (
    select(
        _attempt.id.label("attempt_id"),
        _attempt.state.label("attempt_state"),
        _attempt.try_number.label("fence"),
        _attempt.placed_on,
        _attempt.executor,
        _attempt.queue,
        _attempt.slots,
        _attempt.queued_at,
        _attempt.boot_id,
        _attempt.key_hash,
        _attempt.stop_reason,
        _instance.id,
        _instance.task_no,
        _instance.task_id,
        _instance.map_index,
        _instance.state,
        _instance.queue.label("instance_queue"),
        _instance.try_number,
        _instance.failures,
        _instance.losses,
    )
    .select_from(attempts.join(task_instances, _instance.id == _attempt.instance))
    .where(_attempt.id == bindparam("attempt_id"))
)
_START_ATTEMPT: Final = (
    update(attempts)
    .where(_attempt.id == bindparam("attempt_id"), _attempt.state == AttemptState.QUEUED.value)
    .values(
        state=AttemptState.RUNNING.value,
        boot_id=bindparam("new_boot"),
        key_hash=bindparam("new_key"),
        started_at=bindparam("now"),
        placed_on=bindparam("where"),
        launch_after=None,
        deferred_reason=None,
    )
)
_START_INSTANCE: Final = (
    update(task_instances)
    .where(
        _instance.id == bindparam("instance"),
        _instance.state == TaskState.QUEUED.value,
        _instance.try_number == bindparam("fence"),
    )
    .values(state=TaskState.RUNNING.value, started_at=bindparam("now"))
)
_END_ATTEMPT: Final = (
    update(attempts)
    .where(_attempt.id == bindparam("attempt_id"), _attempt.state == bindparam("from_state"))
    .values(
        state=bindparam("to"),
        started_at=func.coalesce(bindparam("began", type_=Instant), _attempt.started_at),
        ended_at=bindparam("ended"),
        cause=bindparam("why"),
        exit_code=bindparam("code"),
        signal=bindparam("by_signal"),
        error=bindparam("line"),
        log_size=bindparam("size"),
        log_dropped=bindparam("dropped"),
    )
)
_END_INSTANCE: Final = (
    update(task_instances)
    .where(
        _instance.id == bindparam("instance"),
        _instance.state == bindparam("from_state"),
        _instance.try_number == bindparam("fence"),
    )
    .values(
        state=bindparam("to"),
        reason=bindparam("why"),
        error=bindparam("line"),
        failures=_instance.failures + bindparam("failed"),
        losses=_instance.losses + bindparam("lost"),
        due_at=bindparam("due"),
        ended_at=bindparam("ended"),
        scheduled_at=func.coalesce(bindparam("scheduled", type_=Instant), _instance.scheduled_at),
    )
)
_SAVE_OUTPUT: Final = insert(outputs).inline()
_DROP_OUTPUT: Final = delete(outputs).where(outputs.c.instance == bindparam("instance"))


@dataclass(frozen=True, slots=True)
class Started:
    """The start is won, now or earlier by the same supervisor: run this."""

    body: TaskBody
    executor: str
    #: How long the attempt was queued.
    waited: timedelta
    #: It was asked to stop before this answer reached its supervisor: it must not begin any more.
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class NotStarted:
    """Leave it alone."""

    code: Refusal
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How an attempt ended, as told by its supervisor or concluded from a proof."""

    attempt_id: str
    ended: Ended
    #: The supervisor that says so; None where the scheduler concluded it.
    boot_id: str | None = None
    #: SHA-256 of the secret that it shows, where it is a remote one.
    key_hash: str | None = None
    cause: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    #: JSON text.
    output: str | None = None
    log_size: int | None = None
    log_dropped: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class EndNoted:
    """Whether the end was the one accepted end, and what was admitted into the slots it freed."""

    accepted: bool
    executor: str = ""
    admitted: Sequence[Admitted] = ()


def start_attempt(
    tx: Tx,
    attempt_id: str,
    boot_id: str,
    placed_on: str | None,
    *,
    key_hash: str | None = None,
    lease: timedelta | None = None,
) -> Started | NotStarted:
    """Win ``queued → running`` for the supervisor *boot_id*, or say why not.  The same boot_id is answered again.

    A remote supervisor (*key_hash*) must be a registered worker that serves the attempt's queue, or bring a *lease* of
    its own: then this attempt is all that it holds, and its heartbeats are the attempt's.
    """
    turn = open_by_attempt(tx, attempt_id)
    if turn is None:
        return NotStarted("gone", "no such attempt")
    row = tx.conn.execute(_BOTH, {"attempt_id": attempt_id}).one()
    state = AttemptState(row.attempt_state)
    if key_hash is not None:
        placed_on = lone(attempt_id) if placed_on is None else placed_on
    if row.placed_on not in (None, placed_on):
        return NotStarted("conflict", "another supervisor has it")
    if state is AttemptState.RUNNING and row.boot_id == boot_id:
        if row.key_hash != key_hash:
            raise BadCredential(f"The attempt {attempt_id} was started with another key.")
        # Asking again proves nothing about whether it has begun: the question may be older than the answer.
        return Started(build_body(tx, turn, row, row.fence), row.executor, tx.now - row.queued_at, row.stop_reason)
    if state is AttemptState.RUNNING:
        return NotStarted("conflict", "another supervisor has started it")
    if state is not AttemptState.QUEUED:
        return NotStarted("gone", f"it is {state}")
    try:
        body = build_body(tx, turn, row, row.fence)
    except Unresolved as error:
        end = End(attempt_id=attempt_id, ended=Ended.REJECTED, cause="config", error=str(error))
        _finish_turn(tx, turn, row, end, (), "scheduler")
        return NotStarted("failed", str(error))
    if key_hash is not None:
        _let_in(tx, row, boot_id, placed_on, lease)
    to = step(ATTEMPT_STEPS, state, AttemptStep.START)
    values = {
        "attempt_id": attempt_id, "new_boot": boot_id, "new_key": key_hash, "now": tx.now, "where": placed_on
    }  # fmt: skip
    expect(tx.conn.execute(_START_ATTEMPT, values).rowcount, 1, f"attempt {attempt_id} to {to}")
    values = {"instance": row.id, "fence": row.fence, "now": tx.now}
    expect(tx.conn.execute(_START_INSTANCE, values).rowcount, 1, f"instance {row.id} to running")
    turn.task_event(
        row, step(TASK_STEPS, TaskState(row.state), TaskStep.START), actor="supervisor", attempt_id=attempt_id
    )
    turn.close("supervisor")
    return Started(body, row.executor, tx.now - row.queued_at)


def _let_in(tx: Tx, row: Any, boot_id: str, placed_on: str | None, lease: timedelta | None) -> None:
    if lease is not None:
        hold_alone(tx, row.attempt_id, row.executor, boot_id, lease)
    elif placed_on is not None:
        require_server(tx, placed_on, boot_id, executor=row.executor, queue=row.queue)


def end_attempt(
    tx: Tx,
    end: End,
    outlets: Sequence[Outlet] = (),
    *,
    actor: str = "supervisor",
    expired_agent: str | None = None,
    earlier_boot_of: tuple[str, str] | None = None,
    lease: timedelta | None = None,
) -> EndNoted:
    """Accept the one end of an attempt, tell its neighbours, and admit what is ready into *outlets*.

    A stale end changes nothing: another supervisor's, a second one, one of an attempt that was given up.  The accepted
    one that is told again is accepted again.  With *expired_agent* an end is accepted only while that agent holds the
    attempt and its *lease* is still over; with *earlier_boot_of* (worker, boot) only while another boot of that worker
    holds it.
    """
    turn = open_by_attempt(tx, end.attempt_id)
    if turn is None:
        return EndNoted(accepted=False)
    row = tx.conn.execute(_BOTH, {"attempt_id": end.attempt_id}).one()
    state = AttemptState(row.attempt_state)
    if end.key_hash is not None and row.key_hash != end.key_hash:
        raise BadCredential(f"This is not the key of attempt {end.attempt_id}.")
    if end.boot_id is not None and (state is not AttemptState.RUNNING or row.boot_id != end.boot_id):
        told = row.boot_id == end.boot_id and row.key_hash is not None and state == _TOLD.get(end.ended)
        return EndNoted(accepted=told, executor=row.executor)
    if end.boot_id is None and not _may_conclude(end.ended, state):
        return EndNoted(accepted=False)
    if expired_agent is not None and not (row.placed_on == expired_agent and is_expired(tx, expired_agent, lease)):
        return EndNoted(accepted=False)
    if earlier_boot_of is not None and (row.placed_on != earlier_boot_of[0] or row.boot_id == earlier_boot_of[1]):
        return EndNoted(accepted=False)
    return EndNoted(accepted=True, executor=row.executor, admitted=_finish_turn(tx, turn, row, end, outlets, actor))


def _may_conclude(ended: Ended, state: AttemptState) -> bool:
    """Whether the scheduler may conclude *ended* of an attempt in *state* without its supervisor."""
    if ended in (Ended.NEVER_STARTED, Ended.REJECTED, Ended.DRAINED):
        return state is AttemptState.QUEUED
    return state is AttemptState.RUNNING


def _finish_turn(  # the facts of one end
    tx: Tx, turn: Turn, row: Any, end: End, outlets: Sequence[Outlet], actor: str
) -> list[Admitted]:
    to = _settle(tx, turn, row, end, actor)
    if to in TASK_FINAL:
        if to is TaskState.FAILED and turn.plan.fail_fast and not turn.task(row.task_no).allow_failure:
            fail_fast(turn)
        propagate(turn, [(row.task_no, to)])
    turn.end_if_done(actor)
    turns = {turn.id: turn}
    admitted = admit(tx, outlets, turns) if outlets else []
    for held in turns.values():
        held.close(actor)
    return admitted


def _settle(tx: Tx, turn: Turn, row: Any, end: End, actor: str) -> TaskState:
    """Move the attempt and its instance to where the end leads them; return the instance's new state."""
    task = turn.task(row.task_no)
    before = TaskState(row.state)
    settlement = settle(end.ended, before, failures=row.failures, losses=row.losses, retries=task.retries)
    _move_attempt(tx, row, end, settlement)
    to = step(TASK_STEPS, before, settlement.task)
    error = _line(end.error)
    final = to in TASK_FINAL
    values = {
        "instance": row.id,
        "from_state": before,
        "fence": row.fence,
        "to": to,
        "why": settlement.reason,
        "line": error,
        "failed": int(settlement.cost == "failure"),
        "lost": int(settlement.cost == "loss"),
        "due": _due(tx, turn, row, settlement),
        "ended": _moment(end.ended_at, tx.now) if final else None,
        "scheduled": tx.now if to is TaskState.SCHEDULED else None,
    }
    expect(tx.conn.execute(_END_INSTANCE, values).rowcount, 1, f"instance {row.id} to {to}")
    output = end.output if row.key_hash is None else take_staged(tx, row.attempt_id, end.output)
    if to is TaskState.SUCCESS and output is not None:
        tx.conn.execute(_DROP_OUTPUT, {"instance": row.id})
        tx.conn.execute(_SAVE_OUTPUT, {"instance": row.id, "attempt_id": row.attempt_id, "value": output})
    turn.task_event(
        row, to, actor=actor, attempt_id=row.attempt_id, reason=settlement.reason, data=_facts(end, settlement)
    )
    turn.freed[turn.tasks_key] += 1
    if row.slots is not None:
        turn.freed[row.slots] += 1
    if row.placed_on == lone(row.attempt_id):
        let_go(tx, row.attempt_id)
    if to is TaskState.SCHEDULED:
        turn.ready.add((row.executor, row.instance_queue))
    elif to is TaskState.UP_FOR_RETRY:
        tx.topics.add("due")
    if final:
        turn.count_end(row.task_no, to)
    return to


def _move_attempt(tx: Tx, row: Any, end: End, settlement: Settlement) -> None:
    before = AttemptState(row.attempt_state)
    values = {
        "attempt_id": row.attempt_id,
        "from_state": before,
        "to": step(ATTEMPT_STEPS, before, settlement.attempt),
        "began": end.started_at,
        "ended": _moment(end.ended_at, tx.now),
        "why": end.cause,
        "code": end.exit_code,
        "by_signal": end.signal,
        "line": _line(end.error),
        "size": end.log_size,
        "dropped": end.log_dropped,
    }
    expect(tx.conn.execute(_END_ATTEMPT, values).rowcount, 1, f"attempt {row.attempt_id}")


def _due(tx: Tx, turn: Turn, row: Any, settlement: Settlement) -> datetime | None:
    if settlement.task is not TaskStep.RETRY:
        return None
    if settlement.cost == "loss":
        return tx.now + delay_after_loss(row.losses + 1)
    luck = int.from_bytes(tx.entropy.token(4), "big") / 2**32
    return tx.now + delay_before(turn.task(row.task_no).retry, row.failures + 1, luck)


def _moment(told: datetime | None, now: datetime) -> datetime:
    """Return the supervisor's time of an end, but never one from the future: its clock is its own."""
    return now if told is None else min(told, now)


def _line(error: str | None) -> str | None:
    """Return *error* as text that every database takes: no NUL, nothing unprintable, not too long."""
    if not error:
        return None
    text = error if len(error) <= _LONGEST_ERROR else error[: _LONGEST_ERROR - 1] + "…"
    text = text.encode("utf-8", "backslashreplace").decode()
    return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def _facts(end: End, settlement: Settlement) -> dict[str, Any] | None:
    facts = {
        "attempt": settlement.attempt,
        "cause": end.cause,
        "exit_code": end.exit_code,
        "signal": end.signal,
        "error": _line(end.error),
    }
    told = {name: value for name, value in facts.items() if value is not None}
    return None if settlement.task is TaskStep.SUCCEED else told
