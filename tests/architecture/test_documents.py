"""What is written down says what the code says."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dag.document import read
from dag.spec import load
from runyard.cli import ENTRIES

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for place in ("docs", "docker", "examples") for page in (ROOT / place).rglob("*.md"))]
)
ADRS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_generated_sections_are_what_the_code_says(page: Path, generator: ModuleType) -> None:
    assert generator.current(page.read_text()) == page.read_text(), "run: make docs"


def test_every_state_and_every_step_is_drawn(generator: ModuleType) -> None:
    drawn = (ROOT / "docs" / "architecture.md").read_text()
    for table in (generator.RUN_STEPS, generator.TASK_STEPS, generator.ATTEMPT_STEPS):
        for state, steps in table.items():
            for step, target in steps.items():
                assert re.search(rf"^    {state} --> {target}: .*\b{step}\b", drawn, re.MULTILINE), (
                    state,
                    step,
                    target,
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        place, _, anchor = target.partition("#")
        if "://" in target or not place:
            continue
        found = (page.parent / place).resolve()
        assert found.exists(), f"{page.name} links to {target}"
        if anchor and found.suffix == ".md":
            titles = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}, target


@pytest.mark.parametrize("page", ADRS, ids=lambda page: page.stem[:4])
def test_a_decision_says_why_what_else_and_who_checks_it(page: Path) -> None:
    text = page.read_text()
    for part in ("**Context.**", "**Decision.** *", "**Consequences.**", "**Alternatives.**", "**Checked by**"):
        assert part in text, part
    assert page.name in (page.parent / "README.md").read_text()


def test_help_says_of_a_command_what_the_command_says() -> None:
    for name, entry in ENTRIES.items():
        text = (ROOT / f"{entry.module.replace('.', '/')}.py").read_text()
        tree = ast.parse(text)
        docs = {
            node.name: (ast.get_docstring(node) or "").partition("\n")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
        }
        assert docs.get(name) == entry.help or f'help="{entry.help}"' in text, name


@pytest.mark.parametrize("path", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_a_valid_document(path: Path) -> None:
    spec = load(read(path.read_bytes(), media="yaml"), executors=["sequential", "local"])
    assert spec.dag_id == path.stem
    assert spec.description
