"""The life of an attempt: its start, its end, its loss.

A start is the fence: the compare-and-set on ``queued`` with a random boot_id commits before any user code runs.  Of the
ends one is accepted, from the supervisor that won the start, and its downstream neighbours are told in the same
transaction.  Starts and ends that come at the same time share one (:func:`move_attempts`): their runs are locked once,
what is written is written once for all, and the slots that they free are given away once.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from dag.errors import BadCredential, RunyardError
from dag.outcomes import Ended
from dag.references import Unresolved
from dag.states import AttemptState
from metastore.among import among
from metastore.commands.admission import Admitted, Outlet, admit
from metastore.commands.agents import is_expired, is_held
from metastore.commands.body import build_body, failing_body
from metastore.commands.lone import hold_alone, lone
from metastore.commands.moves import Moves
from metastore.commands.turn import close_turns, open_by_attempts
from metastore.commands.workers import find_worker, require_server
from metastore.models.attempts import attempts, staged_outputs
from metastore.models.runs import task_instances

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from metastore.commands.turn import Turn
    from metastore.store import Tx
    from worker.protocol import Refusal, TaskBody

#: What an attempt became by an end that nobody but its supervisor tells.
_TOLD: Final = {
    Ended.SUCCESS: AttemptState.SUCCESS,
    Ended.FAILED: AttemptState.FAILED,
    Ended.TIMED_OUT: AttemptState.TIMED_OUT,
    Ended.CANCELLED: AttemptState.CANCELLED,
}

_attempt = attempts.c
_instance = task_instances.c
_BOTH: Final = (
    select(
        _attempt.id.label("attempt_id"),
        _attempt.run,
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
        staged_outputs.c.value.label("staged"),
    )
    .select_from(
        attempts.join(task_instances, _instance.id == _attempt.instance).outerjoin(
            staged_outputs, staged_outputs.c.attempt_id == _attempt.id
        )
    )
    .where(among(_attempt.id, "attempts"))
)


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
    """Whether the end was the one accepted end, and what was admitted into the slots that it freed.

    Of ends that share a transaction one has all that was admitted; what was started for a supervisor, one of its own.
    """

    accepted: bool
    executor: str = ""
    admitted: Sequence[Admitted] = ()


Answer = Started | NotStarted | EndNoted | RunyardError


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """A supervisor asks to run an attempt."""

    attempt_id: str
    boot_id: str
    placed_on: str | None
    #: SHA-256 of the secret that a remote supervisor will show.
    key_hash: str | None = None
    #: Of a supervisor that is registered nowhere.
    lease: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Somebody says how an attempt ended; free slots of *outlets* are given to what is ready."""

    end: End
    outlets: Sequence[Outlet] = ()
    actor: str = "supervisor"
    #: Accepted only while this agent holds the attempt and its *lease* is still over.
    expired_agent: str | None = None
    lease: timedelta | None = None
    #: (worker, boot): accepted only while another boot of that worker holds it.
    earlier_boot_of: tuple[str, str] | None = None
    #: (agent, host): accepted only while it is at that agent, and the agent is that host's.
    held_by: tuple[str, str] | None = None

    @property
    def attempt_id(self) -> str:
        return self.end.attempt_id


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
    call = Starting(attempt_id=attempt_id, boot_id=boot_id, placed_on=placed_on, key_hash=key_hash, lease=lease)
    answer = _alone(tx, call)
    assert not isinstance(answer, EndNoted)  # noqa: S101  # it was a start
    return answer


def end_attempt(
    tx: Tx,
    end: End,
    outlets: Sequence[Outlet] = (),
    *,
    actor: str = "supervisor",
    expired_agent: str | None = None,
    earlier_boot_of: tuple[str, str] | None = None,
    lease: timedelta | None = None,
    held_by: tuple[str, str] | None = None,
) -> EndNoted:
    """Accept the one end of an attempt, tell its neighbours, and admit what is ready into *outlets*.

    A stale end changes nothing: another supervisor's, a second one, one of an attempt that was given up.  The accepted
    one that is told again is accepted again.  :class:`Ending` has what the others mean.
    """
    call = Ending(
        end=end,
        outlets=outlets,
        actor=actor,
        expired_agent=expired_agent,
        earlier_boot_of=earlier_boot_of,
        lease=lease,
        held_by=held_by,
    )
    answer = _alone(tx, call)
    assert isinstance(answer, EndNoted)  # noqa: S101  # it was an end
    return answer


def _alone(tx: Tx, call: Starting | Ending) -> Started | NotStarted | EndNoted:
    (answer,) = move_attempts(tx, [call])
    if isinstance(answer, Exception):
        raise answer
    return answer


def move_attempts(tx: Tx, calls: Sequence[Starting | Ending]) -> list[Answer]:
    """Do the same for several, no two of them about one attempt; what is wrong with one is its answer.

    They are looked at in their order, as their rows were before; then the starts are written, the ends, and what the
    ends lead to.
    """
    ids = [call.attempt_id for call in calls]
    turns = open_by_attempts(tx, ids)
    rows = {row.attempt_id: row for row in tx.conn.execute(_BOTH, {"attempts": ids})} if turns else {}
    batch = _Batch(Moves(tx))
    answers = []
    for call in calls:
        row = rows.get(call.attempt_id)
        answers.append(_look_at(batch, None if row is None else turns.get(row.run), row, call))
    batch.moves.write(turns)
    for turn in sorted(turns.values(), key=lambda turn: turn.runs_key):  # in the lock order of what they give back
        if turn.id in batch.actors:
            turn.end_if_done(batch.actors[turn.id])
    admitted = _admit(tx, batch.accepted, turns)
    close_turns(tx, turns.values(), "supervisor")
    return [
        replace(answer, admitted=admitted[call.attempt_id])
        if isinstance(answer, EndNoted) and call.attempt_id in admitted
        else answer
        for call, answer in zip(calls, answers, strict=True)
    ]


