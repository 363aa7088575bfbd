from __future__ import annotations

from tests.unit.worker.bodies import a_body
from worker import environment

SERVICE = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/home/me",
    "LC_TIME": "de_DE.UTF-8",
    "RUNYARD_DATABASE_URL": "postgresql://u:secret@h/d",
    "RUNYARD_API_KEY": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "HTTPS_PROXY": "http://u:secret@proxy",
    "PYTHONPATH": "/service/only",
    "LD_PRELOAD": "/evil.so",
}


def test_only_names_on_the_list_are_handed_on() -> None:
    assert environment.allowed(SERVICE) == {
        "PATH": "/usr/bin:/bin",
        "HOME": "/home/me",
        "LC_TIME": "de_DE.UTF-8",
    }


def test_there_is_a_path_even_where_the_service_has_none() -> None:
    assert environment.allowed({}) == {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def test_the_folder_of_the_tasks_interpreter_comes_first() -> None:
    assert environment.base(SERVICE, "id", "/venv/bin/python")["PATH"] == "/venv/bin:/usr/bin:/bin"
    assert environment.base(SERVICE, "id", "python3.12")["PATH"] == "/usr/bin:/bin"


def test_a_task_adds_its_own_and_cannot_forge_ours() -> None:
    base = environment.base({"PATH": "/bin", "HOME": "/home/me"}, "agent-1", "python3")
    body = a_body(env={"HOME": "/elsewhere", "A": "b", "RUNYARD_FENCE": "99", "RUNYARD_AGENT_ID": "forged"})
    assert environment.of_task(base, "0190-a", body, "/work", "/out.json") == {
        "PATH": "/bin",
        "HOME": "/elsewhere",
        "A": "b",
        "PYTHONUNBUFFERED": "1",
        "RUNYARD_AGENT_ID": "agent-1",
        "RUNYARD_DAG_ID": "orders",
        "RUNYARD_RUN_ID": "manual__1",
        "RUNYARD_TASK_ID": "load",
        "RUNYARD_MAP_INDEX": "-1",
        "RUNYARD_TRY_NUMBER": "2",
        "RUNYARD_ATTEMPT_ID": "0190-a",
        "RUNYARD_FENCE": "2",
        "RUNYARD_LOGICAL_DATE": "2026-01-02T00:00:00Z",
        "RUNYARD_WORK_DIR": "/work",
        "RUNYARD_OUTPUT": "/out.json",
    }
