from __future__ import annotations

from typing import Any

import pytest

from dag.errors import IllegalStep
from dag.states import (
    ATTEMPT_FINAL,
    ATTEMPT_STEPS,
    RUN_FINAL,
    RUN_STEPS,
    TASK_ACTIVE,
    TASK_FINAL,
    TASK_STEPS,
    AttemptState,
    RunState,
    RunStep,
    TaskState,
    TaskStep,
    sources,
    step,
)

TABLES: list[Any] = [
    pytest.param(RUN_STEPS, RunState, id="run"),
    pytest.param(TASK_STEPS, TaskState, id="task"),
    pytest.param(ATTEMPT_STEPS, AttemptState, id="attempt"),
]


@pytest.mark.parametrize(("table", "kind"), TABLES)
def test_every_state_has_its_row(table: Any, kind: Any) -> None:
    assert set(table) == set(kind)


@pytest.mark.parametrize(("table", "kind"), TABLES)
def test_every_state_can_be_reached_from_the_first(table: Any, kind: Any) -> None:
    reached = {next(iter(kind))}
    frontier = list(reached)
    while frontier:
        for to in table[frontier.pop()].values():
            if to not in reached:
                reached.add(to)
                frontier.append(to)
    assert reached == set(kind)


def test_terminal_is_final_until_a_clear() -> None:
    assert all(set(TASK_STEPS[state]) == {TaskStep.CLEAR} for state in TASK_FINAL)
    assert all(set(RUN_STEPS[state]) == {RunStep.CLEAR} for state in RUN_FINAL)
    assert all(ATTEMPT_STEPS[state] == {} for state in ATTEMPT_FINAL)
    assert sources(TASK_STEPS, TaskStep.CLEAR) == TASK_FINAL


def test_what_holds_an_attempt_is_entered_by_queueing_and_left_by_an_end() -> None:
    into = {
        step for state in set(TaskState) - TASK_ACTIVE for step, to in TASK_STEPS[state].items() if to in TASK_ACTIVE
    }
    assert into == {TaskStep.QUEUE}


def test_nothing_that_is_being_cancelled_is_tried_again() -> None:
    assert set(TASK_STEPS[TaskState.CANCELLING].values()) <= TASK_FINAL


def test_an_illegal_step_names_state_and_step() -> None:
    with pytest.raises(IllegalStep, match="'start' is not possible in state 'success'"):
        step(TASK_STEPS, TaskState.SUCCESS, TaskStep.START)


def test_an_illegal_step_is_told_in_plain_words() -> None:
    assert str(IllegalStep(RunState.SUCCESS, RunStep.CANCEL)) == "'cancel' is not possible in state 'success'."
