"""Documents that are valid by default, and what is wrong with those that are not."""

from __future__ import annotations

from typing import Any

import pytest

from dag.errors import DocumentInvalid, Problem
from dag.spec import load


def doc(tasks: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A document that is valid by default."""
    return {"dag_id": "d", "tasks": {"a": {"command": ["true"]}} if tasks is None else tasks, **fields}


def task(**fields: Any) -> dict[str, Any]:
    """A document whose task ``a`` has these fields and does something."""
    return doc({"a": {"command": ["true"], **fields}})


def problems(document: dict[str, Any], **named: Any) -> list[Problem]:
    with pytest.raises(DocumentInvalid) as caught:
        load(document, **named)
    found = list(caught.value.problems)
    assert all(problem.message.endswith(".") for problem in found), found
    assert all(problem.hint for problem in found), found
    return found


def places(document: dict[str, Any], **named: Any) -> list[tuple[str, str]]:
    return [(problem.pointer, problem.code) for problem in problems(document, **named)]


def one(document: dict[str, Any], **named: Any) -> Problem:
    (found,) = problems(document, **named)
    return found
