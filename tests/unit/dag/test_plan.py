"""A spec becomes a plan: numbers, defaults, needs; and a task becomes what an attempt gets."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dag.plan import Plan, PlanTask, Resolved, compile_plan, resolved
from dag.references import Scope, Unresolved
from dag.retry import RetryPolicy
from dag.spec import load
from dag.trigger_rules import TriggerRule

S = timedelta(seconds=1)


def plan(tasks: dict[str, Any], **fields: Any) -> Plan:
    return compile_plan(load({"dag_id": "d", "tasks": tasks, **fields}))


def task(found: Plan, task_id: str = "a") -> PlanTask:
    return found.tasks[found.numbers[task_id]]


EMPTY: dict[str, Any] = {"empty": {}}


def test_a_plan_holds_everything_of_a_small_dag() -> None:
    found = plan(
        {
            "sum": {
                "python": {"source": "def main(a, b): return a + b", "kwargs": {"a": "${outputs.one}", "b": None}},
                "depends_on": ["two", "one"],
                "trigger_rule": "none_failed",
                "retries": 3,
                "retry_backoff": True,
                "max_retry_delay": "PT1M",
                "retry_jitter": True,
                "execution_timeout": "PT5S",
                "kill_grace": "PT1S",
                "allow_failure": True,
                "priority_weight": 7,
                "executor": "local",
                "queue": "gpu",
                "on_lost_contact": "continue",
                "env": {"X": "${params.x}"},
                "cwd": "src",
            },
            "two": {"command": "echo 2 > $RUNYARD_OUTPUT", "shell": True},
            "one": {"command": ["python", "one.py"]},
        },
        params={"properties": {"x": {}}},
        max_active_runs=1,
        max_active_tasks=2,
        run_timeout="PT1M",
        fail_fast=True,
    )
    plain: dict[str, Any] = {
        "trigger_rule": TriggerRule.ALL_SUCCESS,
        "allow_failure": False,
        "retries": 0,
        "retry": RetryPolicy(30 * S),
        "timeout": None,
        "kill_grace": 10 * S,
        "executor": None,
        "queue": "default",
        "on_lost_contact": "kill",
        "priority_weight": 0,
        "env": {},
        "cwd": None,
        "needs": (),
    }
    one = PlanTask(0, "one", "command", (), (2,), body={"argv": ["python", "one.py"]}, **plain)
    two = PlanTask(1, "two", "command", (), (2,), body={"shell": "echo 2 > $RUNYARD_OUTPUT"}, **plain)
    total = PlanTask(
        no=2,
        task_id="sum",
        kind="python",
        upstream=(0, 1),
        downstream=(),
        trigger_rule=TriggerRule.NONE_FAILED,
        allow_failure=True,
        retries=3,
        retry=RetryPolicy(30 * S, backoff=True, max_delay=60 * S, jitter=0.5),
        timeout=5 * S,
        kill_grace=S,
        executor="local",
        queue="gpu",
        on_lost_contact="continue",
        priority_weight=7,
        env={"X": "${params.x}"},
        cwd="src",
        body={"source": "def main(a, b): return a + b", "args": [], "kwargs": {"a": "${outputs.one}", "b": None}},
        needs=(0,),
    )
    assert found == Plan(
        dag_id="d",
        tasks=(one, two, total),
        numbers={"one": 0, "two": 1, "sum": 2},
        roots=(0, 1),
        max_active_runs=1,
        max_active_tasks=2,
        run_timeout=60 * S,
        fail_fast=True,
        params={"properties": {"x": {}}},
    )


def test_a_call_and_an_empty_task_have_their_bodies() -> None:
    found = plan({"a": {"python": {"call": "m:f", "args": [1]}}, "b": {"empty": True}})
    assert (task(found).kind, task(found).body) == ("python", {"call": "m:f", "args": [1], "kwargs": {}})
    assert (task(found, "b").kind, task(found, "b").body) == ("empty", {})


def test_an_interpreter_is_passed_on_where_there_is_one() -> None:
    python = {"source": "main = 1", "interpreter": "python3.12"}
    assert task(plan({"a": {"python": python}})).body == {**python, "args": [], "kwargs": {}}
    assert "interpreter" not in task(plan({"a": {"python": {**python, "interpreter": None}}})).body


DEFAULTS: dict[str, Any] = {
    "retries": 2,
    "retry_delay": "PT1S",
    "retry_backoff": True,
    "max_retry_delay": "PT9S",
    "retry_jitter": 0.1,
    "execution_timeout": "PT8S",
    "kill_grace": "PT7S",
    "priority_weight": 6,
    "executor": "local",
    "queue": "gpu",
    "on_lost_contact": "continue",
    "cwd": "src",
    "trigger_rule": "all_done",
    "allow_failure": True,
}


def test_defaults_apply_to_what_a_task_leaves_open() -> None:
    found = task(plan({"a": {"command": ["x"]}}, defaults=DEFAULTS))
    assert (found.retries, found.retry) == (2, RetryPolicy(S, backoff=True, max_delay=9 * S, jitter=0.1))
    assert (found.timeout, found.kill_grace, found.priority_weight) == (8 * S, 7 * S, 6)
    assert (found.queue, found.on_lost_contact) == ("gpu", "continue")
    assert (found.executor, found.cwd, found.trigger_rule, found.allow_failure) == (
        "local",
        "src",
        TriggerRule.ALL_DONE,
        True,
    )


def test_what_a_task_says_itself_wins_also_where_it_says_the_usual() -> None:
    own = {
        "retries": 0,
        "retry_delay": "PT30S",
        "retry_backoff": False,
        "max_retry_delay": None,
        "retry_jitter": False,
        "execution_timeout": None,
        "kill_grace": "PT10S",
        "priority_weight": 0,
        "executor": None,
        "queue": "default",
        "on_lost_contact": "kill",
        "cwd": None,
        "trigger_rule": "all_success",
        "allow_failure": False,
    }
    assert task(plan({"a": {"command": ["x"], **own}}, defaults=DEFAULTS)) == task(plan({"a": {"command": ["x"]}}))


@pytest.mark.parametrize(
    ("dag", "defaults", "own", "executor"),
    [
        ({}, {}, {}, None),
        ({"executor": "x"}, {}, {}, "x"),
        ({"executor": "x"}, {"executor": "y"}, {}, "y"),
        ({"executor": "x"}, {"executor": "y"}, {"executor": "z"}, "z"),
        ({"executor": "x"}, {"executor": None}, {}, None),
        ({"executor": "x"}, {"executor": "y"}, {"executor": None}, None),
        ({"executor": "x"}, {}, {"executor": None}, None),
    ],
)
def test_the_nearest_word_on_the_executor_counts(
    dag: dict[str, Any], defaults: dict[str, Any], own: dict[str, Any], executor: str | None
) -> None:
    assert task(plan({"a": {"command": ["x"], **own}}, defaults=defaults, **dag)).executor == executor


def test_variables_are_added_to_those_of_the_defaults_and_win() -> None:
    found = plan(
        {"a": {"command": ["x"], "env": {"B": "own", "C": "own"}}, "b": {"command": ["x"]}},
        defaults={"env": {"A": "d", "B": "d"}},
    )
    assert task(found).env == {"A": "d", "B": "own", "C": "own"}
    assert task(found, "b").env == {"A": "d", "B": "d"}


def test_needs_are_the_tasks_whose_outputs_are_named() -> None:
    found = plan(
        {
            "first": EMPTY,
            "second": {"empty": {}, "depends_on": ["first"]},
            "third": {"empty": {}, "depends_on": ["second"]},
            "a": {
                "command": ["x", "$${outputs.third}", "${outputs.second.y}${outputs.second}", "${params}"],
                "env": {"Y": "${outputs.first}"},
                "depends_on": ["third"],
            },
            "b": {"command": "echo ${outputs}", "shell": True, "depends_on": ["third"]},
        },
    )
    assert task(found).needs == (found.numbers["first"], found.numbers["second"])
    assert task(found, "b").needs == ()


@given(st.permutations(["a", "b", "c", "d", "e"]), st.data())
def test_the_plan_does_not_depend_on_the_order_of_the_document(names: list[str], data: st.DataObject) -> None:
    tasks = {
        "a": EMPTY,
        "b": {**EMPTY, "depends_on": ["a"]},
        "c": {**EMPTY, "depends_on": ["e", "b"]},
        "d": EMPTY,
        "e": EMPTY,
    }
    turned = {name: dict(tasks[name]) for name in names}
    if data.draw(st.booleans()):
        turned["c"]["depends_on"] = ["b", "e"]
    assert plan(turned) == plan(tasks)


def test_an_upstream_has_a_smaller_number() -> None:
    found = plan({f"t{no}": {"empty": {}, "depends_on": [f"t{no + 1}"] if no < 50 else []} for no in range(51)})
    assert all(up < one.no for one in found.tasks for up in one.upstream)
    assert [one.no for one in found.tasks] == list(range(51))
    assert all(one.no in found.tasks[up].downstream for one in found.tasks for up in one.upstream)


def test_an_attempt_gets_texts_where_the_system_wants_texts() -> None:
    found = task(
        plan(
            {
                "up": EMPTY,
                "a": {
                    "command": ["x", "${params.n}", "${params.obj}", "-${outputs.up}-", "$${x}"],
                    "env": {"TRY": "${try_number}", "P": "plain"},
                    "depends_on": ["up"],
                },
            },
            params={"additionalProperties": True},
        )
    )
    scope = Scope(params={"n": 3, "obj": {"a": [1]}}, outputs={"up": None}, try_number=2)
    assert resolved(found, scope) == Resolved(
        {"argv": ["x", "3", '{"a":[1]}', "-null-", "${x}"]}, {"TRY": "2", "P": "plain"}
    )


def test_an_attempt_of_a_function_gets_json_values() -> None:
    found = task(
        plan(
            {"a": {"python": {"call": "m:f", "args": ["${params}"], "kwargs": {"n": ["${params.n}"]}}}},
            params={"properties": {"n": {}}},
        )
    )
    assert resolved(found, Scope(params={"n": 3})).body == {"call": "m:f", "args": [{"n": 3}], "kwargs": {"n": [3]}}


def test_a_request_gets_texts_and_json() -> None:
    http = {
        "method": "PUT",
        "url": "https://h/${outputs.up[0]}?x=${params.n}",
        "headers": {"X": "n=${params.n}"},
        "query": {"q": "${params.obj}"},
        "json": ["${params.obj}", "-${params.n}-"],
    }
    tasks = {
        "up": EMPTY,
        "a": {"http": http, "depends_on": ["up"]},
        "b": {"http": {**http, "json": None, "body": "${params.n}"}, "depends_on": ["up"]},
    }
    found = plan(tasks, params={"properties": {"n": {}, "obj": {}}})
    assert (task(found).kind, task(found).body, task(found).needs) == ("http", {"http": http}, (0,))
    scope = Scope(params={"n": 3, "obj": {"a": 1}}, outputs={"up": ["é/"]})
    wanted: dict[str, Any] = {
        "method": "PUT",
        "url": "https://h/%C3%A9%2F?x=3",
        "headers": {"X": "n=3"},
        "query": {"q": '{"a":1}'},
    }
    assert resolved(task(found), scope).body == {"http": {**wanted, "json": [{"a": 1}, "-3-"]}}
    assert resolved(task(found, "b"), scope).body == {"http": {**wanted, "body": "3"}}
    assert task(found).body == {"http": http}


def test_a_shell_line_and_source_stay_as_they_are() -> None:
    found = plan(
        {"a": {"command": "echo ${HOME} $${x}", "shell": True}, "b": {"python": {"source": "main = '${x}'.format"}}}
    )
    assert resolved(task(found), Scope()).body == {"shell": "echo ${HOME} $${x}"}
    assert resolved(task(found, "b"), Scope()).body["source"] == "main = '${x}'.format"
    assert resolved(task(plan({"a": EMPTY})), Scope()) == Resolved({}, {})


def test_a_reference_without_a_value_stops_the_attempt() -> None:
    found = task(plan({"a": {"command": ["x", "${params.n}"]}}, params={"properties": {"n": {}}}))
    with pytest.raises(Unresolved, match=r"\$\{params\.n\} has no value"):
        resolved(found, Scope())


def test_ten_thousand_tasks_in_one_chain_are_compiled() -> None:
    found = plan({f"t{no:05}": {"empty": {}, "depends_on": [f"t{no - 1:05}"] if no else []} for no in range(10_000)})
    assert found.tasks[-1].upstream == (9_998,)
