"""References: what they look like, where they stand, what they become."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dag.references import Malformed, Reference, Scope, Unresolved, find, parse, resolve, resolve_text, scan

SCOPE = Scope(
    params={"day": "2026-01-31", "n": 3, "deep": {"list": [1, {"x": None}]}, "nul": "a\0b", "half": "\ud800", "ö": 1},
    outputs={"extract": {"rows": [{"id": 7}], "name": "ü"}, "my-task": {"x": True}, "quiet": None},
    run={"run_id": "manual__1", "logical_date": None},
    try_number=2,
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("${params.day}", "2026-01-31", id="a param"),
        pytest.param("${params.n}", 3, id="a whole string keeps the type"),
        pytest.param("${params.deep}", {"list": [1, {"x": None}]}, id="an object"),
        pytest.param("${params.deep.list[1].x}", None, id="into lists and objects"),
        pytest.param("${params}", dict(SCOPE.params), id="all params"),
        pytest.param('${params["ö"]}', 1, id="a quoted name"),
        pytest.param("${outputs.extract.rows[0].id}", 7, id="an output"),
        pytest.param('${outputs["my-task"].x}', True, id="a task id with a dash"),
        pytest.param("${outputs['my-task'].x}", True, id="single quotes"),
        pytest.param("${outputs.quiet}", None, id="a task that wrote nothing"),
        pytest.param("${outputs.failed.rows[0]}", None, id="whatever is asked of a task that did not succeed is null"),
        pytest.param("${run.run_id}", "manual__1", id="the run"),
        pytest.param("${run.data_interval_start}", None, id="a field of the run that it has not"),
        pytest.param("${try_number}", 2, id="the try"),
        pytest.param("day=${params.day}.", "day=2026-01-31.", id="a text inside a text"),
        pytest.param("${params.n}${params.n}", "33", id="two of them make a text"),
        pytest.param("${params.n} ", "3 ", id="a space makes a text"),
        pytest.param("x${params.deep}", 'x{"list":[1,{"x":null}]}', id="compact JSON inside a text"),
        pytest.param("x${outputs.extract}", 'x{"rows":[{"id":7}],"name":"ü"}', id="JSON keeps its characters"),
        pytest.param("x${outputs.quiet}", "xnull", id="null inside a text"),
        pytest.param("$${params.day}", "${params.day}", id="an escape"),
        pytest.param("$${not closed", "${not closed", id="an escape needs no end"),
        pytest.param("a$${b}${params.n}", "a${b}3", id="an escape beside a reference"),
        pytest.param("$$${params.day}", "$${params.day}", id="a dollar before an escape"),
        pytest.param("$HOME costs $5 {x}", "$HOME costs $5 {x}", id="a lone dollar is a dollar"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_a_text_becomes_its_value(text: str, value: Any) -> None:
    assert resolve(text, SCOPE) == value


def test_values_are_resolved_inside_and_keys_are_not() -> None:
    value = {"a": ["${params.n}", 1, None, True, 1.5], "${x}": "-${params.n}-", "t": ("${params.n}",)}
    assert resolve(value, SCOPE) == {"a": [3, 1, None, True, 1.5], "${x}": "-3-", "t": [3]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${params.nope}",
            "${params.nope} has no value: params is an object (with day, deep, half, n, nul, ö) without .nope.",
        ),
        ("${params.day.x}", "params.day is a string without .x"),
        ("${params.n[0]}", "params.n is a number without [0]"),
        ("${params.deep.list[2]}", "params.deep.list is a list of 2 without [2]"),
        ("${params.deep.list.x}", "params.deep.list is a list of 2 without .x"),
        ('${params.deep["0"]}', "params.deep is an object (with list) without .0"),
        ("${outputs.quiet.x}", "outputs.quiet is null without .x"),
        ('${outputs["my-task"].x.y}', "outputs.my-task.x is a boolean without .y"),
    ],
)
def test_a_reference_without_a_value_says_what_is_there_instead(text: str, message: str) -> None:
    with pytest.raises(Unresolved) as caught:
        resolve(["fine", {"k": f"-{text}"}], SCOPE)
    assert message in str(caught.value)


def test_an_empty_object_is_said_to_be_empty() -> None:
    with pytest.raises(Unresolved, match="with nothing"):
        resolve("${params.x}", Scope())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${", "never closed"),
        ("a ${params.x", "never closed"),
        ("${}", "is not a reference"),
        ("${ params.x }", "is not a reference"),
        ("${params.x|y}", "is not a reference"),
        ("${params.}", "is not a reference"),
        ("${params..x}", "is not a reference"),
        ("${params[-1]}", "is not a reference"),
        ("${params.1}", "is not a reference"),
        ("${params[x]}", "is not a reference"),
        ("${1}", "is not a reference"),
        ("${HOME}", "starts with 'HOME'"),
        ("${PATH:-x}", "is not a reference"),
        ("${env.X}", "starts with 'env'"),
        ("${outputs}", "names no task"),
        ("${outputs[0]}", "names no task"),
        ("${outputs.my-task.x}", "needs brackets"),
        ("${params[0]}", "names no param"),
        ("${run}", "no field of the run"),
        ("${run.id}", "no field of the run"),
        ("${run.run_id.x}", "no field of the run"),
        ("${try_number.x}", "try_number is a number"),
        ("${params." + "x" * 200 + "!}", "..."),
    ],
)
def test_what_looks_like_a_reference_and_is_none_is_a_problem(text: str, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.hint
    (problem,) = scan({"a": [text]}, "/x").problems
    assert (problem.pointer, problem.code, problem.message) == ("/x/a/0", "bad_reference", caught.value.message)
    assert find([text]) == []
    with pytest.raises(Unresolved):
        resolve({"a": [text]}, SCOPE)


def test_references_are_found_with_the_place_where_they_stand() -> None:
    value = {"a/b": ["x", "${params.x} ${outputs.t.y}"], "~": "${try_number}", "n": 1}
    assert find(value) == [
        Reference("params", ("x",), "${params.x}", "/a~1b/1"),
        Reference("outputs", ("t", "y"), "${outputs.t.y}", "/a~1b/1"),
        Reference("try_number", (), "${try_number}", "/~0"),
    ]
    assert [reference.task_id for reference in find(value)] == [None, "t", None]


def test_a_reference_in_a_key_is_a_problem() -> None:
    (problem,) = scan({"in": {"${params.x}": 1}}).problems
    assert (problem.pointer, problem.code) == ("/in/${params.x}", "reference_not_allowed")


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("${params.n}", "3"),
        ("${outputs.quiet}", "null"),
        ("${params.day}", "2026-01-31"),
        ("plain", "plain"),
        ("ü${params.n}", "ü3"),
    ],
)
def test_arguments_and_variables_become_texts(text: str, rendered: str) -> None:
    assert resolve_text(text, SCOPE) == rendered


@pytest.mark.parametrize(("text", "message"), [("${params.nul}", "NUL"), ("x${params.half}", "surrogate")])
def test_a_text_that_no_argument_can_hold_is_refused(text: str, message: str) -> None:
    with pytest.raises(Unresolved, match=message):
        resolve_text(text, SCOPE)


@given(json_values)
def test_a_whole_string_reference_is_the_value_itself(value: Any) -> None:
    assert resolve("${params.x}", Scope(params={"x": value})) == value


@given(json_values)
def test_an_embedded_reference_is_the_text_or_compact_json(value: Any) -> None:
    expected = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert resolve("<${params.x}>", Scope(params={"x": value})) == f"<{expected}>"


@given(st.text())
def test_a_value_is_never_looked_into_again(value: str) -> None:
    hostile = "${params.x}" + value
    assert resolve("${params.x}-", Scope(params={"x": hostile})) == hostile + "-"


@given(st.text(alphabet="${}.x$ "))
def test_an_escaped_text_comes_out_as_it_went_in(text: str) -> None:
    if not text.replace("${", "").endswith("$") and "$${" not in text:
        assert resolve(text.replace("${", "$${"), SCOPE) == text


@given(st.text(alphabet="${}[]\"'.-paramsoutun_01\\ "))
def test_any_text_is_either_split_whole_or_refused(text: str) -> None:
    try:
        parts = parse(text)
    except Malformed:
        return
    again = "".join(part.text if isinstance(part, Reference) else part.replace("${", "$${") for part in parts)
    assert again == text
