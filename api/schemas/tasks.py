"""Task instances and their attempts."""

from typing import Any, Final, Literal

from pydantic import Field

from api.schemas.base import EXAMPLE_AT, Answer, Instant, instant, maybe, seconds_between
from dag.states import AttemptState, TaskState
from metastore.records import AttemptRecord, TaskRecord

#: What a ready instance waits for that is not there.
Lack = Literal["no_worker", "queue_full", "no_executor"]

EXAMPLE: Final[dict[str, Any]] = {
    "task_id": "roll",
    "map_index": -1,
    "state": "success",
    "reason": None,
    "detail": None,
    "try_number": 1,
    "executor": "local",
    "queue": "default",
    "worker_id": "019aaf0a-0000-7000-8000-000000000001",
    "priority_weight": 0,
    "failures": 0,
    "losses": 0,
    "due_at": None,
    "scheduled_at": EXAMPLE_AT,
    "queued_at": "2026-11-22T09:30:00.125112Z",
    "started_at": "2026-11-22T09:30:00.127001Z",
    "ended_at": "2026-11-22T09:30:00.159733Z",
    "duration": 0.032732,
    "blocked_on": None,
    "error": None,
}
EXAMPLE_WITH_OUTPUT: Final[dict[str, Any]] = EXAMPLE | {"output": 7}
EXAMPLE_ATTEMPT: Final[dict[str, Any]] = {
    "attempt_id": "019aaf0a-5b7b-7c7e-8a44-0d3f5e2b9c11",
    "try_number": 1,
    "state": "success",
    "executor": "local",
    "queue": None,
    "placed_on": "019aaf0a-0000-7000-8000-000000000001",
    "queued_at": "2026-11-22T09:30:00.125112Z",
    "started_at": "2026-11-22T09:30:00.127001Z",
    "ended_at": "2026-11-22T09:30:00.159733Z",
    "duration": 0.032732,
    "launch_after": None,
    "deferred_reason": None,
    "relaunches": 0,
    "stop_reason": None,
    "cause": "exit",
    "exit_code": 0,
    "signal": None,
    "error": None,
    "log_size": 15,
    "log_dropped": 0,
}


class Task(Answer):
    """A task instance: one task in one run."""

    task_id: str = Field(description="The task.")
    map_index: int = Field(description="Which instance of a mapped task; -1 for a task that is not mapped.")
    state: TaskState = Field(
        description="`pending`: waits for its upstreams. `scheduled`: ready, waits for a slot. "
        "`queued`: an attempt was handed to its executor. `running`. "
        "`up_for_retry`: the next attempt starts at `due_at`. `cancelling`: asked to stop. "
        "At the end `success`, `failed`, `skipped`, `upstream_failed` or `cancelled`."
    )
    reason: str | None = Field(
        description="Why it is in this state, where the state does not say all: a short code. `scheduled`: `no_worker` "
        "where no live worker serves its queue, `queue_full` where all of them are busy, `no_executor` where its task "
        "names an executor that no scheduler has."
    )
    detail: str | None = Field(description="What it waits for, in a sentence; null where there is nothing to say.")
    try_number: int = Field(description="How many attempts there were; only ever grows. 0: none yet.")
    executor: str = Field(description="What executes it.")
    queue: str = Field(description="Which workers may take it, where its executor hands tasks to workers.")
    worker_id: str | None = Field(description="The worker or agent that holds or held its last attempt.")
    priority_weight: int = Field(description="When slots are short the greater goes first.")
    failures: int = Field(description="Attempts that its own code failed, since the last clear; `retries` bounds them.")
    losses: int = Field(description="Attempts that the infrastructure lost, since the last clear; bounded separately.")
    due_at: Instant | None = Field(
        description="When it is looked at next: for `up_for_retry` the time of the next attempt."
    )
    scheduled_at: Instant | None = Field(description="When it became ready.")
    queued_at: Instant | None = Field(description="When its last attempt was queued.")
    started_at: Instant | None = Field(description="When its last attempt started.")
    ended_at: Instant | None = Field(description="When it ended.")
    duration: float | None = Field(description="Seconds from its last start to its end; null until it has ended.")
    blocked_on: str | None = Field(description="The limit that holds a scheduled instance back.")
    error: str | None = Field(description="One line about its last bad end.")


class TaskWithOutput(Task):
    """A task instance with its output."""

    output: Any = Field(description="What it returned or wrote to `$RUNYARD_OUTPUT`: any JSON value; null is none.")


