"""House rules that no linter says: each a walk over the sources."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("dag", "metastore", "scheduler", "executors", "worker", "api", "runyard")
EXEMPTION = re.compile(r"noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*|type: ignore\[[a-z, -]+\]")


def sources(*places: str) -> list[Path]:
    return sorted(path for place in places for path in (ROOT / place).rglob("*.py"))


def imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names.add(node.module or "")
    return names


def under_type_checking(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            found |= imports(node)
    return found


def test_arrows_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sources("worker"), ids=lambda path: path.stem)
def test_the_worker_needs_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    foreign = {
        name
        for name in imports(tree) - under_type_checking(tree)
        if name.partition(".")[0] not in sys.stdlib_module_names | {"worker"}
    }
    assert foreign == set()


@pytest.mark.parametrize("name", ["forked", "runner", "zygote"])
def test_what_runs_inside_the_users_interpreter_is_alone(name: str) -> None:
    tree = ast.parse((ROOT / "worker" / f"{name}.py").read_text())
    foreign = {one for one in imports(tree) if one.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign == set()


def test_the_vocabulary_runs_without_a_database_or_a_server() -> None:
    code = (
        "import sys, dag.spec, dag.plan, dag.states; "
        "sys.exit(', '.join({'sqlalchemy', 'fastapi', 'httpx', 'asyncpg', 'starlette'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_package_says_what_it_is_and_brings_nothing_in() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            tree = ast.parse(path.read_text())
            assert ast.get_docstring(tree), f"{path} says nothing of its package"
            if path.parent != ROOT / "executors" / "conformance":  # a published kit: others import it by this name
                brought = {name.partition(".")[0] for name in imports(tree)}
                assert not brought & set(PACKAGES), f"{path}: the import path is the place"


def test_alembic_is_the_library_and_never_our_folder() -> None:
    assert not (ROOT / "alembic" / "__init__.py").exists()
    assert "site-packages" in str(importlib.import_module("alembic.command").__file__)


def test_the_environment_is_read_by_the_settings_only() -> None:
    allowed = {"runyard/settings.py", "runyard/misspelled.py"}  # the second one looks at names that are no settings
    readers = set()
    for path in sources(*PACKAGES):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in {"environ", "getenv"}
                and ast.unparse(node.value) == "os"
            ):
                readers.add(path.relative_to(ROOT).as_posix())
    # Those pass an environment on to a process that they start; none takes a setting from it.
    passing_on = {name for name in readers if name.startswith(("worker/", "executors/"))} | {"runyard/standalone.py"}
    assert readers - passing_on <= allowed


def test_every_exemption_has_its_reason() -> None:
    silent = []
    for path in sources(*PACKAGES, "tests", "bench", "alembic", "docs"):
        with path.open("rb") as file:
            said = {
                token.start[0]: token.string
                for token in tokenize.tokenize(file.readline)
                if token.type == tokenize.COMMENT
            }
        exempt = {line for line, text in said.items() if EXEMPTION.search(text)}
        # Lines that are exempted together share a reason: on one of them, or in a comment around them.
        reasoned: dict[int, bool] = {}
        for line in sorted(exempt):
            around = (
                said.get(line, ""),
                said.get(line - 1, ""),
                said.get(line + 1, "") if line + 1 not in exempt else "",
            )
            reasoned[line] = reasoned.get(line - 1, False) or any(map(_says_something, around))
            if not reasoned[line]:
                silent.append(f"{path.relative_to(ROOT)}:{line}: {said[line]}")
    assert silent == []


def _says_something(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}|[0-9]{3,}", EXEMPTION.sub("", text).replace("ruff", ""))) > 1


def test_no_exemption_is_a_blanket() -> None:
    blankets = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources(*PACKAGES, "tests", "bench", "alembic")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"#\s*(noqa(?!:)|type: ignore(?!\[)|ruff: noqa(?!:)|mypy: ignore-errors)", line)
        and "re.search" not in line
    ]
    assert blankets == []


@pytest.mark.parametrize("name", ["utils", "util", "common", "helpers", "helper", "misc", "manager"])
def test_a_module_is_a_noun_or_a_verb_that_could_be_said_aloud(name: str) -> None:
    assert [path for path in sources(*PACKAGES, "tests") if path.stem == name] == []
