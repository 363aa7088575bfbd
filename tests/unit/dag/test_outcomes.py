from __future__ import annotations

from datetime import timedelta

import pytest

from dag.outcomes import MAX_LOSSES, Cost, Ended, delay_after_loss, settle, verdict
from dag.states import (
    ATTEMPT_STEPS,
    RUN_STEPS,
    TASK_STEPS,
    AttemptState,
    AttemptStep,
    RunState,
    RunStep,
    TaskState,
    TaskStep,
    step,
)

RUNNING, CANCELLING, QUEUED = TaskState.RUNNING, TaskState.CANCELLING, TaskState.QUEUED


@pytest.mark.parametrize(
    ("ended", "task", "failures", "losses", "taken", "cost"),
    [
        pytest.param(Ended.SUCCESS, RUNNING, 0, 0, TaskStep.SUCCEED, "none", id="success"),
        pytest.param(Ended.SUCCESS, CANCELLING, 0, 0, TaskStep.SUCCEED, "none", id="success beats a cancel"),
        pytest.param(Ended.FAILED, RUNNING, 0, 0, TaskStep.RETRY, "failure", id="first failure of two retries"),
        pytest.param(Ended.FAILED, RUNNING, 1, 0, TaskStep.RETRY, "failure", id="second failure of two retries"),
        pytest.param(Ended.FAILED, RUNNING, 2, 0, TaskStep.FAIL, "failure", id="retries are used up"),
        pytest.param(Ended.FAILED, CANCELLING, 0, 0, TaskStep.FAIL, "failure", id="no retry while cancelling"),
        pytest.param(Ended.TIMED_OUT, RUNNING, 0, 0, TaskStep.RETRY, "failure", id="a timeout is a failure"),
        pytest.param(Ended.TIMED_OUT, RUNNING, 2, 0, TaskStep.FAIL, "failure", id="the last timeout fails"),
        pytest.param(Ended.TIMED_OUT, CANCELLING, 0, 0, TaskStep.FAIL, "failure", id="timed out while cancelling"),
        pytest.param(Ended.CANCELLED, CANCELLING, 0, 0, TaskStep.END_CANCELLED, "none", id="cancelled as asked"),
        pytest.param(Ended.CANCELLED, RUNNING, 0, 0, TaskStep.REQUEUE, "loss", id="cancelled by nobody is a loss"),
        pytest.param(Ended.DRAINED, RUNNING, 2, 3, TaskStep.REQUEUE, "none", id="a drain costs nothing"),
        pytest.param(Ended.DRAINED, QUEUED, 0, 0, TaskStep.REQUEUE, "none", id="drained before it was started"),
        pytest.param(Ended.DRAINED, CANCELLING, 0, 0, TaskStep.END_CANCELLED, "none", id="drained while cancelling"),
        pytest.param(Ended.LOST, RUNNING, 2, 0, TaskStep.REQUEUE, "loss", id="the first loss is requeued at once"),
        pytest.param(Ended.LOST, RUNNING, 0, 1, TaskStep.RETRY, "loss", id="the second loss waits"),
        pytest.param(Ended.LOST, RUNNING, 0, MAX_LOSSES, TaskStep.FAIL, "loss", id="losses are used up"),
        pytest.param(Ended.LOST, CANCELLING, 0, 0, TaskStep.END_CANCELLED, "loss", id="lost while cancelling"),
        pytest.param(Ended.NEVER_STARTED, QUEUED, 0, 0, TaskStep.REQUEUE, "loss", id="never started"),
        pytest.param(Ended.REJECTED, QUEUED, 0, 0, TaskStep.FAIL, "failure", id="rejected: retries are pointless"),
    ],
)
def test_the_end_of_an_attempt_settles_its_instance(  # the columns of the table
    ended: Ended, task: TaskState, failures: int, losses: int, taken: TaskStep, cost: Cost
) -> None:
    found = settle(ended, task, failures=failures, losses=losses, retries=2)
    assert (found.task, found.cost) == (taken, cost)


@pytest.mark.parametrize("ended", list(Ended))
@pytest.mark.parametrize("task", [QUEUED, RUNNING, CANCELLING])
@pytest.mark.parametrize("budget", [0, 1, MAX_LOSSES])
def test_every_settlement_is_a_legal_step(ended: Ended, task: TaskState, budget: int) -> None:
    queued_only = ended in (Ended.NEVER_STARTED, Ended.REJECTED)
    if queued_only != (task is QUEUED) and not (ended is Ended.DRAINED and task is QUEUED):
        return
    found = settle(ended, task, failures=budget, losses=budget, retries=1)
    step(TASK_STEPS, task, found.task)
    step(ATTEMPT_STEPS, AttemptState.QUEUED if task is QUEUED else AttemptState.RUNNING, found.attempt)


def test_a_timeout_is_told_apart_from_a_failure() -> None:
    assert settle(Ended.TIMED_OUT, RUNNING, failures=0, losses=0, retries=0).attempt is AttemptStep.TIME_OUT
    assert settle(Ended.TIMED_OUT, RUNNING, failures=0, losses=0, retries=0).reason == "timed_out"


def test_losses_wait_longer_and_longer_but_not_for_ever() -> None:
    waits = [delay_after_loss(losses) for losses in (1, 2, 3, 4, 1_000)]
    assert waits == [
        timedelta(0),
        timedelta(seconds=5),
        timedelta(seconds=10),
        timedelta(seconds=20),
        timedelta(minutes=5),
    ]


@pytest.mark.parametrize(
    ("state", "reason", "asked", "cancelled", "bad", "taken"),
    [
        pytest.param(RunState.RUNNING, None, False, 0, 0, RunStep.SUCCEED, id="nothing went wrong"),
        pytest.param(RunState.RUNNING, None, False, 0, 1, RunStep.FAIL, id="a bad instance fails the run"),
        pytest.param(RunState.RUNNING, None, False, 2, 1, RunStep.FAIL, id="fail_fast cancels, and the run failed"),
        pytest.param(RunState.CANCELLING, "user", True, 1, 0, RunStep.END_CANCELLED, id="cancelled as asked"),
        pytest.param(RunState.CANCELLING, "user", True, 1, 1, RunStep.END_CANCELLED, id="a cancel beats a failure"),
        pytest.param(RunState.CANCELLING, "user", True, 0, 0, RunStep.SUCCEED, id="all succeeded before the cancel"),
        pytest.param(
            RunState.CANCELLING, "user", True, 0, 1, RunStep.FAIL, id="all ended before the cancel, one badly"
        ),
        pytest.param(RunState.CANCELLING, "run_timeout", False, 3, 0, RunStep.FAIL, id="out of time is a failure"),
    ],
)
def test_the_verdict_of_a_run(
    state: RunState,
    reason: str | None,
    asked: bool,  # noqa: FBT001  # a column of the table
    cancelled: int,
    bad: int,
    taken: RunStep,
) -> None:
    found = verdict(state, reason=reason, cancel_asked=asked, cancelled=cancelled, bad=bad)
    assert found is taken
    step(RUN_STEPS, state, found)
