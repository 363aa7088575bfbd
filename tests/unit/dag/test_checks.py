"""Rules between tasks: the graph and the references."""

from __future__ import annotations

from typing import Any

import pytest

from dag.spec import load
from tests.unit.dag.documents import doc, one, places, problems


def chain(**upstream: list[Any]) -> dict[str, Any]:
    return doc({name: {"empty": {}, "depends_on": others} for name, others in upstream.items()})


def test_a_cycle_is_named_by_its_way() -> None:
    found = one(chain(a=["c"], b=["a"], c=["b"], d=["a"]))
    assert (found.pointer, found.code) == ("/tasks/a/depends_on", "cycle")
    assert "a -> b -> c -> a" in found.message


def test_a_long_cycle_is_cut_in_the_message() -> None:
    size = 40
    found = one(chain(**{f"t{no:02}": [f"t{(no - 1) % size:02}"] for no in range(size)}))
    assert "t00 -> t01 ->" in found.message
    assert "(28 more) -> t00" in found.message


def test_every_cycle_is_named() -> None:
    document = chain(a=["b"], b=["a"], x=["y"], y=["x"])
    assert places(document) == [("/tasks/a/depends_on", "cycle"), ("/tasks/x/depends_on", "cycle")]


def test_wrong_upstreams_are_all_named_with_what_was_meant() -> None:
    found = problems(chain(extract=[], load=["extrct", "load", "extract", "extract", "zzz"]))
    assert [(problem.pointer, problem.code, problem.hint) for problem in found] == [
        ("/tasks/load/depends_on/0", "unknown_upstream", "Did you mean 'extract'?"),
        ("/tasks/load/depends_on/1", "self_dependency", "Leave it out."),
        ("/tasks/load/depends_on/3", "duplicate_upstream", "Name it once."),
        ("/tasks/load/depends_on/4", "unknown_upstream", "Add the task, or leave this out."),
    ]


def test_a_task_that_is_broken_otherwise_is_still_a_task() -> None:
    assert places(
        chain(a=[], b=["a", "c"])
        | {"tasks": {"a": {"empty": {}}, "b": {"empty": {}, "depends_on": ["a", "c"]}, "c": 5}}
    ) == [("/tasks/c", "wrong_type")]


def test_ten_thousand_tasks_and_fifty_thousand_edges_are_taken() -> None:
    tasks = {
        f"t{no}": {"empty": {}, "depends_on": [f"t{no - back}" for back in range(1, 6) if no >= back]}
        for no in range(10_000)
    }
    assert len(load(doc(tasks)).tasks) == 10_000


def test_more_tasks_and_more_edges_are_refused() -> None:
    wide: dict[str, Any] = {f"u{no}": {"empty": {}} for no in range(300)}
    narrow = {f"d{no}": {"empty": {}, "depends_on": list(wide)} for no in range(167)}
    assert places(doc(wide | narrow)) == [("/tasks", "too_many_edges")]
    assert places(doc({f"t{no}": {"empty": {}} for no in range(10_001)})) == [("/tasks", "too_many")]


def shell(line: str) -> dict[str, Any]:
    return {"command": line, "shell": True}


def referring(*words: str, params: Any = None, **more: Any) -> dict[str, Any]:
    tasks = {
        "first": {"empty": {}},
        "up": {"empty": {}, "depends_on": ["first"]},
        "side": {"empty": {}},
        "a": {"command": ["x", *words], "depends_on": ["up"], **more},
        "after": {"empty": {}, "depends_on": ["a"]},
    }
    return doc(tasks, params=params)


DECLARED: dict[str, Any] = {"properties": {"day": {}}}


