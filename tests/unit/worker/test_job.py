from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import worker
from tests.unit.worker.bodies import a_body
from worker import job
from worker.settings import AgentSettings
from worker.spool import Spool

RUNNER = Path(worker.__file__).parent / "runner.py"
SETTINGS = AgentSettings(
    home="/h",
    code_dir="/code",
    log_dir="/logs",
    task_python="/venv/bin/python",
    http_allow=("10.0.0.0/8",),
    http_ports=(80, 9200),
)


def build(tmp_path: Path, **body: Any) -> dict[str, Any]:
    base = {"PATH": "/bin", "RUNYARD_AGENT_ID": "agent-1"}
    return job.build("0190-a", a_body(**body), settings=SETTINGS, spool=Spool(str(tmp_path)), base=base)


@pytest.mark.parametrize(
    ("body", "argv"),
    [
        pytest.param({"argv": ["python", "x.py"]}, ["/venv/bin/python", "x.py"], id="python is the tasks' own"),
        pytest.param({"argv": ["python3"]}, ["/venv/bin/python"], id="python3 too"),
        pytest.param({"argv": ["/usr/bin/python"]}, ["/usr/bin/python"], id="a path is a path"),
        pytest.param({"argv": ["echo", "python"]}, ["echo", "python"], id="an argument is an argument"),
        pytest.param({"shell": "python x.py", "argv": None}, ["/bin/sh", "-c", "python x.py"], id="a shell line"),
        pytest.param({"kind": "python", "call": "m:f"}, None, id="a python task is not executed"),
    ],
)
def test_what_is_executed(tmp_path: Path, body: dict[str, Any], argv: list[str] | None) -> None:
    assert build(tmp_path, **body)["argv"] == argv


@pytest.mark.parametrize("name", ["/opt/py/bin/python", "python3.12"])
def test_another_interpreter_is_executed_and_gets_the_task_on_its_standard_input(tmp_path: Path, name: str) -> None:
    job = build(tmp_path, kind="python", call="m:f", args=[1], interpreter=name, env={"A": "b"})
    assert (job["argv"], job["interpreter"], job["python"]) == ([name, str(RUNNER)], name, None)
    assert job["stdin"] == {
        "python": {"code_dir": "/code", "call": "m:f", "source": None, "args": [1], "kwargs": None},
        "output": job["output"],
        "error": job["error"],
    }


@pytest.mark.parametrize("name", [None, "python", "python3"])
def test_the_tasks_own_interpreter_is_not_executed_again(tmp_path: Path, name: str | None) -> None:
    job = build(tmp_path, kind="python", call="m:f", interpreter=name)
    assert (job["argv"], job["stdin"], job["interpreter"]) == (None, None, None)
    assert job["python"]["call"] == "m:f"


def test_a_request_is_made_by_our_own_interpreter_and_nothing_of_it_is_an_argument(tmp_path: Path) -> None:
    http = {"method": "GET", "url": "https://x/", "headers": {"Authorization": "hunter2"}, "query": {}}
    made = build(tmp_path, kind="http", http=http, cwd="sub", timeout=7.5)
    assert made["argv"] == [sys.executable, "-I", "-S", str(RUNNER.with_name("http_task.py"))]
    assert (made["cwd"], made["base"], made["python"]) == (f"{tmp_path}/0190-a", "", None)
    assert made["stdin"] == {
        "http": http,
        "allow": ("10.0.0.0/8",),
        "ports": (80, 9200),
        "limit": 307.5,
        "output": made["output"],
        "error": made["error"],
    }
    assert build(tmp_path, kind="http", http=http)["stdin"]["limit"] == 300


def test_a_kind_of_a_later_release_is_refused_and_not_guessed(tmp_path: Path) -> None:
    made = build(tmp_path, kind="wait")
    assert (made["argv"], made["python"]) == (None, None)
    assert made["refused"] == "this worker does not know tasks of the kind 'wait'; update it"
    assert build(tmp_path)["refused"] == ""


def test_a_command_gets_no_input(tmp_path: Path) -> None:
    assert build(tmp_path)["stdin"] is None


def test_a_task_works_in_its_own_folder_unless_it_names_one_of_the_code(tmp_path: Path) -> None:
    own = build(tmp_path)
    assert (own["cwd"], own["base"]) == (f"{tmp_path}/0190-a", "")
    named = build(tmp_path, cwd="sub/folder")
    assert (named["cwd"], named["base"]) == ("/code/sub/folder", "/code")


def test_settings_travel_as_text_and_their_version_tells_others_apart() -> None:
    facts: dict[str, Any] = {"home": "/h", "code_dir": "/c", "log_dir": "/l", "task_python": "/p"}
    first = AgentSettings.make(**facts, environ={"A": "1"})
    assert AgentSettings.read(first.text()) == first
    assert AgentSettings.make(**facts, environ={"A": "1"}).version == first.version
    assert AgentSettings.make(**facts, environ={"A": "2"}).version != first.version
    assert AgentSettings.make(**{**facts, "task_python": "/q"}, environ={"A": "1"}).version != first.version
    assert AgentSettings.make(**facts, environ={"A": "1"}, http_allow=["::1"]).version != first.version
    assert AgentSettings.make(**facts, environ={"A": "1"}, http_ports=[80]).version != first.version
