"""The example of the guide: a package of its own, installed as any other, that has itself checked."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "executor"
#: One of each kind: it runs, a message comes twice, is forged, is lost; a worker dies; the API is away.
SOME = (
    "01_launch_runs_task_and_finishes_once",
    "11_queue_is_taken_by_workers_that_serve_it",
    "12_duplicate_delivery_while_running_is_one_execution",
    "19_forged_and_replayed_tickets_start_nothing",
    "31_cancel_while_running_asks_first",
    "36_killed_supervisor_takes_its_tasks_along",
    "40_lost_message_is_sent_again",
    "27_api_outage_in_the_middle_of_tasks",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path with the package in it, and beside it nothing that this one does not have."""
    folder = tmp_path_factory.mktemp("installed")
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
        "install",
        "--target",
        folder,
    ]
    built = tmp_path_factory.mktemp("source") / "executor"
    subprocess.run(["cp", "-r", EXAMPLE, built], check=True)
    subprocess.run([*command, "--no-index", "--no-deps", "--no-build-isolation", built], check=True)
    return folder


def run(installed: Path, folder: Path, *args: str) -> tuple[int, str]:
    command = [sys.executable, "-m", *args]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(installed), str(ROOT))), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_it_is_known_once_it_is_installed(installed: Path, tmp_path: Path) -> None:
    code = "from executors import registry; print(registry.names())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(installed), str(ROOT)))},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'folder'" in done.stdout


@pytest.mark.timeout(600)
def test_it_keeps_its_promises(installed: Path, tmp_path: Path, long: bool) -> None:  # noqa: FBT001  # pytest passes fixtures by name
    unused = [f"-pno:{name}" for name in ("asyncio", "anyio", "schemathesis", "hypothesispytest", "time_machine")]
    names = ["conformance"] if long else [f"conformance::{name}" for name in SOME]
    code, said = run(
        installed, tmp_path, "pytest", *unused, "--executor-harness=runyard_folder.harness:Harness", *names
    )
    assert code == 0, said
    found = re.search(r"(\d+) hold, 0 broken, (\d+) not looked at", said)
    assert found is not None, said
    assert int(found[1]) >= len(SOME)