@pytest.mark.parametrize(
    "document",
    [
        referring("${outputs.up}", "${outputs.first.x[0]}"),
        referring("${params.day.x} ${params}", params=DECLARED),
        referring("${params.anything}", params={"additionalProperties": True}),
        referring("${params.anything}", params={"additionalProperties": {"type": "string"}}),
        referring("${run.run_id}${run.logical_date}${try_number}"),
        referring("$${outputs.nowhere} $x ${outputs.up}"),
        referring(env={"X": "${outputs.up}"}),
        doc({"a": {"command": ["$${x}"]}}),
        doc(defaults={"env": {"X": "${params.day}${run.dag_id}"}}, params=DECLARED),
    ],
)
def test_references_to_what_is_there_are_taken(document: dict[str, Any]) -> None:
    load(document)


@pytest.mark.parametrize(
    ("document", "pointer", "code", "hint"),
    [
        (referring("${outputs.side}"), "/tasks/a/command/1", "reference_not_upstream", "Add 'side' to depends_on."),
        (referring("${outputs.after}"), "/tasks/a/command/1", "reference_not_upstream", "Add 'after' to depends_on."),
        (referring("${outputs.a}"), "/tasks/a/command/1", "reference_to_itself", "Name an upstream task."),
        (referring("${outputs.frist}"), "/tasks/a/command/1", "unknown_reference", "Did you mean 'first'?"),
        (referring("${params.dai}", params=DECLARED), "/tasks/a/command/1", "unknown_param", "Did you mean 'day'?"),
        (referring("${params.x}"), "/tasks/a/command/1", "unknown_param", "Declare it: "),
        (referring("${params.x}", params={}), "/tasks/a/command/1", "unknown_param", "Declare it: "),
        (referring("${HOME}"), "/tasks/a/command/1", "bad_reference", "References are "),
        (referring("${outputs.up"), "/tasks/a/command/1", "bad_reference", "References are "),
        (
            referring(env={"X": "${outputs.side}"}),
            "/tasks/a/env/X",
            "reference_not_upstream",
            "Add 'side' to depends_on.",
        ),
        (referring(command=["${outputs.up}"]), "/tasks/a/command/0", "reference_not_allowed", "Pass the value by env"),
        (
            referring(command=["bin/${params.x}"]),
            "/tasks/a/command/0",
            "reference_not_allowed",
            "Pass the value by env",
        ),
        (referring(command=["${HOME}/x"]), "/tasks/a/command/0", "bad_reference", "References are "),
        (
            referring(**shell("echo ${params.x}")),
            "/tasks/a/command",
            "reference_not_allowed",
            "Pass the value by env",
        ),
        (
            referring(**shell("x ${try_number}")),
            "/tasks/a/command",
            "reference_not_allowed",
            "Pass the value by env",
        ),
        (
            referring(**shell('x ${outputs["u"]}')),
            "/tasks/a/command",
            "reference_not_allowed",
            "Pass the value by env",
        ),
        (
            doc(defaults={"env": {"X": "${outputs.a}"}}),
            "/defaults/env/X",
            "reference_not_allowed",
            "Put it into the env of",
        ),
        (doc(defaults={"env": {"X": "${params.x}"}}), "/defaults/env/X", "unknown_param", "Declare it: "),
        (doc(defaults={"env": {"X": "${x"}}), "/defaults/env/X", "bad_reference", "References are "),
        (
            doc({"a": {"python": {"call": "m:f", "kwargs": {"x": [{"y": "${outputs.a}"}]}}}}),
            "/tasks/a/python/kwargs/x/0/y",
            "reference_to_itself",
            "Name an upstream task.",
        ),
        (
            doc({"a": {"python": {"call": "m:f", "kwargs": {"${params.x}": 1}}}}),
            "/tasks/a/python/kwargs/${params.x}",
            "reference_not_allowed",
            "Put the reference into a value.",
        ),
        (
            doc({"a": {"python": {"call": "m:f", "args": ["${outputs.b}"]}}}),
            "/tasks/a/python/args/0",
            "unknown_reference",
            "Name an upstream",
        ),
    ],
)
def test_references_to_what_is_not_there_are_refused(
    document: dict[str, Any], pointer: str, code: str, hint: str
) -> None:
    found = one(document)
    assert (found.pointer, found.code) == (pointer, code)
    assert found.hint.startswith(hint)
