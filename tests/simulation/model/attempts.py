"""The commands about attempts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dag.errors import BadCredential, RunyardError
from dag.references import Unresolved
from metastore.commands.attempts import End, Ending, EndNoted, NotStarted, Started, Starting
from tests.simulation.model import rules
from tests.simulation.model.going import admit, body_of, end_if_done, let_go_of_waiting, look_at, over, stop_everything
from tests.simulation.model.workers import hold_alone, is_expired, let_go, lone, require_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metastore.commands.admission import Admitted
    from tests.simulation.model.rows import Attempt, Instance, ModelTx


#: What the log calls the way to an attempt's last state.
_STEPS = {
    "success": "succeed",
    "failed": "fail",
    "cancelled": "cancel",
    "timed_out": "time_out",
    "lost": "lose",
    "never_started": "never_start",
}


def start_attempt(tx: ModelTx, attempt_id: str, boot_id: str, placed_on: str | None, **how: Any) -> Any:
    return _alone(tx, Starting(attempt_id=attempt_id, boot_id=boot_id, placed_on=placed_on, **how))


def end_attempt(tx: ModelTx, end: End, outlets: Sequence[Any] = (), **how: Any) -> Any:
    return _alone(tx, Ending(end=end, outlets=outlets, **how))


def _alone(tx: ModelTx, call: Starting | Ending) -> Any:
    (answer,) = move_attempts(tx, [call])
    if isinstance(answer, Exception):
        raise answer
    return answer


def move_attempts(tx: ModelTx, calls: Sequence[Starting | Ending]) -> list[Any]:
    answers: list[Any] = []
    ended: list[tuple[Attempt, str]] = []
    accepted: list[Ending] = []
    for call in calls:
        attempt = tx.data.attempts.get(call.attempt_id)
        try:
            if isinstance(call, Starting):
                answers.append(_start(tx, attempt, call, ended))
                continue
            answers.append(_end(tx, attempt, call, ended))
            if attempt is not None and ended and ended[-1][0] is attempt:
                accepted.append(call)
        except RunyardError as error:
            answers.append(error)
    _go_on(tx, ended)
    told = _admit(tx, accepted)
    return [
        replace(answer, admitted=told[call.attempt_id])
        if isinstance(answer, EndNoted) and call.attempt_id in told
        else answer
        for call, answer in zip(calls, answers, strict=True)
    ]


def _go_on(tx: ModelTx, ended: Sequence[tuple[Attempt, str]]) -> None:
    """Let what ended have its consequences: for its neighbours, and for its run."""
    over_now: dict[int, list[Instance]] = {}
    actors: dict[int, str] = {}
    for attempt, actor in ended:
        actors[attempt.run.id] = actor
        if attempt.instance.is_final:
            over_now.setdefault(attempt.run.id, []).append(attempt.instance)
    for ones in over_now.values():
        run = ones[0].run
        if run.plan.fail_fast and any(one.state == "failed" and not one.task.allow_failure for one in ones):
            stop_everything(tx, run, "skipped", "fail_fast", actor="scheduler")
        look_at(tx, [run.instances[number] for number in sorted({n for one in ones for n in one.task.downstream})])
    for run in sorted((tx.data.runs[number] for number in sorted(actors)), key=lambda run: run.runs_key):
        end_if_done(tx, run, actors[run.id])


def _admit(tx: ModelTx, accepted: Sequence[Ending]) -> dict[str, list[Admitted]]:
    outlets: dict[tuple[str, str | None], Any] = {}
    owners: dict[str | None, str] = {}
    for call in reversed(accepted):
        for outlet in call.outlets:
            if outlet.boot_id is not None:
                owners[outlet.placed_on] = call.attempt_id
            if outlet.boot_id is not None or (outlet.executor, outlet.placed_on) not in outlets:
                outlets[outlet.executor, outlet.placed_on] = outlet
    told: dict[str, list[Admitted]] = {}
    if not outlets:
        let_go_of_waiting(tx)
    else:
        for one in admit(tx, list(outlets.values())):
            owner = accepted[0].attempt_id if one.body is None else owners[one.placed_on]
            told.setdefault(owner, []).append(one)
    return told


def _start(tx: ModelTx, attempt: Attempt | None, call: Starting, ended: list[tuple[Attempt, str]]) -> Any:
    if attempt is None:
        return NotStarted("gone", "no such attempt")
    placed_on, key_hash, boot_id = call.placed_on, call.key_hash, call.boot_id
    if key_hash is not None and placed_on is None:
        placed_on = lone(attempt.id)
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
        end = End(attempt_id=attempt.id, ended="rejected", cause="config", error=str(error))  # type: ignore[arg-type]  # a row has what it asks for
        _settle(tx, attempt, end, "scheduler")
        ended.append((attempt, "scheduler"))
        return NotStarted("failed", str(error))
    if key_hash is not None:
        if call.lease is not None:
            hold_alone(tx, attempt, boot_id, call.lease)
        elif placed_on is not None:
            require_server(tx, placed_on, boot_id, executor=attempt.executor, queue=attempt.queue)
    attempt.state, attempt.boot_id, attempt.key_hash, attempt.placed_on = "running", boot_id, key_hash, placed_on
    attempt.started_at = one.started_at = tx.now
    attempt.launch_after = attempt.deferred_reason = None
    tx.task_event(one, "running", actor="supervisor", attempt=attempt.id)
    return Started(body, attempt.executor, tx.now - attempt.queued_at)


def _start_again(tx: ModelTx, attempt: Attempt, boot_id: str, key_hash: str | None) -> Any:
    if attempt.boot_id != boot_id:
        return NotStarted("conflict", "another supervisor has started it")
    if attempt.key_hash != key_hash:
        raise BadCredential(f"The attempt {attempt.id} was started with another key.")
    return Started(body_of(attempt.instance), attempt.executor, tx.now - attempt.queued_at, attempt.stop_reason)


def _end(tx: ModelTx, attempt: Attempt | None, call: Ending, ended: list[tuple[Attempt, str]]) -> EndNoted:
    end = call.end
    if attempt is None:
        return EndNoted(accepted=False)
    if end.key_hash is not None and end.key_hash != attempt.key_hash:
        raise BadCredential(f"This is not the key of attempt {end.attempt_id}.")
    word = str(end.ended)
    if end.boot_id is not None:
        is_theirs = attempt.boot_id == end.boot_id
        if attempt.state != "running" or not is_theirs:
            # The accepted end may be told again, by who showed a key when it started.
            told = is_theirs and attempt.key_hash is not None and attempt.state == word
            told = told and word in ("success", "failed", "timed_out", "cancelled")
            return EndNoted(accepted=told, executor=attempt.executor)
    else:
        before = "queued" if word in ("never_started", "rejected", "drained") else "running"
        if attempt.state != before:
            return EndNoted(accepted=False)
    expired, other = call.expired_agent, call.earlier_boot_of
    if expired is not None and not (attempt.placed_on == expired and is_expired(tx, expired, call.lease)):
        return EndNoted(accepted=False)
    if other is not None and (attempt.placed_on != other[0] or attempt.boot_id == other[1]):
        return EndNoted(accepted=False)
    if call.held_by is not None:
        place, host = call.held_by
        if attempt.placed_on != place or place not in tx.data.agents or tx.data.agents[place].host != host:
            return EndNoted(accepted=False)
    _settle(tx, attempt, end, call.actor)
    ended.append((attempt, call.actor))
    return EndNoted(accepted=True, executor=attempt.executor)


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