class _Batch:
    """What a command has found out so far."""

    def __init__(self, moves: Moves) -> None:
        self.moves = moves
        #: Who ended something, by run.
        self.actors: dict[int, str] = {}
        #: The ends that count.
        self.accepted: list[Ending] = []
        #: Workers that were looked for.
        self.workers: dict[str, Any] = {}


def _look_at(batch: _Batch, turn: Turn | None, row: Any, call: Starting | Ending) -> Answer:
    try:
        if isinstance(call, Starting):
            return NotStarted("gone", "no such attempt") if turn is None else _start(batch, turn, row, call)
        return EndNoted(accepted=False) if turn is None else _end(batch, turn, row, call)
    except RunyardError as error:
        return error


def _admit(tx: Tx, endings: Sequence[Ending], turns: dict[int, Turn]) -> dict[str, list[Admitted]]:
    """Give away what became free; what was admitted comes by the end that it is told with."""
    outlets: dict[tuple[str, str | None], Outlet] = {}
    owners: dict[str | None, str] = {}
    for ending in reversed(endings):  # the first one of a supervisor is told
        for outlet in ending.outlets:
            if outlet.boot_id is not None:
                owners[outlet.placed_on] = ending.attempt_id
                outlets[outlet.executor, outlet.placed_on] = outlet
            else:
                outlets.setdefault((outlet.executor, outlet.placed_on), outlet)
    if not outlets:
        return {}
    told: dict[str, list[Admitted]] = defaultdict(list)
    for one in admit(tx, list(outlets.values()), turns):
        told[endings[0].attempt_id if one.body is None else owners[one.placed_on]].append(one)
    return told


def _start(batch: _Batch, turn: Turn, row: Any, call: Starting) -> Started | NotStarted:
    tx = turn.tx
    state = AttemptState(row.attempt_state)
    placed_on = call.placed_on
    if call.key_hash is not None and placed_on is None:
        placed_on = lone(call.attempt_id)
    if row.placed_on not in (None, placed_on):
        return NotStarted("conflict", "another supervisor has it")
    if state is AttemptState.RUNNING and row.boot_id == call.boot_id:
        if row.key_hash != call.key_hash:
            raise BadCredential(f"The attempt {call.attempt_id} was started with another key.")
        # Asking again proves nothing about whether it has begun: the question may be older than the answer.
        try:
            body = build_body(tx, turn, row, row.fence)
        except Unresolved as error:  # an upstream was cleared meanwhile, and left another output
            body = failing_body(turn, row, row.fence, str(error))
        return Started(body, row.executor, tx.now - row.queued_at, row.stop_reason)
    if state is AttemptState.RUNNING:
        return NotStarted("conflict", "another supervisor has started it")
    if state is not AttemptState.QUEUED:
        return NotStarted("gone", f"it is {state}")
    try:
        body = build_body(tx, turn, row, row.fence)
    except Unresolved as error:
        end = End(attempt_id=call.attempt_id, ended=Ended.REJECTED, cause="config", error=str(error))
        batch.moves.end(turn, row, end, "scheduler")
        batch.actors[turn.id] = "scheduler"
        return NotStarted("failed", str(error))
    if call.key_hash is not None:
        _let_in(batch, tx, row, call, placed_on)
    batch.moves.start(turn, row, call.boot_id, call.key_hash, placed_on)
    return Started(body, row.executor, tx.now - row.queued_at)


def _let_in(batch: _Batch, tx: Tx, row: Any, call: Starting, placed_on: str | None) -> None:
    if call.lease is not None:
        hold_alone(tx, row.attempt_id, row.executor, call.boot_id, call.lease)
    elif placed_on is not None:
        if placed_on not in batch.workers:
            batch.workers[placed_on] = find_worker(tx, placed_on)
        require_server(tx, batch.workers[placed_on], placed_on, call.boot_id, executor=row.executor, queue=row.queue)


def _end(batch: _Batch, turn: Turn, row: Any, call: Ending) -> EndNoted:
    end = call.end
    state = AttemptState(row.attempt_state)
    if end.key_hash is not None and row.key_hash != end.key_hash:
        raise BadCredential(f"This is not the key of attempt {end.attempt_id}.")
    if end.boot_id is not None and (state is not AttemptState.RUNNING or row.boot_id != end.boot_id):
        told = row.boot_id == end.boot_id and row.key_hash is not None and state == _TOLD.get(end.ended)
        return EndNoted(accepted=told, executor=row.executor)
    if end.boot_id is None and not _may_conclude(end.ended, state):
        return EndNoted(accepted=False)
    expired = call.expired_agent
    if expired is not None and not (row.placed_on == expired and is_expired(turn.tx, expired, call.lease)):
        return EndNoted(accepted=False)
    other = call.earlier_boot_of
    if other is not None and (row.placed_on != other[0] or row.boot_id == other[1]):
        return EndNoted(accepted=False)
    held_by = call.held_by
    if held_by is not None and not (row.placed_on == held_by[0] and is_held(turn.tx, *held_by)):
        return EndNoted(accepted=False)
    batch.moves.end(turn, row, end, call.actor)
    batch.actors[turn.id] = call.actor
    batch.accepted.append(call)
    return EndNoted(accepted=True, executor=row.executor)


def _may_conclude(ended: Ended, state: AttemptState) -> bool:
    """Whether the scheduler may conclude *ended* of an attempt in *state* without its supervisor."""
    if ended in (Ended.NEVER_STARTED, Ended.REJECTED, Ended.DRAINED):
        return state is AttemptState.QUEUED
    return state is AttemptState.RUNNING
