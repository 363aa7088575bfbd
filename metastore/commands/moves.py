"""What the starts and ends of attempts write: collected while each is looked at, written together."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import BigInteger, Integer, Text, delete, func, insert, update

from dag.outcomes import delay_after_loss, settle
from dag.retry import delay_before
from dag.states import ATTEMPT_STEPS, TASK_FINAL, TASK_STEPS, AttemptState, AttemptStep, TaskState, TaskStep, step
from metastore.among import among
from metastore.commands.advance import propagate
from metastore.commands.lone import let_go, lone
from metastore.commands.staging import drop_staged
from metastore.commands.stopping import fail_fast
from metastore.each import Each, write
from metastore.models.attempts import attempts
from metastore.models.base import Instant
from metastore.models.runs import outputs, task_instances

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from dag.outcomes import Settlement
    from metastore.commands.attempts import End
    from metastore.commands.turn import Turn
    from metastore.store import Tx

#: An error line in the database; the log has the whole.
_LONGEST_ERROR: Final = 2_000
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_attempt = attempts.c
_instance = task_instances.c
_START_ATTEMPT: Final = Each(
    "attempts",
    {"attempt_id": Text, "from_state": Text, "new_boot": Text, "new_key": Text, "now": Instant, "where": Text},
    lambda value: (
        update(attempts)
        # Not the state itself: Postgres would find them by the index of active attempts, and read all of these.
        .where(_attempt.id == value("attempt_id"), _attempt.state == value("from_state"))
        .values(
            state=AttemptState.RUNNING.value,
            boot_id=value("new_boot"),
            key_hash=value("new_key"),
            started_at=value("now"),
            placed_on=value("where"),
            launch_after=None,
            deferred_reason=None,
        )
    ),
)
_START_INSTANCE: Final = Each(
    "instances",
    {"instance": BigInteger, "fence": Integer, "now": Instant},
    lambda value: (
        update(task_instances)
        .where(
            _instance.id == value("instance"),
            _instance.state == TaskState.QUEUED.value,
            _instance.try_number == value("fence"),
        )
        .values(state=TaskState.RUNNING.value, started_at=value("now"))
    ),
)
_END_ATTEMPT: Final = Each(
    "attempts",
    {
        "attempt_id": Text,
        "from_state": Text,
        "to": Text,
        "began": Instant,
        "ended": Instant,
        "why": Text,
        "code": Integer,
        "by_signal": Integer,
        "line": Text,
        "size": BigInteger,
        "dropped": BigInteger,
    },
    lambda value: (
        update(attempts)
        .where(_attempt.id == value("attempt_id"), _attempt.state == value("from_state"))
        .values(
            state=value("to"),
            started_at=func.coalesce(value("began"), _attempt.started_at),
            ended_at=value("ended"),
            cause=value("why"),
            exit_code=value("code"),
            signal=value("by_signal"),
            error=value("line"),
            log_size=value("size"),
            log_dropped=value("dropped"),
        )
    ),
)
_END_INSTANCE: Final = Each(
    "instances",
    {
        "instance": BigInteger,
        "from_state": Text,
        "fence": Integer,
        "to": Text,
        "why": Text,
        "line": Text,
        "failed": Integer,
        "lost": Integer,
        "due": Instant,
        "ended": Instant,
        "scheduled": Instant,
    },
    lambda value: (
        update(task_instances)
        .where(
            _instance.id == value("instance"),
            _instance.state == value("from_state"),
            _instance.try_number == value("fence"),
        )
        .values(
            state=value("to"),
            reason=value("why"),
            error=value("line"),
            failures=_instance.failures + value("failed"),
            losses=_instance.losses + value("lost"),
            due_at=value("due"),
            ended_at=value("ended"),
            scheduled_at=func.coalesce(value("scheduled"), _instance.scheduled_at),
        )
    ),
)
_SAVE_OUTPUTS: Final = insert(outputs).inline()
_DROP_OUTPUTS: Final = delete(outputs).where(among(outputs.c.instance, "instances"))


class Moves:
    """Starts and ends of attempts in runs that are held; no attempt is moved twice."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        #: For each start and each end, the values for its attempt and for its instance.
        self._starts: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._ends: list[tuple[dict[str, Any], dict[str, Any]]] = []
        #: Of what succeeded with one, the values for its output.
        self._outputs: list[dict[str, Any]] = []
        #: Ended attempts whose supervisors have staged an output.
        self._staged: list[str] = []
        #: What is final now, by run.
        self._final: dict[int, list[tuple[int, TaskState]]] = defaultdict(list)
        self._failed_fast: set[int] = set()

    def start(self, turn: Turn, row: Any, boot_id: str, key_hash: str | None, placed_on: str | None) -> None:
        """Let the supervisor *boot_id* run the attempt."""
        now = self._tx.now
        before = AttemptState(row.attempt_state)
        step(ATTEMPT_STEPS, before, AttemptStep.START)
        to = step(TASK_STEPS, TaskState(row.state), TaskStep.START)
        self._starts.append(
            (
                {
                    "attempt_id": row.attempt_id,
                    "from_state": before,
                    "new_boot": boot_id,
                    "new_key": key_hash,
                    "now": now,
                    "where": placed_on,
                },
                {"instance": row.id, "fence": row.fence, "now": now},
            )
        )
        turn.task_event(row, to, actor="supervisor", attempt_id=row.attempt_id)

    def end(self, turn: Turn, row: Any, end: End, actor: str) -> None:
        """Move the attempt and its instance to where the end leads them."""
        tx = self._tx
        task = turn.task(row.task_no)
        before = TaskState(row.state)
        settlement = settle(end.ended, before, failures=row.failures, losses=row.losses, retries=task.retries)
        to = step(TASK_STEPS, before, settlement.task)
        final = to in TASK_FINAL
        instance = {
            "instance": row.id,
            "from_state": before,
            "fence": row.fence,
            "to": to,
            "why": settlement.reason,
            "line": _line(end.error),
            "failed": int(settlement.cost == "failure"),
            "lost": int(settlement.cost == "loss"),
            "due": _due(tx, turn, row, settlement),
            "ended": _moment(end.ended_at, tx.now) if final else None,
            "scheduled": tx.now if to is TaskState.SCHEDULED else None,
        }
        self._ends.append((_attempt_values(tx, row, end, settlement), instance))
        turn.task_event(
            row, to, actor=actor, attempt_id=row.attempt_id, reason=settlement.reason, data=_facts(end, settlement)
        )
        if row.staged is not None:
            self._staged.append(row.attempt_id)
        output = row.staged if end.output is None else end.output
        if to is TaskState.SUCCESS and output is not None:
            self._outputs.append({"instance": row.id, "attempt_id": row.attempt_id, "value": output})
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
            self._final[turn.id].append((row.task_no, to))
            if to is TaskState.FAILED and turn.plan.fail_fast and not task.allow_failure:
                self._failed_fast.add(turn.id)

    def write(self, turns: Mapping[int, Turn]) -> None:
        """Write all of it, then tell the neighbours of what ended for good."""
        write(
            self._tx,
            (_START_ATTEMPT, [attempt for attempt, _ in self._starts]),
            (_START_INSTANCE, [instance for _, instance in self._starts]),
            (_END_ATTEMPT, [attempt for attempt, _ in self._ends]),
            (_END_INSTANCE, [instance for _, instance in self._ends]),
        )
        self._save_outputs()
        for run, news in self._final.items():
            if run in self._failed_fast:
                fail_fast(turns[run])
            propagate(turns[run], news)

    def _save_outputs(self) -> None:
        drop_staged(self._tx, self._staged)
        if self._outputs:
            self._tx.conn.execute(_DROP_OUTPUTS, {"instances": [one["instance"] for one in self._outputs]})
            self._tx.conn.execute(_SAVE_OUTPUTS, self._outputs)


def _attempt_values(tx: Tx, row: Any, end: End, settlement: Settlement) -> dict[str, Any]:
    before = AttemptState(row.attempt_state)
    return {
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