class TaskPage(Answer):
    """A page of task instances, in the order of the document."""

    items: list[Task]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


class TaskList(Answer):
    """The task instances that a clear touches."""

    items: list[Task]
    dry_run: bool = Field(description="Whether nothing was done.")


class Attempt(Answer):
    """One try of a task instance."""

    attempt_id: str = Field(description="Its id everywhere: in events, in logs, in `$RUNYARD_ATTEMPT_ID`.")
    try_number: int = Field(description="Which try; from 1 up, not reset by a clear.")
    state: AttemptState = Field(
        description="`queued`, `running`, and at the end `success`, `failed`, `cancelled`, `timed_out`, "
        "`lost` (its infrastructure went away under it) or `never_started`."
    )
    executor: str = Field(description="What executes it.")
    queue: str | None = Field(description="The queue it was offered to; null where its executor has none.")
    placed_on: str | None = Field(
        description="The worker or agent that holds it; `attempt:…` is a supervisor that is registered nowhere."
    )
    queued_at: Instant = Field(description="When it was queued.")
    started_at: Instant | None = Field(description="When it won its start.")
    ended_at: Instant | None = Field(description="When it ended.")
    duration: float | None = Field(description="Seconds from its start to its end; null until it has ended.")
    launch_after: Instant | None = Field(description="Its executor deferred it until then.")
    deferred_reason: str | None = Field(description="Why its executor deferred it.")
    relaunches: int = Field(description="How often it was handed to its executor again.")
    stop_reason: str | None = Field(description="Why it was asked to stop.")
    cause: str | None = Field(description="What the end was: `exit`, `signal`, `timeout`, `worker_lost`…")
    exit_code: int | None = Field(description="The exit code of its process.")
    signal: int | None = Field(description="The signal that ended its process.")
    error: str | None = Field(description="One line for people about a bad end.")
    log_size: int | None = Field(description="Bytes of its log; null until it has ended.")
    log_dropped: int | None = Field(description="Bytes that it wrote beyond the cap of 64 MiB.")


class AttemptPage(Answer):
    """A page of attempts, first to last."""

    items: list[Attempt]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


def render(record: TaskRecord, *, waits_for: Lack | None = None, held_by: str | None = None) -> dict[str, Any]:
    """Write a :class:`Task`: *waits_for* is what a ready one lacks, *held_by* has its last attempt."""
    return {
        "task_id": record.task_id,
        "map_index": record.map_index,
        "state": record.state,
        "reason": waits_for or record.reason,
        "detail": None if waits_for is None else _LACKS[waits_for].format(record.queue, record.executor),
        "try_number": record.try_number,
        "executor": record.executor,
        "queue": record.queue,
        "worker_id": held_by,
        "priority_weight": record.priority_weight,
        "failures": record.failures,
        "losses": record.losses,
        "due_at": maybe(record.due_at),
        "scheduled_at": maybe(record.scheduled_at),
        "queued_at": maybe(record.queued_at),
        "started_at": maybe(record.started_at),
        "ended_at": maybe(record.ended_at),
        "duration": seconds_between(record.started_at, record.ended_at),
        "blocked_on": record.blocked_on,
        "error": record.error,
    }


_LACKS: Final[dict[Lack, str]] = {
    "no_worker": "No live worker serves the queue {0!r} of the executor {1!r}: start one, runyard worker --queues {0}.",
    "no_executor": "No scheduler has the executor {1!r}: name another one in the DAG, or start one with it.",
    "queue_full": "All slots of the workers that serve the queue {0!r} of the executor {1!r} are taken.",
}


def render_attempt(record: AttemptRecord) -> dict[str, Any]:
    """Write an :class:`Attempt`."""
    return {
        "attempt_id": record.id,
        "try_number": record.try_number,
        "state": record.state,
        "executor": record.executor,
        "queue": record.queue,
        "placed_on": record.placed_on,
        "queued_at": instant(record.queued_at),
        "started_at": maybe(record.started_at),
        "ended_at": maybe(record.ended_at),
        "duration": seconds_between(record.started_at, record.ended_at),
        "launch_after": maybe(record.launch_after),
        "deferred_reason": record.deferred_reason,
        "relaunches": record.relaunches,
        "stop_reason": record.stop_reason,
        "cause": record.cause,
        "exit_code": record.exit_code,
        "signal": record.signal,
        "error": record.error,
        "log_size": record.log_size,
        "log_dropped": record.log_dropped,
    }
