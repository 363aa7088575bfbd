"""Whatever comes in, there is an answer in our own words: never another exception."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError, ValidationError

from dag import explain, formats
from dag.document import content_hash, read
from dag.errors import DocumentInvalid, Invalid, Problem
from dag.findings import Findings
from dag.params import apply, check_schema
from dag.plan import compile_plan
from dag.spec import DagSpec, TaskSettings, TaskSpec, load, stored

SLOW = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)

names = st.sampled_from(
    [
        *[
            "dag_id",
            "tasks",
            "a",
            "b",
            "",
            "~/",
            "\0",
            "\ud800",
            "\x1b",
            "${x}",
            "x" * 300,
            "properties",
            "$ref",
            "format",
        ],
        *[*DagSpec.model_fields, *TaskSpec.model_fields, "call", "source", "args", "kwargs", "http", "queue"],
    ]
)
scalars = st.sampled_from(
    [
        *[None, True, False, 0, -1, 2**63, 2**64, 1.5, 1e308, float("nan"), float("inf")],
        *["", "a", "b", "PT1S", "P1M", "all_done", "m:f", "..", "a/../..", "local", "\0", "\ud800", "\x7f", "\n"],
        *["${", "${params.a}", "${outputs.a}", "$${x}", "${outputs.b[0]", "${outputs['\n']}", "#", "#/$defs/a"],
    ]
)
values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4), max_leaves=15
)


def check(problems: tuple[Problem, ...] | list[Problem]) -> None:
    """Every problem has a place, a rule, a sentence and a way out, and can be sent."""
    assert problems
    for problem in problems:
        assert problem.pointer == "" or problem.pointer.startswith("/")
        assert problem.code.replace("_", "").isalnum()
        assert problem.message.endswith(".")
        assert problem.hint
        (problem.pointer + problem.message + problem.hint).encode()
        assert (problem.message + problem.hint).isprintable()


@SLOW
@given(st.dictionaries(names, values, max_size=6), st.none() | st.just("d"), st.none() | st.just(["local"]))
def test_any_object_is_taken_or_refused(
    document: dict[str, Any], dag_id: str | None, executors: list[str] | None
) -> None:
    try:
        spec = load(document, dag_id=dag_id, executors=executors)
    except DocumentInvalid as wrong:
        check(wrong.problems)
    else:
        compile_plan(spec)


@SLOW
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([*TaskSpec.model_fields, "x"]), values), max_size=4),
    values,
    values,
)
@example([], {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/properties/a"}}}, None)
def test_a_good_document_with_anything_in_it_is_taken_or_refused(
    changes: list[tuple[str, str, Any]], params: Any, defaults: Any
) -> None:
    tasks: dict[str, Any] = {"a": {"command": ["x"]}, "b": {"command": ["y"], "depends_on": ["a"]}}
    for task, field, value in changes:
        tasks[task][field] = value
    document = {"dag_id": "d", "tasks": tasks, "params": params, "defaults": defaults}
    before = deepcopy(document) if "nan" not in repr(document) else None
    try:
        spec = load(document)
    except DocumentInvalid as wrong:
        check(wrong.problems)
    else:
        assert stored(document, dag_id="d") == spec
        assert compile_plan(spec) == compile_plan(load(read(json.dumps(document).encode(), media="json")))
        content_hash(document)
    assert before is None or document == before


@SLOW
@given(
    st.binary(max_size=60) | st.text(alphabet="{}[]:,-?&*!|>'\"#% \n\tab1~\\u0\ufeff\x85", max_size=60).map(str.encode)
)
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for media in ("json", "yaml"):
        try:
            assert isinstance(read(raw, media=media), dict)
        except DocumentInvalid as wrong:
            check(wrong.problems)


KEYWORDS: dict[str, st.SearchStrategy[Any]] = {
    "type": st.sampled_from(["object", "string", "integer", "number", "boolean", "array", "null", ["string", "null"]]),
    "enum": st.lists(scalars, max_size=2),
    "const": scalars,
    "minimum": st.sampled_from([0, -1.5, 2**62]),
    "multipleOf": st.sampled_from([1, 0.1, 1e-300, 2**62]),
    "minLength": st.integers(0, 3),
    "pattern": st.sampled_from(["^a", "(a|b)*$", "(", "(?=x)", "\\d", "[[:alpha:]]", "\ud800", "\\"]),
    "format": st.sampled_from([*formats.CHECKED, "nope"]),
    "required": st.lists(st.sampled_from("abc"), max_size=2),
    "uniqueItems": st.booleans(),
    "minItems": st.integers(0, 2),
    "$ref": st.sampled_from(["#", "#/$defs/a", "#/properties/a", "#/allOf/0", "http://example.com/x", "", "#/x%20y"]),
    "default": scalars,
    "x-ours": scalars,
    "dependentRequired": st.just({"a": ["b"]}),
}


def grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    holders = dict.fromkeys(
        ("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else"), inner
    )
    listed = {name: st.lists(inner, min_size=1, max_size=2) for name in ("allOf", "anyOf", "oneOf", "prefixItems")}
    return st.fixed_dictionaries({}, optional=KEYWORDS | holders | listed | {"properties": named, "$defs": named})


schemas = st.recursive(st.booleans() | st.fixed_dictionaries({}, optional=KEYWORDS), grown, max_leaves=6)


@SLOW
@given(schemas, st.dictionaries(st.sampled_from("abcd"), values, max_size=3))
def test_any_schema_is_refused_or_judges_any_params(schema: Any, params: dict[str, Any]) -> None:
    if found := check_schema(schema):
        check(found)
        return
    try:
        whole = apply(schema, params)
    except Invalid as wrong:
        check(wrong.problems)
    else:
        assert params.keys() <= whole.keys()


def test_what_only_the_types_refuse_is_refused_in_a_stored_document_too() -> None:
    with pytest.raises(DocumentInvalid) as caught:
        stored({"tasks": {"a": {"retries": "x", "newer": 1}}}, dag_id="d")
    assert [(problem.pointer, problem.code) for problem in caught.value.problems] == [
        ("/tasks/a/retries", "wrong_type"),
        ("/tasks/a/newer", "unknown_field"),
    ]


def test_a_stored_document_is_not_judged_by_rules_again() -> None:
    document = {"tasks": {"a": {"command": ["x", "${outputs.gone}"], "depends_on": []}}, "params": {"nonsense": 1}}
    assert stored(document, dag_id="d").dag_id == "d"


def test_an_error_that_nobody_thought_of_still_has_words() -> None:
    error = ValidationError.from_exception_data(
        "DagSpec", [{"type": PydanticCustomError("odd", "odd"), "loc": ("tasks", "a", "env"), "input": 1}]
    )
    findings = Findings()
    explain.explain(error, {}, findings)
    check(findings.problems)
    assert [(problem.pointer, problem.code) for problem in findings.problems] == [("/tasks/a/env", "invalid")]


def test_settings_are_the_same_for_a_task_and_for_defaults() -> None:
    assert set(TaskSettings.model_fields) < set(TaskSpec.model_fields)


def test_looking_for_what_was_meant_has_an_end() -> None:
    names = ["ab" * 45 + f"{no:04}" for no in range(2000)]
    findings = Findings()
    assert findings.meant("ab" * 45 + "0001x", names) == f"Did you mean {names[1]!r}?"
    assert findings.meant("ab" * 45 + "1999x", names, "Look again.") == "Look again."
    assert [Findings().meant("tsk", ["task"])] == ["Did you mean 'task'?"]
    tired = [findings.meant("tsk", ["task"], "Look again.") for _ in range(30)]
    assert tired[-1] == "Look again."
