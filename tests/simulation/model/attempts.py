"""The commands about attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dag.errors import BadCredential
from dag.references import Unresolved
from metastore.commands.attempts import End, EndNoted, NotStarted, Started
from tests.simulation.model import rules
from tests.simulation.model.going import admit, body_of, end_if_done, look_at, over, stop_everything
from tests.simulation.model.workers import hold_alone, is_expired, let_go, lone, require_server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from metastore.commands.admission import Admitted
    from tests.simulation.model.rows import Attempt, ModelTx


#: What the log calls the way to an attempt's last state.
_STEPS = {
    "success": "succeed",
    "failed": "fail",
    "cancelled": "cancel",
    "timed_out": "time_out",
    "lost": "lose",
    "never_started": "never_start",
}


def start_attempt(
    tx: ModelTx,
    attempt_id: str,
    boot_id: str,
    placed_on: str | None,
    *,
    key_hash: str | None = None,
    lease: timedelta | None = None,
) -> Any:
    attempt = tx.data.attempts.get(attempt_id)
    if attempt is None:
        return NotStarted("gone", "no such attempt")
    if key_hash is not None and placed_on is None:
        placed_on = lone(attempt_id)
    if attempt.placed_on not in (None, placed_on):
        return NotStarted("conflict", "another supervisor has it")
    if attempt.state == "running":
        return _start_again(tx, attempt, boot_id, key_hash)
    if attempt.state != "queued":
        return NotStarted("gone", f"it is {attempt.state}")
    one = attempt.instance
    try:
        body = body_of(one)
    except Unresolved as error:
        end = End(attempt_id=attempt_id, ended="rejected", cause="config", error=str(error))  # type: ignore[arg-type]  # a row has what it asks for
        _finish(tx, attempt, end, (), "scheduler")
        return NotStarted("failed", str(error))
    if key_hash is not None:
        if lease is not None:
            hold_alone(tx, attempt, boot_id, lease)
        elif placed_on is not None:
            require_server(tx, placed_on, boot_id, executor=attempt.executor, queue=attempt.queue)
    attempt.state, attempt.boot_id, attempt.key_hash, attempt.placed_on = "running", boot_id, key_hash, placed_on
    attempt.started_at = one.started_at = tx.now
    attempt.launch_after = attempt.deferred_reason = None
    tx.task_event(one, "running", actor="supervisor", attempt=attempt_id)
    return Started(body, attempt.executor, tx.now - attempt.queued_at)


def _start_again(tx: ModelTx, attempt: Attempt, boot_id: str, key_hash: str | None) -> Any:
    if attempt.boot_id != boot_id:
        return NotStarted("conflict", "another supervisor has started it")
    if attempt.key_hash != key_hash:
        raise BadCredential(f"The attempt {attempt.id} was started with another key.")
    return Started(body_of(attempt.instance), attempt.executor, tx.now - attempt.queued_at, attempt.stop_reason)


def end_attempt(
    tx: ModelTx,
    end: End,
    outlets: Sequence[Any] = (),
    *,
    actor: str = "supervisor",
    expired_agent: str | None = None,
    earlier_boot_of: tuple[str, str] | None = None,
    lease: timedelta | None = None,
) -> EndNoted:
    attempt = tx.data.attempts.get(end.attempt_id)
    if attempt is None:
        return EndNoted(accepted=False)
    if end.key_hash is not None and end.key_hash != attempt.key_hash:
        raise BadCredential(f"This is not the key of attempt {end.attempt_id}.")
    ended = str(end.ended)
    if end.boot_id is not None:
        is_theirs = attempt.boot_id == end.boot_id
        if attempt.state != "running" or not is_theirs:
            # The accepted end may be told again, by who showed a key when it started.
            told = is_theirs and attempt.key_hash is not None and attempt.state == ended
            told = told and ended in ("success", "failed", "timed_out", "cancelled")
            return EndNoted(accepted=told, executor=attempt.executor)
    else:
        before = "queued" if ended in ("never_started", "rejected", "drained") else "running"
        if attempt.state != before:
            return EndNoted(accepted=False)
    if expired_agent is not None and not (attempt.placed_on == expired_agent and is_expired(tx, expired_agent, lease)):
        return EndNoted(accepted=False)
    if earlier_boot_of is not None and (
        attempt.placed_on != earlier_boot_of[0] or attempt.boot_id == earlier_boot_of[1]
    ):
        return EndNoted(accepted=False)
    return EndNoted(accepted=True, executor=attempt.executor, admitted=_finish(tx, attempt, end, outlets, actor))


def _finish(tx: ModelTx, attempt: Attempt, end: End, outlets: Sequence[Any], actor: str) -> list[Admitted]:
    one, run = attempt.instance, attempt.run
    state = _settle(tx, attempt, end, actor)
    if one.is_final:
        if state == "failed" and run.plan.fail_fast and not one.task.allow_failure:
            stop_everything(tx, run, "skipped", "fail_fast", actor="scheduler")
        look_at(tx, [run.instances[number] for number in one.task.downstream])
    end_if_done(tx, run, actor)
    return admit(tx, outlets)


def _settle(tx: ModelTx, attempt: Attempt, end: End, actor: str) -> str:
    one = attempt.instance
    became, state, cost, reason = rules.settle(str(end.ended), one)
    if state == "up_for_retry":
        if cost == "loss":
            one.due_at = tx.now + rules.pause_after_loss(one.losses + 1)
        else:
            luck = int.from_bytes(tx.entropy.token(4), "big") / 2**32
            one.due_at = tx.now + rules.pause_after_failure(one, one.failures + 1, luck)
        tx.topics.add("due")
    one.failures += cost == "failure"
    one.losses += cost == "loss"
    output = end.output if attempt.key_hash is None or end.output is not None else attempt.staged
    attempt.staged = None
    if state == "success" and output is not None:
        one.output = (attempt.id, output)
    over(tx, attempt, became)
    ended_at = tx.now if end.ended_at is None else min(end.ended_at, tx.now)
    attempt.cause, attempt.error, attempt.ended_at = end.cause, end.error, ended_at
    if attempt.placed_on == lone(attempt.id):
        let_go(tx, attempt.id)
    facts = {
        "attempt": _STEPS[became],
        "cause": end.cause,
        "exit_code": end.exit_code,
        "signal": end.signal,
        "error": end.error or None,
    }
    told = {name: value for name, value in facts.items() if value is not None}
    tx.task_event(
        one, state, actor=actor, attempt=attempt.id, reason=reason, data=None if state == "success" else told
    )  # fmt: skip
    one.reason, one.error = reason, end.error or None
    if one.is_final:
        one.ended_at = ended_at
    if state == "scheduled":
        one.scheduled_at = tx.now
        tx.topics.add("ready")
    return state
