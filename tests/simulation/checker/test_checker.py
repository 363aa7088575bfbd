"""The checker itself: it is alone, it says what it asserts, it is bounded, and it finds what nobody thought of."""

from __future__ import annotations

import ast
import copy
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dag.outcomes import MAX_LOSSES
from dag.states import ATTEMPT_STEPS, RUN_STEPS, TASK_STEPS, AttemptState
from dag.trigger_rules import Counts, TriggerRule, judge
from tests.simulation.checker import budgets, check, steps, trigger_rules
from tests.simulation.checker.bad_histories import BAD
from tests.simulation.checker.history import NotAHistory
from tests.simulation.checker.tale import numbered
from tests.simulation.checker.tales import GOOD
from tests.simulation.checker.violations import MOST_LISTED, MOST_ROWS

if TYPE_CHECKING:
    from tests.simulation.checker.tale import Lines

HERE = Path(__file__).parent
OUTCOMES = ("success", "failed", "upstream_failed", "skipped", "cancelled", None)


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", [one for one in HERE.glob("*.py") if not one.name.startswith("test_")], ids=str)
def test_it_shares_no_code_with_the_server_and_needs_the_standard_library_only(path: Path) -> None:
    foreign = {
        name
        for name in imports(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("tests.simulation.checker")
    }
    assert foreign == set()


def test_it_runs_where_nothing_is_installed() -> None:
    code = (
        "import sys, tests.simulation.checker.judge; "
        "sys.exit(', '.join({'dag', 'metastore', 'sqlalchemy', 'pydantic'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_it_asserts_is_what_it_says_it_asserts() -> None:
    asserted = (HERE / "INVARIANTS.md").read_text().partition("What does not apply")[0]
    said = set(re.findall(r"^\| `([A-Z0-9-]+)` \|", asserted, re.MULTILINE))
    reported = {
        name
        for path in HERE.glob("*.py")
        for name in re.findall(r'(?:report|_report)\.add\(\s*"([A-Z0-9-]+)"', path.read_text())
    }
    assert said == reported == {invariant for invariant, *_ in BAD}


@pytest.mark.parametrize("rule", TriggerRule)
def test_two_implementations_of_a_trigger_rule_agree(rule: TriggerRule) -> None:
    for many in range(5):
        for upstreams in itertools.combinations_with_replacement(OUTCOMES, many):
            counts = Counts(**{state: upstreams.count(state) for state in OUTCOMES if state})
            assert trigger_rules.verdict(rule, upstreams) == judge(rule, many, counts), upstreams


def test_two_budgets_for_losses_agree() -> None:
    assert budgets.MAX_LOSSES == MAX_LOSSES


def test_two_tables_of_steps_agree() -> None:
    def plain(table: dict[Any, dict[Any, Any]]) -> dict[str, set[str]]:
        return {str(state): {str(to) for to in taken.values()} for state, taken in table.items()}

    assert plain(RUN_STEPS) == steps.RUN
    assert plain(TASK_STEPS) == steps.TASK
    running, queued = ATTEMPT_STEPS[AttemptState.RUNNING], ATTEMPT_STEPS[AttemptState.QUEUED]
    for how, had_to_run in steps.ATTEMPT.items():
        assert had_to_run in {None: (None,), True: (None, True), False: (None, False)}[had_to_run]
        assert (how in running) >= (had_to_run is not False)
        assert (how in queued) >= (had_to_run is not True)


@pytest.mark.parametrize("name", GOOD)
def test_no_event_can_be_left_out_or_told_twice(name: str) -> None:
    lines = GOOD[name]().lines
    for at, line in enumerate(lines):
        if line["type"] != "event" or "run_id" not in line or line["kind"] == "run.materialising":
            continue
        without: Lines = lines[:at] + lines[at + 1 :]
        twice: Lines = [*lines[: at + 1], copy.deepcopy(line), *lines[at + 1 :]]
        assert check(numbered(without)).total, f"{line} can be left out"
        assert check(numbered(twice)).total, f"{line} can be told twice"


@pytest.mark.parametrize("name", GOOD)
def test_no_event_can_say_another_state(name: str) -> None:
    lines = GOOD[name]().lines
    for at, line in enumerate(lines):
        if line.get("to_state") is None or line["type"] != "event":
            continue
        kind = line["kind"].partition(".")[0]
        for state in steps.RUN if kind == "run" else steps.TASK:
            if state == line["to_state"]:
                continue
            other = {**line, "to_state": state, "kind": f"{kind}.{state}"}
            assert check(numbered([*lines[:at], other, *lines[at + 1 :]])).total, f"{line} can be {state}"


def test_a_report_is_bounded_and_counts_all_the_same() -> None:
    start = {
        "type": "task",
        "what": "start",
        "attempt_id": "x",
        "dag_id": "d",
        "run_id": "r",
        "task_id": "a",
        "fence": 1,
    }
    report = check([{"type": "setup"}, *[start for _ in range(500)]])
    assert report.total["I-3"] == 500
    assert len(report.violations) == MOST_LISTED
    assert all(len(violation.rows) <= MOST_ROWS for violation in report.violations)
    assert "and 480 more" in str(report)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([{"type": "evnt"}], "Line 1: there is no type 'evnt'"),
        ([{"type": "setup"}, {"type": "used", "key": "x"}], "Line 2: a line of type 'used' has used"),
    ],
)
def test_what_is_no_history_is_refused(lines: Lines, says: str) -> None:
    with pytest.raises(NotAHistory, match=re.escape(says)):
        check(lines)


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("\n".join(map(json.dumps, numbered(GOOD["diamond"]().lines))), 0, "Nothing is wrong"),
        (json.dumps({"type": "left", "what": "a lock"}) + '\n\n{"type": "rest"}', 1, "L-6: something was left behind"),
        ("{", 2, "Line 1 is not JSON"),
        ("[]", 2, "Line 1 is not a JSON object"),
        (None, 2, "No such file"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path: Path, text: str | None, code: int, says: str) -> None:
    file = tmp_path / "history.jsonl"
    if text is not None:
        file.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.checker", file],
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert says in done.stdout + done.stderr
