"""The worker must run where nothing is installed, and its zygote on interpreters that we do not choose."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

import worker

FOLDER = Path(worker.__file__).parent


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_the_worker_imports_the_standard_library_only(file: Path) -> None:
    allowed = set(sys.stdlib_module_names) | {"worker"}
    assert imported(file) <= allowed


@pytest.mark.parametrize("name", ["zygote.py", "forked.py", "runner.py"])
def test_what_runs_on_the_tasks_interpreter_knows_no_sibling_and_old_grammar(name: str) -> None:
    assert "worker" not in imported(FOLDER / name)
    ast.parse((FOLDER / name).read_text(), feature_version=(3, 8))


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    assert project["version"] == worker.VERSION
