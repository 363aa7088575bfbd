"""Params: what a schema may say, what a trigger may pass, and what neither can do to us."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dag import formats
from dag.errors import Invalid
from dag.params import MAX_BYTES, apply, check_schema, declared


def complaints(schema: Any) -> list[tuple[str, str]]:
    found = check_schema(schema)
    assert all(problem.message.endswith(".") and problem.hint for problem in found), found
    return [(problem.pointer, problem.code) for problem in found]


def refused(schema: Any, given_params: dict[str, Any]) -> list[tuple[str, str]]:
    assert schema is None or check_schema(schema) == []
    with pytest.raises(Invalid) as caught:
        apply(schema, given_params)
    assert all(problem.message.endswith(".") for problem in caught.value.problems)
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


def props(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


EVERYTHING = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$comment": "x",
    "title": "Params",
    "description": "All of it.",
    "type": "object",
    "x-group": "ours",
    "$defs": {"name": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "^[a-z]+$"}, "a/b~c d": True},
    "properties": {
        "name": {"$ref": "#/$defs/name", "default": "x"},
        "odd": {"$ref": "#/$defs/a~1b~0c d"},
        "day": {"type": "string", "format": "date", "examples": ["2026-01-31"], "deprecated": True},
        "n": {"type": ["integer", "null"], "minimum": 0, "maximum": 9, "multipleOf": 3, "default": None},
        "f": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "list": {
            "items": {"$ref": "#/$defs/name"},
            "prefixItems": [True],
            "minItems": 1,
            "maxItems": 3,
            "uniqueItems": True,
            "contains": {"const": "x"},
            "minContains": 1,
            "maxContains": 2,
        },
        "tree": {
            "type": "object",
            "properties": {"left": {"$ref": "#/properties/tree"}},
            "additionalProperties": False,
        },
        "any": {
            "anyOf": [{"enum": [1, "x", None]}, {"oneOf": [{"type": "boolean"}]}],
            "allOf": [True],
            "not": {"const": 5},
        },
        "when": {"if": {"const": 1}, "then": True, "else": {"type": "string"}, "readOnly": True, "writeOnly": True},
    },
    "required": ["day"],
    "propertyNames": {"maxLength": 10},
    "minProperties": 1,
    "maxProperties": 20,
    "dependentRequired": {"f": ["n"]},
    "dependentSchemas": {"list": {"required": ["n"]}},
    "additionalProperties": {"type": "integer"},
}


def test_the_supported_part_of_json_schema_is_taken() -> None:
    assert complaints(EVERYTHING) == []
    assert apply(EVERYTHING, {"day": "2026-01-31", "extra": 5, "tree": {"left": {"left": {}}}}) == {
        "day": "2026-01-31",
        "extra": 5,
        "tree": {"left": {"left": {}}},
        "name": "x",
        "n": None,
    }


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        pytest.param([], [("/params", "wrong_type")], id="a list"),
        pytest.param({"type": "array"}, [("/params/type", "bad_schema")], id="params are an object"),
        pytest.param({"day": "2026-01-31"}, [("/params/day", "unknown_field")], id="values instead of a schema"),
        pytest.param(
            props(x={"minimun": 1}), [("/params/properties/x/minimun", "unknown_field")], id="a keyword misspelt"
        ),
        pytest.param(
            {"$schema": "http://json-schema.org/draft-07/schema#"},
            [("/params/$schema", "not_supported")],
            id="an old draft",
        ),
        pytest.param(
            props(x={"$schema": "x"}), [("/params/properties/x/$schema", "unknown_field")], id="a dialect inside"
        ),
        pytest.param(
            {"patternProperties": {}}, [("/params/patternProperties", "not_supported")], id="patternProperties"
        ),
        pytest.param(
            {"unevaluatedProperties": False}, [("/params/unevaluatedProperties", "not_supported")], id="unevaluated"
        ),
        pytest.param({"$id": "https://example.com/x"}, [("/params/$id", "not_supported")], id="an id"),
        pytest.param(
            props(x={"$ref": "https://example.com/x"}),
            [("/params/properties/x/$ref", "bad_schema")],
            id="a remote $ref",
        ),
        pytest.param(
            props(x={"$ref": "file:///etc/passwd"}),
            [("/params/properties/x/$ref", "bad_schema")],
            id="a $ref to a file",
        ),
        pytest.param(
            props(x={"$ref": "#/$defs/gone"}), [("/params/properties/x/$ref", "bad_schema")], id="a $ref to nothing"
        ),
        pytest.param(
            props(x={"default": {}, "$ref": "#/properties/x/default"}),
            [("/params/properties/x/$ref", "bad_schema")],
            id="a $ref to what is no schema",
        ),
        pytest.param(
            props(x={"$ref": "#/$defs/a%20b"}) | {"$defs": {"a b": {}, "a%20b": {}}},
            [("/params/properties/x/$ref", "bad_schema")],
            id="a $ref with an escape of URLs",
        ),
        pytest.param({"$ref": "#"}, [("/params", "bad_schema")], id="a schema that is itself"),
        pytest.param(
            props(x={"allOf": [{"$ref": "#/properties/x"}]}),
            [("/params/properties/x", "bad_schema")],
            id="a circle without a step down",
        ),
        pytest.param(
            props(x={"type": "strin"}), [("/params/properties/x/type", "bad_schema")], id="a type that is none"
        ),
        pytest.param(props(x=5), [("/params/properties/x", "bad_schema")], id="a number as a schema"),
        pytest.param({"properties": []}, [("/params/properties", "bad_schema")], id="properties as a list"),
        pytest.param({"required": "x"}, [("/params/required", "bad_schema")], id="required as a text"),
        pytest.param({"allOf": {}}, [("/params/allOf", "bad_schema")], id="allOf as an object"),
        pytest.param(
            props(x={"minimum": "1", "pattern": 5, "format": 5, "$ref": 5}),
            [
                ("/params/properties/x/$ref", "bad_schema"),
                ("/params/properties/x/minimum", "bad_schema"),
                ("/params/properties/x/pattern", "bad_schema"),
                ("/params/properties/x/format", "bad_schema"),
            ],
            id="values of the wrong type",
        ),
        pytest.param(
            props(x={"pattern": "("}), [("/params/properties/x/pattern", "bad_schema")], id="a broken pattern"
        ),
        pytest.param(props(x={"pattern": "(?=a)"}), [("/params/properties/x/pattern", "bad_schema")], id="look-around"),
        pytest.param(
            props(x={"pattern": r"(a)\1"}), [("/params/properties/x/pattern", "bad_schema")], id="a back-reference"
        ),
        pytest.param(
            props(x={"pattern": "(((a{1,1000}){1,1000}){1,1000})"}),
            [("/params/properties/x/pattern", "bad_schema")],
            id="a pattern that would fill the memory",
        ),
        pytest.param(
            props(x={"pattern": "a" * 1001}), [("/params/properties/x/pattern", "bad_schema")], id="a long pattern"
        ),
        pytest.param(
            props(x={"format": "dat"}), [("/params/properties/x/format", "not_supported")], id="a format nobody checks"
        ),
        pytest.param(
            props(x={"type": "integer", "default": "x"}),
            [("/params/properties/x/default", "bad_default")],
            id="a default that does not fit",
        ),
        pytest.param(
            props(x={"$ref": "#/$defs/n", "default": "x"}) | {"$defs": {"n": {"type": "integer"}}},
            [("/params/properties/x/default", "bad_default")],
            id="a default that does not fit what is referred to",
        ),
        pytest.param(
            props(**{"a/b %": {"type": "integer", "default": "x"}}),
            [("/params/properties/a~1b %/default", "bad_default")],
            id="a default under an odd name",
        ),
        pytest.param(
            props(**{f"p{no}": {"type": "string"} for no in range(3000)}), [("/params", "too_large")], id="too many"
        ),
    ],
)
def test_what_a_schema_may_not_say(schema: Any, found: list[tuple[str, str]]) -> None:
    assert complaints(schema) == found


def test_a_param_written_as_a_value_gets_a_hint() -> None:
    (problem,) = check_schema({"day": "2026-01-31"})
    assert problem.hint == 'To declare a param, write "properties": {"day": {…}}.'


def test_a_misspelt_keyword_gets_a_hint() -> None:
    (problem,) = check_schema(props(x={"minimun": 1}))
    assert problem.hint == "Did you mean 'minimum'?"


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        (None, ()),
        ({}, ()),
        (props(x={}, y={}), ("x", "y")),
        (props(x={}) | {"additionalProperties": False}, ("x",)),
        (props(x={}) | {"additionalProperties": True}, None),
        ({"properties": 5}, ()),
        ("nonsense", None),
    ],
)
def test_the_declared_names_are_known_where_they_are_closed(schema: Any, names: Any) -> None:
    assert declared(schema) == names


def test_without_a_schema_no_param_is_taken() -> None:
    assert apply(None, {}) == {}
    assert refused(None, {"a/b": 1, "c": 2}) == [("/params/a~1b", "unknown_param"), ("/params/c", "unknown_param")]


def test_defaults_are_filled_in_also_inside_objects_that_are_there() -> None:
    schema = props(
        x={"default": [1]},
        inner=props(y={"default": 2}),
        made={"default": {}, **props(z={"default": 3})},
        tree={"$ref": "#/$defs/tree"},
        day={"$ref": "#/$defs/day"},
    ) | {"$defs": {"tree": props(leaf={"default": 0}, next={"$ref": "#/$defs/tree"}), "day": {"default": "today"}}}
    assert apply(schema, {"inner": {}, "tree": {"next": {}}}) == {
        "x": [1],
        "inner": {"y": 2},
        "made": {"z": 3},
        "tree": {"leaf": 0, "next": {"leaf": 0}},
        "day": "today",
    }
    assert apply(schema, {"x": None})["x"] is None


def test_what_was_given_and_the_schema_stay_as_they_were() -> None:
    schema = props(x={"default": {"a": []}}, y=props(z={"default": 1}))
    given_params: dict[str, Any] = {"y": {}}
    whole = apply(schema, given_params)
    whole["x"]["a"].append(1)
    assert (given_params, apply(schema, {})) == ({"y": {}}, {"x": {"a": []}})


@pytest.mark.parametrize(
    ("schema", "params", "found"),
    [
        (props(x={"type": "integer"}), {"x": "1"}, [("/params/x", "bad_param")]),
        (props(x={"type": "integer"}), {"x": True}, [("/params/x", "bad_param")]),
        (props(x={"type": ["integer", "null"]}), {"x": "1"}, [("/params/x", "bad_param")]),
        (props(x={}), {"y": 1}, [("/params/y", "bad_param")]),
        (props(x={}), {"y": 1, "z": 2}, [("/params", "bad_param")]),
        (props() | {"required": ["x'\"", "y"]}, {}, [("/params/x'\"", "bad_param"), ("/params/y", "bad_param")]),
        (
            props(x={"enum": [1, "a"]}, y={"const": None}),
            {"x": 2, "y": 1},
            [("/params/x", "bad_param"), ("/params/y", "bad_param")],
        ),
        (
            props(x={"minLength": 5, "pattern": "^b"}),
            {"x": "a"},
            [("/params/x", "bad_param"), ("/params/x", "bad_param")],
        ),
        (props(x={"items": {"type": "string"}}), {"x": ["a", 1]}, [("/params/x/1", "bad_param")]),
        (props(x={"anyOf": [{"type": "string"}]}), {"x": 1}, [("/params/x", "bad_param")]),
        (props(x=False), {"x": 1}, [("/params", "bad_param")]),
        (props(x={"additionalProperties": {"type": "string"}}), {"x": {"a": 1}}, [("/params/x/a", "bad_param")]),
        (props(**{"a/b": {"type": "string"}}), {"a/b": 1}, [("/params/a~1b", "bad_param")]),
        (props(x={"uniqueItems": True}), {"x": [1, 2.5, 1.0]}, [("/params/x", "bad_param")]),
        (
            props(x={"uniqueItems": True}),
            {"x": [{"a": [1], "b": 2}, {"b": 2, "a": [1.0]}]},
            [("/params/x", "bad_param")],
        ),
        (props(x={"multipleOf": 0.5}), {"x": 0.7}, [("/params/x", "bad_param")]),
        (props(x={}), {"x": "\ud800"}, [("/params/x", "lone_surrogate")]),
        (props(x={}), {"x": [float("nan")]}, [("/params/x/0", "number_not_finite")]),
        (props(x={}), {"x": "a\0b"}, [("/params/x", "nul_character")]),
        (props(x={}), {"x": 2**64}, [("/params/x", "number_out_of_range")]),
        (props(x={}), {"x": "x" * MAX_BYTES}, [("/params", "too_large")]),
        (props(x={"format": "date"}), {"x": "31.01.2026"}, [("/params/x", "bad_param")]),
    ],
)
def test_params_that_do_not_fit_are_refused(schema: Any, params: dict[str, Any], found: list[tuple[str, str]]) -> None:
    assert refused(schema, params) == found


@pytest.mark.parametrize(
    ("schema", "params"),
    [
        (props(x={"uniqueItems": True}), {"x": [1, True, "1", None, [1], {"a": 1}]}),
        (props(x={"uniqueItems": False}), {"x": [1, 1]}),
        (props(x={"uniqueItems": True, "pattern": "z"}), {"x": 5}),
        (props(x={"format": "date"}), {"x": 5}),
        (props(x={"type": "integer"}), {"x": 3.0}),
        (props(x={"pattern": "b"}), {"x": "abc"}),
        ({"additionalProperties": True}, {"anything": [1]}),
    ],
)
def test_params_that_fit_are_taken(schema: Any, params: dict[str, Any]) -> None:
    assert check_schema(schema) == []
    assert apply(schema, params) == params


def test_a_missing_param_says_what_to_do() -> None:
    with pytest.raises(Invalid) as caught:
        apply(props(day={}, n={}) | {"required": ["day"]}, {"dya": 1})
    assert [(problem.message, problem.hint) for problem in caught.value.problems] == [
        ("Not declared: 'dya'.", "Declared are: day, n."),
        ("'day' is required.", "Pass it."),
    ]


@given(st.dictionaries(st.sampled_from("abcd"), st.integers() | st.text(max_size=3) | st.booleans() | st.none()))
def test_our_verdict_is_the_librarys(params: dict[str, Any]) -> None:
    schema = props(
        a={"type": "integer", "minimum": -(2**63), "exclusiveMaximum": 5}, b={"type": "string", "maxLength": 2}, c={}
    )
    params = {key: value for key, value in params.items() if not isinstance(value, int) or -(2**63) <= value < 2**63}
    strict = Draft202012Validator(schema | {"additionalProperties": False})
    try:
        apply(
            schema, {key: value for key, value in params.items() if not isinstance(value, str) or value.isprintable()}
        )
        taken = True
    except Invalid:
        taken = False
    assert taken is strict.is_valid({k: v for k, v in params.items() if not isinstance(v, str) or v.isprintable()})


def test_a_catastrophic_pattern_costs_nothing() -> None:
    assert refused(props(x={"pattern": "^(a+)+$"}), {"x": "a" * 100_000 + "b"}) == [("/params/x", "bad_param")]


def test_a_schema_that_doubles_the_work_at_each_step_is_stopped() -> None:
    steps = {f"s{no}": {"anyOf": [{"$ref": f"#/$defs/s{no - 1}"}] * 2} for no in range(1, 40)}
    schema = props(x={"$ref": "#/$defs/s39"}) | {"$defs": {"s0": {"type": "integer"}, **steps}}
    assert refused(schema, {"x": "q"}) == [("/params", "too_much_work")]


def test_a_value_that_doubles_the_work_at_each_level_is_stopped() -> None:
    again = {"items": {"$ref": "#/$defs/r"}}
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    schema = props(x={"$ref": "#/$defs/r"}) | {"$defs": {"r": {"allOf": [again, again]}}}
    assert refused(schema, {"x": deep}) == [("/params", "too_much_work")]


ENOUGH = 2.0  # seconds of CPU on a slow and busy machine; what is meant is 0.5
R = {"$ref": "#/$defs/r"}


@pytest.mark.parametrize(
    ("schema", "params"),
    [
        (props(x={"items": {"enum": list(range(4900))}}), {"x": [-1] * 12_000}),
        (props(x={"items": {"enum": list(range(4900))}}), {"x": [4899] * 24_000}),
        (props(x={"anyOf": [False] * 2400}), {"x": [1] * 60_000}),
        (props(x={"anyOf": [{"type": "string"}] * 2400}), {"x": [1] * 60_000}),
        (props(x={"items": {"oneOf": [{"description": "y" * 900_000}, True]}}), {"x": [1] * 20_000}),
        (props(x={"items": {"$ref": "#/$defs/" + "a" * 50_000}}) | {"$defs": {"a" * 50_000: {}}}, {"x": [1] * 60_000}),
        (props(x={"items": props(**{f"p{no}": True for no in range(4800)})}), {"x": [{}] * 20_000}),
        (props(x={"items": {"required": [f"p{no}" for no in range(4800)]}}), {"x": [{}] * 20_000}),
        (props(x={"items": {"dependentRequired": {"a": [f"p{no}" for no in range(4800)]}}}), {"x": [{"a": 1}] * 9000}),
        (props(x={"allOf": [{"uniqueItems": True}] * 1600}), {"x": [{"a": no} for no in range(18_000)]}),
        (props(x={"allOf": [{"pattern": "(a|b)*c"}] * 1600}), {"x": "ab" * 120_000}),
        (props(x={"additionalProperties": {"items": {"type": "string"}}}), {"x": {"k" * 100_000: [1] * 50_000}}),
        (
            props(x={**R, "default": {}}) | {"$defs": {"r": props(a={**R, "default": {}}, b={**R, "default": {}})}},
            {},
        ),
        (props(**{f"p{no}": R for no in range(900)}) | {"$defs": {"r": {"default": ["z" * 900_000]}}}, {}),
    ],
)
def test_no_schema_and_params_take_long(schema: Any, params: dict[str, Any]) -> None:
    started = process_time()
    with suppress(Invalid):
        apply(schema, params)
    assert process_time() - started < ENOUGH


def test_a_long_list_of_choices_is_checked_for_many_items() -> None:
    params = {"x": [f"v{no % 250}" for no in range(24_000)]}
    assert apply(props(x={"items": {"enum": [f"v{no}" for no in range(250)]}}), params) == params


def test_after_a_hundred_findings_the_rest_is_not_looked_for() -> None:
    found = refused(props(x={"items": {"type": "string"}}), {"x": [1] * 1000})
    assert found == [*[(f"/params/x/{no}", "bad_param") for no in range(100)], ("/params", "too_many_problems")]


@pytest.mark.parametrize(
    ("choice", "value", "fits"),
    [(1, 1.0, True), (1, True, False), (0, False, False), ("1", 1, False), ([{"a": 1}], [{"a": 1.0}], True)],
)
def test_choices_are_equal_as_json_is(choice: Any, value: Any, *, fits: bool) -> None:
    for rule in ({"enum": ["x", choice]}, {"const": choice}):
        if fits:
            assert apply(props(x=rule), {"x": value}) == {"x": value}
        else:
            assert refused(props(x=rule), {"x": value}) == [("/params/x", "bad_param")]


@pytest.mark.parametrize("number", [2**62 + 1, 1.5e308, -1e-320])
def test_numbers_that_overflow_are_a_problem_and_no_crash(number: float) -> None:
    assert refused(props(x={"multipleOf": 7e-321}), {"x": number}) == [("/params/x", "bad_param")]


def test_jsonschema_is_not_imported_for_documents_without_params() -> None:
    code = (
        "import sys; from dag.spec import load; from dag.params import apply; from dag import plan;"
        "plan.compile_plan(load({'dag_id': 'd', 'tasks': {'a': {'empty': {}}}})); apply(None, {});"
        "assert 'jsonschema' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


GOOD = {
    "date": ["2026-01-31", "2024-02-29"],
    "date-time": ["2026-01-31T02:30:00Z", "2026-01-31t02:30:00.123456789+05:30", "2026-01-31 02:30:00-00:00"],
    "duration": ["PT30S", "P1D"],
    "email": ["a@b", "first.last+x@example.com", "ü@example.com"],
    "hostname": ["a", "example.com", "xn--x-1.example"],
    "ipv4": ["127.0.0.1"],
    "ipv6": ["::1", "2001:db8::"],
    "time": ["02:30:00Z", "23:59:59.5+01:00"],
    "uri": ["https://example.com/x?y=1#z", "urn:x:y", "mailto:a@b"],
    "uuid": ["12345678-1234-5678-1234-567812345678", "12345678-1234-5678-1234-56781234ABCD"],
}
BAD = {
    "date": ["2026-02-30", "2026-1-31", "20260131", "2026-01-31T00:00:00Z", "\uff12026-01-31", "x"],
    "date-time": ["2026-01-31T02:30:00", "2026-01-31", "2026-13-31T02:30:00Z", "2026-01-31T25:30:00Z", "x"],
    "duration": ["30", "P1M"],
    "email": ["a", "@b", "a@", "a@b@c", "a b@c", "a@b..c"],
    "hostname": ["", "-a", "a-.b", "a..b", "a_b", "a" * 64, "a." * 127 + "aa", "ü"],
    "ipv4": ["127.0.0", "127.0.0.256", "::1", "1.2.3.04"],
    "ipv6": ["127.0.0.1", ":::", "x"],
    "time": ["02:30:00", "2:30:00Z", "24:00:00Z"],
    "uri": ["example.com", "/x", "http://a b", "http://ü", "http://[x", "1http://x"],
    "uuid": ["12345678123456781234567812345678", "{12345678-1234-5678-1234-567812345678}", "x"],
}


def test_every_format_has_its_cases() -> None:
    assert set(GOOD) == set(BAD) == set(formats.CHECKED)


@pytest.mark.parametrize("name", sorted(formats.CHECKED))
def test_a_format_takes_the_good_and_refuses_the_bad(name: str) -> None:
    schema = props(x={"format": name})
    assert [text for text in GOOD[name] if apply(schema, {"x": text}) != {"x": text}] == []
    for text in BAD[name]:
        assert refused(schema, {"x": text}) == [("/params/x", "bad_param")], text
