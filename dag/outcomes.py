"""What an ended attempt means for its task instance, and what ended instances mean for their run.

Pure: the facts in, the steps of :mod:`dag.states` out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, Literal

from dag.states import AttemptStep, RunState, RunStep, TaskState, TaskStep

#: How many attempts of one instance the infrastructure may lose before the instance fails.
MAX_LOSSES: Final = 3
_FIRST_LOSS_DELAY: Final = timedelta(seconds=5)
_LONGEST_LOSS_DELAY: Final = timedelta(minutes=5)


class Ended(StrEnum):
    """How an attempt ended; the supervisor's word, or the scheduler's where there is no supervisor any more."""

    SUCCESS = "success"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    #: Stopped because it was asked to.
    CANCELLED = "cancelled"
    #: Stopped because its host shuts down; costs nothing.
    DRAINED = "drained"
    #: The infrastructure went away under it.
    LOST = "lost"
    #: It was queued and nobody ever started it.
    NEVER_STARTED = "never_started"
    #: Its executor or its references say that it can never work; retries are pointless.
    REJECTED = "rejected"


Cost = Literal["none", "failure", "loss"]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the end of an attempt leads to."""

    attempt: AttemptStep
    task: TaskStep
    #: Which budget it is charged to.
    cost: Cost
    #: A short code for why the instance is where it is now; None where the state says all.
    reason: str | None


_ATTEMPT: Final = {
    Ended.SUCCESS: AttemptStep.SUCCEED,
    Ended.FAILED: AttemptStep.FAIL,
    Ended.TIMED_OUT: AttemptStep.TIME_OUT,
    Ended.CANCELLED: AttemptStep.CANCEL,
    Ended.DRAINED: AttemptStep.LOSE,
    Ended.LOST: AttemptStep.LOSE,
    Ended.NEVER_STARTED: AttemptStep.NEVER_START,
    Ended.REJECTED: AttemptStep.FAIL,
}


def settle(ended: Ended, task: TaskState, *, failures: int, losses: int, retries: int) -> Settlement:
    """Return what *ended* means for an instance in state *task* that has used *failures* and *losses* of its budgets.

    A genuine success that beats a cancel stays a success.  What ends badly while it is being cancelled is not tried
    again.
    """
    attempt = _ATTEMPT[ended]
    if task is TaskState.QUEUED and attempt is AttemptStep.LOSE:
        attempt = AttemptStep.NEVER_START  # drained before it was started
    if ended is Ended.SUCCESS:
        return Settlement(attempt, TaskStep.SUCCEED, "none", None)
    if task is TaskState.CANCELLING:
        return _settle_stopped(ended, attempt)
    if ended in (Ended.FAILED, Ended.TIMED_OUT):
        reason = "timed_out" if ended is Ended.TIMED_OUT else None
        step = TaskStep.RETRY if failures + 1 <= retries else TaskStep.FAIL
        return Settlement(attempt, step, "failure", reason)
    if ended is Ended.REJECTED:
        return Settlement(attempt, TaskStep.FAIL, "failure", "rejected")
    if ended is Ended.DRAINED:
        return Settlement(attempt, TaskStep.REQUEUE, "none", "drained")
    # lost, never started, or stopped by nobody we know of
    if losses + 1 > MAX_LOSSES:
        return Settlement(attempt, TaskStep.FAIL, "loss", "lost")
    return Settlement(attempt, TaskStep.REQUEUE if losses == 0 else TaskStep.RETRY, "loss", "lost")


def _settle_stopped(ended: Ended, attempt: AttemptStep) -> Settlement:
    if ended in (Ended.FAILED, Ended.TIMED_OUT):
        return Settlement(attempt, TaskStep.FAIL, "failure", "timed_out" if ended is Ended.TIMED_OUT else None)
    cost: Cost = "none" if ended in (Ended.CANCELLED, Ended.DRAINED) else "loss"
    return Settlement(attempt, TaskStep.END_CANCELLED, cost, None)


def delay_after_loss(losses: int) -> timedelta:
    """Return how long to wait before the attempt after the *losses*-th loss: nothing, then 5 s doubling up to 5 min."""
    if losses <= 1:
        return timedelta(0)
    doubled: int = 2 ** min(losses - 2, 16)
    return min(_FIRST_LOSS_DELAY * doubled, _LONGEST_LOSS_DELAY)


def verdict(state: RunState, *, reason: str | None, cancel_asked: bool, cancelled: int, bad: int) -> RunStep:
    """Return how a run ends whose instances have all ended.

    Cancelled if a cancel was asked for and an instance ended cancelled; else failed if an instance is failed or
    upstream_failed whose task lacks ``allow_failure`` (*bad*), or if the run ran out of time; else success.
    """
    if cancel_asked and cancelled and state is RunState.CANCELLING:
        return RunStep.END_CANCELLED
    if bad or reason == "run_timeout":
        return RunStep.FAIL
    return RunStep.SUCCEED
