"""The life of a run, a task instance and an attempt: every legal step, in three tables.

Nothing else in the repository may decide whether a step is legal.  A command asks :func:`sources` to write its
compare-and-set and :func:`step` for where a step leads; the diagram in ``docs/architecture.md`` is drawn from here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, TypeVar

from dag.errors import IllegalStep


class RunState(StrEnum):
    """Where a run is."""

    #: Accepted; waits for its time, for the DAG to be unpaused, or for ``max_active_runs``.
    QUEUED = "queued"
    #: Its task instances are being worked on.
    RUNNING = "running"
    #: It was asked to stop, and something of it still runs.
    CANCELLING = "cancelling"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TaskState(StrEnum):
    """Where a task instance is."""

    #: Waits for its upstreams.
    PENDING = "pending"
    #: Ready; waits for a slot.
    SCHEDULED = "scheduled"
    #: An attempt exists and was or will be handed to its executor.
    QUEUED = "queued"
    RUNNING = "running"
    #: Its last attempt ended badly; the next one has a due time.
    UP_FOR_RETRY = "up_for_retry"
    #: Asked to stop while running; may still end in success or failed.
    CANCELLING = "cancelling"
    SUCCESS = "success"
    FAILED = "failed"
    SKIPPED = "skipped"
    UPSTREAM_FAILED = "upstream_failed"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """Where one attempt is."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: Stopped because it ran longer than ``execution_timeout``.
    TIMED_OUT = "timed_out"
    #: Its infrastructure went away under it; counts as a loss, not as a failure.
    LOST = "lost"
    #: It never won its start; counts as a loss.
    NEVER_STARTED = "never_started"


class RunStep(StrEnum):
    """What can happen to a run."""

    START = "start"
    CANCEL = "cancel"
    SUCCEED = "succeed"
    FAIL = "fail"
    END_CANCELLED = "end_cancelled"
    CLEAR = "clear"


class TaskStep(StrEnum):
    """What can happen to a task instance."""

    SCHEDULE = "schedule"
    QUEUE = "queue"
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    RETRY = "retry"
    REQUEUE = "requeue"
    SKIP = "skip"
    FAIL_UPSTREAM = "fail_upstream"
    #: Ends at once what has not started.
    CANCEL = "cancel"
    #: Asks what runs to stop.
    STOP = "stop"
    END_CANCELLED = "end_cancelled"
    CLEAR = "clear"


class AttemptStep(StrEnum):
    """What can happen to an attempt."""

    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    TIME_OUT = "time_out"
    LOSE = "lose"
    NEVER_START = "never_start"


RUN_STEPS: Final[dict[RunState, dict[RunStep, RunState]]] = {
    RunState.QUEUED: {RunStep.START: RunState.RUNNING, RunStep.CANCEL: RunState.CANCELLED},
    RunState.RUNNING: {
        RunStep.CANCEL: RunState.CANCELLING,
        RunStep.SUCCEED: RunState.SUCCESS,
        RunStep.FAIL: RunState.FAILED,
    },
    RunState.CANCELLING: {
        RunStep.SUCCEED: RunState.SUCCESS,
        RunStep.FAIL: RunState.FAILED,
        RunStep.END_CANCELLED: RunState.CANCELLED,
    },
    RunState.SUCCESS: {RunStep.CLEAR: RunState.QUEUED},
    RunState.FAILED: {RunStep.CLEAR: RunState.QUEUED},
    RunState.CANCELLED: {RunStep.CLEAR: RunState.QUEUED},
}

_CLEAR: Final = {TaskStep.CLEAR: TaskState.PENDING}

