"""The published JSON Schema says the same as the code, as far as structure goes."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dag.errors import DocumentInvalid
from dag.spec import json_schema, load
from dag.trigger_rules import TriggerRule

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)

#: What a JSON Schema cannot say: rules between tasks, names of executors, sums; everything else must agree.
BEYOND_STRUCTURE = frozenset(
    {
        "cycle",
        "unknown_upstream",
        "self_dependency",
        "duplicate_upstream",
        "too_many_edges",
        "unknown_executor",
        "id_mismatch",
    }
    | {
        "reference_not_upstream",
        "reference_to_itself",
        "unknown_reference",
        "unknown_param",
        "bad_reference",
        "reference_not_allowed",
    }
    | {"bad_schema", "bad_default", "nul_character", "duplicate", "url_not_allowed", "reserved_header"}
)


def taken(document: dict[str, Any]) -> bool:
    """Whether the code takes the structure of *document*."""
    try:
        load(document)
    except DocumentInvalid as wrong:
        # A duration of the right form may still be too long or nothing: bounds of time are no structure.
        return {problem.code for problem in wrong.problems} <= BEYOND_STRUCTURE
    return True


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    json.dumps(SCHEMA)


def test_every_field_is_documented_with_an_example_that_fits() -> None:
    objects = [SCHEMA, *(SCHEMA["$defs"][name] for name in ("Defaults", "TaskSpec", "PythonSpec", "HttpSpec"))]
    fields = [(name, field) for one in objects for name, field in one["properties"].items()]
    assert [name for name, field in fields if not field.get("description", "").endswith((".", "`"))] == []
    assert [name for name, field in fields if "examples" not in field and name != "python"] == []
    for name, field in fields:
        for example in field.get("examples", ()):
            assert list(Draft202012Validator({"$defs": SCHEMA["$defs"], **field}).iter_errors(example)) == [], name


BASE: dict[str, Any] = {
    "dag_id": "d",
    "tasks": {
        "a": {"command": ["x", "y"], "env": {"X": "1"}},
        "b": {"python": {"call": "m:f", "args": [1], "kwargs": {"x": None}}, "depends_on": ["a"]},
        "c": {"empty": {}, "retries": 1, "retry_delay": "PT1S"},
        "d": {"command": "echo", "shell": True, "cwd": "x/y"},
        "f": {"http": {"method": "GET", "url": "https://x/", "headers": {"X": "y"}, "json": [1]}},
    },
}

#: Values that are right somewhere and wrong elsewhere.
VALUES: list[Any] = [
    *[None, True, False, 0, 1, 1.0, 0.5, -1, 1001, 2**31],
    *["", "x", "a b", "a/b", "..", "/x", "x/../y", "RUNYARD_X", "PT1S", "P1M", "PT", "all_done", "m:f", "a" * 101],
    *["q.DQ", "q.DQ.x", "1q", "kill", "continue", "/x/y z", "python3.12"],
    *["GET", "get", "http://x", "https://", "ftp://x"],
    *[{"method": "PUT", "url": "https://x"}, {"method": "PUT", "url": "https://x", "json": 1, "body": ""}],
    *[[], ["x"], ["x", 1], [""], [None]],
    *[{}, {"x": 1}, {"X": "1"}, {"call": "m:f"}, {"source": "x"}, {"call": "m:f", "source": "x"}],
    *[{"empty": {}}, {"empty": True}, {"command": ["x"]}, {"a": {"empty": {}}}, {"1": {"empty": {}}}],
]
PLACES: list[tuple[str, ...]] = [
    *[(name,) for name in SCHEMA["properties"] if name != "params"],
    ("unknown",),
    *[("defaults", name) for name in SCHEMA["$defs"]["Defaults"]["properties"]],
    *[("tasks", "a", name) for name in [*SCHEMA["$defs"]["TaskSpec"]["properties"], "unknown", "http"]],
    *[("tasks", "b", "python", name) for name in [*SCHEMA["$defs"]["PythonSpec"]["properties"], "unknown"]],
    *[("tasks", "f", "http", name) for name in [*SCHEMA["$defs"]["HttpSpec"]["properties"], "unknown"]],
    *[("tasks", "f", "http", "headers", name) for name in ("X-Y", "a b", "")],
    ("tasks", "c", "empty"),
    ("tasks", "d", "command"),
    ("tasks", "d", "shell"),
    ("tasks", "a", "command", "0"),
    ("tasks", "a", "env", "X"),
    ("tasks", "a", "env", "1X"),
    ("tasks", "a", "env", "RUNYARD_Y"),
    ("tasks", "e"),
    ("tasks", "1e"),
]
MISSING = object()


def changed(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """BASE with *value* at *place*."""
    document: Any = deepcopy(BASE)
    here = document
    for name in place[:-1]:
        here = here.setdefault(name, {}) if isinstance(here, dict) else here[int(name)]
    if isinstance(here, list):
        here[int(place[-1])] = value
    elif value is MISSING:
        here.pop(place[-1], None)
    else:
        here[place[-1]] = value
    return document  # type: ignore[no-any-return]  # a copy of BASE


@pytest.mark.parametrize("place", PLACES, ids="/".join)
def test_schema_and_code_agree_on_one_change(place: tuple[str, ...]) -> None:
    said = {}
    for value in [*VALUES, MISSING]:
        document = changed(place, value)
        said[repr(value)] = (VALIDATOR.is_valid(document), taken(document))
    assert {value: answer for value, answer in said.items() if answer[0] is not answer[1]} == {}


@pytest.mark.parametrize("url", ["${run.run_id}", "https://${run.run_id}/${try_number}", "x${run.run_id}"])
def test_schema_and_code_agree_on_references_in_a_url(url: str) -> None:
    document = changed(("tasks", "f", "http", "url"), url)
    assert VALIDATOR.is_valid(document) is taken(document) is not url.startswith("x")


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from([*VALUES, *map(str, TriggerRule)])), max_size=3))
def test_schema_and_code_agree_on_several_changes(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    document: Any = deepcopy(BASE)
    for place, value in changes:
        here = document
        for name in place[:-1]:
            here = here.get(name) if isinstance(here, dict) else None
        if isinstance(here, dict):
            here[place[-1]] = deepcopy(value)
    assert VALIDATOR.is_valid(document) is taken(document)


def test_the_base_is_taken_by_both() -> None:
    assert VALIDATOR.is_valid(BASE)
    load(BASE)
