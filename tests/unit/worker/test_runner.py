"""The runner as the program of another interpreter: whatever Pythons this machine has."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import worker

RUNNER = Path(worker.__file__).parent / "runner.py"
NAMES = [name for name in (f"python3.{minor}" for minor in range(8, 20)) if shutil.which(name)]

SOURCE = """
import asyncio, atexit, os, sys, threading

class Box:
    def __init__(self, n: int) -> None:
        self.n = n

async def main(n, *, name):
    atexit.register(print, "hook")
    threading.Thread(target=print, args=("thread",)).start()
    await asyncio.sleep(0)
    print("argv", sys.argv, repr(sys.stdin.read()), os.readlink("/proc/self/fd/0"))
    return {"n": Box(n).n, "name": name, "first": sys.path[0]}
"""


def usable(name: str) -> bool:
    try:
        return subprocess.run([name, "-c", ""], capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        return False


@pytest.fixture(params=[sys.executable, *NAMES], ids=["ours", *NAMES])
def python(request: pytest.FixtureRequest) -> str:
    if not usable(request.param):
        pytest.skip(f"{request.param} is there and does not start")
    return str(request.param)


def run(python: str, folder: Path, **task: Any) -> tuple[int, str, Path]:
    """Run a task as a zygote would; return its exit code, its log and where its output is."""
    names: dict[str, Any] = {"code_dir": str(folder), "call": None, "source": None, "args": [], "kwargs": {}}
    output, error = folder / "output", folder / "error"
    error.write_text("it did not start")
    job = json.dumps({"python": {**names, **task}, "output": str(output), "error": str(error)})
    ended = subprocess.run(
        [python, str(RUNNER)],
        input=job.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        check=False,
        timeout=60,
    )
    return ended.returncode, ended.stdout.decode(), output


def test_a_task_runs_on_any_python_from_3_8_on(python: str, tmp_path: Path) -> None:
    code, log, output = run(python, tmp_path, source=SOURCE, args=[3], kwargs={"name": "ü"})
    assert (code, sorted(log.splitlines())) == (0, ["argv ['<python.source>'] '' /dev/null", "hook", "thread"])
    assert json.loads(output.read_text()) == {"n": 3, "name": "ü", "first": str(tmp_path)}
    assert not (tmp_path / "error").exists()


def test_its_failures_are_told_on_any_python(python: str, tmp_path: Path) -> None:
    (tmp_path / "house.py").write_text("def run():\n    raise LookupError('gone')\n")
    code, log, output = run(python, tmp_path, call="house:run")
    assert (code, (tmp_path / "error").read_text(), output.exists()) == (1, "LookupError: gone", False)
    assert log.startswith("Traceback")
    assert "runner.py" not in log
    code, log, _ = run(python, tmp_path, call="house:nothing")
    assert (code, "has no 'nothing'" in log) == (1, True)
    code, _, _ = run(python, tmp_path, source="def main(): return object()")
    assert (code, "(object) is not JSON" in (tmp_path / "error").read_text()) == (1, True)
    code, _, _ = run(python, tmp_path, source="import sys\ndef main(): sys.exit(7)")
    assert (code, (tmp_path / "error").exists()) == (7, False)


def test_no_module_of_ours_stands_before_the_users(python: str, tmp_path: Path) -> None:
    for name in ("logs", "runner", "output"):
        code, log, _ = run(python, tmp_path, source=f"import {name}\ndef main(): print({name}.__file__)")
        assert (code, f"No module named '{name}'" in log) == (1, True)