TASK_STEPS: Final[dict[TaskState, dict[TaskStep, TaskState]]] = {
    TaskState.PENDING: {
        TaskStep.SCHEDULE: TaskState.SCHEDULED,
        TaskStep.SUCCEED: TaskState.SUCCESS,  # an `empty` task: no attempt, settled in the transaction
        TaskStep.SKIP: TaskState.SKIPPED,
        TaskStep.FAIL_UPSTREAM: TaskState.UPSTREAM_FAILED,
        TaskStep.CANCEL: TaskState.CANCELLED,
    },
    TaskState.SCHEDULED: {
        TaskStep.QUEUE: TaskState.QUEUED,
        TaskStep.FAIL: TaskState.FAILED,  # quarantined: it can never be queued
        TaskStep.SKIP: TaskState.SKIPPED,
        TaskStep.CANCEL: TaskState.CANCELLED,
    },
    TaskState.QUEUED: {
        TaskStep.START: TaskState.RUNNING,
        TaskStep.FAIL: TaskState.FAILED,
        TaskStep.RETRY: TaskState.UP_FOR_RETRY,
        TaskStep.REQUEUE: TaskState.SCHEDULED,
        TaskStep.SKIP: TaskState.SKIPPED,
        TaskStep.CANCEL: TaskState.CANCELLED,
    },
    TaskState.RUNNING: {
        TaskStep.SUCCEED: TaskState.SUCCESS,
        TaskStep.FAIL: TaskState.FAILED,
        TaskStep.RETRY: TaskState.UP_FOR_RETRY,
        TaskStep.REQUEUE: TaskState.SCHEDULED,
        TaskStep.STOP: TaskState.CANCELLING,
    },
    TaskState.UP_FOR_RETRY: {
        TaskStep.SCHEDULE: TaskState.SCHEDULED,
        TaskStep.SKIP: TaskState.SKIPPED,
        TaskStep.CANCEL: TaskState.CANCELLED,
    },
    TaskState.CANCELLING: {
        TaskStep.SUCCEED: TaskState.SUCCESS,
        TaskStep.FAIL: TaskState.FAILED,
        TaskStep.END_CANCELLED: TaskState.CANCELLED,
    },
    TaskState.SUCCESS: _CLEAR,
    TaskState.FAILED: _CLEAR,
    TaskState.SKIPPED: _CLEAR,
    TaskState.UPSTREAM_FAILED: _CLEAR,
    TaskState.CANCELLED: _CLEAR,
}

ATTEMPT_STEPS: Final[dict[AttemptState, dict[AttemptStep, AttemptState]]] = {
    AttemptState.QUEUED: {
        AttemptStep.START: AttemptState.RUNNING,
        AttemptStep.FAIL: AttemptState.FAILED,  # rejected by its executor: it can never work
        AttemptStep.CANCEL: AttemptState.CANCELLED,
        AttemptStep.NEVER_START: AttemptState.NEVER_STARTED,
    },
    AttemptState.RUNNING: {
        AttemptStep.SUCCEED: AttemptState.SUCCESS,
        AttemptStep.FAIL: AttemptState.FAILED,
        AttemptStep.CANCEL: AttemptState.CANCELLED,
        AttemptStep.TIME_OUT: AttemptState.TIMED_OUT,
        AttemptStep.LOSE: AttemptState.LOST,
    },
    AttemptState.SUCCESS: {},
    AttemptState.FAILED: {},
    AttemptState.CANCELLED: {},
    AttemptState.TIMED_OUT: {},
    AttemptState.LOST: {},
    AttemptState.NEVER_STARTED: {},
}

RUN_FINAL: Final = frozenset({RunState.SUCCESS, RunState.FAILED, RunState.CANCELLED})
TASK_FINAL: Final = frozenset(
    {
        TaskState.SUCCESS,
        TaskState.FAILED,
        TaskState.SKIPPED,
        TaskState.UPSTREAM_FAILED,
        TaskState.CANCELLED,
    }
)
#: An attempt exists and holds its slots.
TASK_ACTIVE: Final = frozenset({TaskState.QUEUED, TaskState.RUNNING, TaskState.CANCELLING})
ATTEMPT_FINAL: Final = frozenset(state for state, steps in ATTEMPT_STEPS.items() if not steps)

_State = TypeVar("_State", RunState, TaskState, AttemptState)
_Step = TypeVar("_Step", RunStep, TaskStep, AttemptStep)


def step(table: dict[_State, dict[_Step, _State]], state: _State, taken: _Step) -> _State:
    """Return where *taken* leads from *state*, or raise :exc:`~dag.errors.IllegalStep`."""
    try:
        return table[state][taken]
    except KeyError:
        raise IllegalStep(str(state), str(taken)) from None


def sources(table: dict[_State, dict[_Step, _State]], taken: _Step) -> frozenset[_State]:
    """Return every state from which *taken* is legal: what a compare-and-set compares with."""
    return frozenset(state for state, steps in table.items() if taken in steps)
