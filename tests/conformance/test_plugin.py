"""The plugin as a third party has it: a folder with a harness in it, and no test at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Plugins of this environment that take seconds to load, and that no third party has to have.
UNUSED = ("cacheprovider", "asyncio", "anyio", "schemathesis", "hypothesispytest", "time_machine")
HARNESS = """
from tests.conformance.local_harness import LocalHarness


class Good(LocalHarness):
    def __init__(self, folder):
        super().__init__("local", 4, folder)

    @staticmethod
    async def teardown():
        print("TORN DOWN")


class Poor(Good):
    kill_supervisor = kill_host = duplicate_delivery = None


class Forgetful(Good):
    def log(self, attempt_id):
        return b""
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "harness.py").write_text(HARNESS)
    return tmp_path


def run(folder: Path, *args: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", *(f"-pno:{name}" for name in UNUSED), *args]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "300", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_empty_folder_is_enough(folder: Path) -> None:
    code, said = run(folder, "--executor-harness=harness:Good", "-k", "01_launch or 21_nonzero")
    assert code == 0, said
    assert "executor conformance: harness:Good" in said
    assert "2 hold, 0 broken, 0 not looked at" in said
    assert "TORN DOWN" in said


def test_scenarios_are_called_by_name_and_run_in_several_processes(folder: Path) -> None:
    (folder / "test_of_theirs.py").write_text("def test_it():\n    pass\n")
    names = ["conformance::01_launch_runs_task_and_finishes_once", "conformance::21_nonzero_exit_code_is_preserved"]
    code, said = run(folder, "--executor-harness=harness:Good", "-n", "2", "-v", *names)
    assert code == 0, said
    assert all(f"PASSED {name}" in said for name in names)
    assert "2 passed" in said


def test_their_own_tests_run_beside_it(folder: Path) -> None:
    (folder / "test_of_theirs.py").write_text("def test_it():\n    pass\n")
    code, said = run(folder, "--executor-harness=harness:Good", "-k", "01_launch or test_it", "-v")
    assert code == 0, said
    assert "conformance::01_launch_runs_task_and_finishes_once PASSED" in said
    assert "test_of_theirs.py::test_it PASSED" in said
    assert "1 hold, 0 broken" in said


def test_what_a_medium_lacks_is_skipped_by_name(folder: Path) -> None:
    code, said = run(
        folder,
        "--executor-harness=harness:Poor",
        "-k",
        "12_duplicate_delivery_while or 37_killed_host or 21_nonzero",
        "-rs",
    )
    assert code == 0, said
    assert "1 hold, 0 broken, 2 not looked at" in said, said[-1500:]
    assert (
        "not applicable: there is no duplicate_delivery: 12_duplicate_delivery_while_running_is_one_execution" in said
    )
    assert "not applicable: there is no kill_host: 37_killed_host_is_a_loss_of_its_attempts_only" in said


def test_a_guarantee_that_does_not_hold_is_said_with_why(folder: Path) -> None:
    code, said = run(folder, "--executor-harness=harness:Forgetful", "-k", "01_launch")
    assert code == 1, said
    guarantee = "What is launched runs, and its end, output and log arrive once."
    assert f"What does not hold (01_launch_runs_task_and_finishes_once): {guarantee}" in said
    assert "Because: found b'', wanted b'done\\n'" in said
    assert f"broken: 01_launch_runs_task_and_finishes_once: {guarantee}" in said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--executor-harness=harness"], "write it as package.module:Harness"),
        (["--executor-harness=nowhere:Good"], "No module named 'nowhere'"),
        (["--executor-harness=harness:Nobody"], "has no attribute 'Nobody'"),
        (["--executor-harness=harness:Good", "conformance::99_nothing"], "no scenario is called 99_nothing"),
    ],
)
def test_a_wrong_option_says_the_way_out(folder: Path, args: list[str], words: str) -> None:
    code, said = run(folder, *args)
    assert code != 0
    assert words in said
    assert "INTERNALERROR" not in said


def test_runs_that_did_not_ask_for_it_pay_nothing(folder: Path) -> None:
    (folder / "test_of_theirs.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert 'runyard.conformance.plugin' in sys.modules\n"
        "    assert not {'executors', 'worker', 'uvloop', 'dag', 'metastore'} & set(sys.modules)\n"
    )
    code, said = run(folder)
    assert code == 0, said
    assert "executor conformance" not in said
