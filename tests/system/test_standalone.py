"""The life of a service: first start, restarts, refusals, stops, and kill -9."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.system.service import Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[..., Service]

#: Two tasks that write down when they live.
NAP = """
dag_id: nap
params: {type: object, properties: {seconds: {type: number}}}
defaults: {kill_grace: PT1S, env: {JOURNAL: "%s"}}
tasks:
  nap:
    command: [sh, -c, 'echo "$0" >>"$JOURNAL"; sleep "$0"; echo done >>"$JOURNAL"', "${params.seconds}"]
  after:
    command: [sh, -c, 'echo after >>"$JOURNAL"']
    depends_on: [nap]
"""


def refused(made: Service, *args: str) -> tuple[int, str]:
    """Return the exit code and the last words of a start that must not succeed."""
    done = made.cli(*(args or ("standalone", "--port", "0")))
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def put_nap(made: Service, tmp_path: Path) -> Path:
    journal = tmp_path / "journal"
    document = tmp_path / "nap.yaml"
    document.write_text(NAP % journal)
    assert made.cli("apply", "-f", str(document)).returncode == 0
    return journal


def lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def test_the_first_start_makes_a_private_home_with_a_key_that_works(make_service: Make) -> None:
    made = make_service().start()
    modes = {path.name: path.stat().st_mode & 0o777 for path in made.home.iterdir() if path.is_file()}
    assert made.home.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}
    assert made.key == made.key.strip()
    assert made.key.startswith("runyard_")
    for line in (
        f"  API       {made.url}/api/v1",
        f"  Docs      {made.url}/docs",
        f"  Key       {made.home}/admin.key",
    ):
        assert line in made.greeting.splitlines()
    headers = {"Authorization": f"Bearer {made.key}"}
    assert httpx.get(f"{made.url}/api/v1/dags", headers=headers).json() == {"items": [], "next_cursor": None}
    assert httpx.get(f"{made.url}/health/ready").status_code == 200
    assert httpx.get(f"{made.url}/docs").status_code == 200


def test_no_key_is_stored_or_logged(make_service: Make) -> None:
    made = make_service().start()
    made.cli("dags")
    secret = made.key.split("_")[2]
    assert made.stop() == 0
    for path in [made.log, *(path for path in made.home.rglob("*") if path.is_file() and path.name != "admin.key")]:
        assert secret.encode() not in path.read_bytes(), path


def test_it_listens_on_loopback_only(make_service: Make) -> None:
    made = make_service().start()
    assert made.process is not None
    inodes = set()
    for entry in Path(f"/proc/{made.process.pid}/fd").iterdir():
        try:
            inodes.add(entry.readlink().name.removeprefix("socket:[").removesuffix("]"))
        except FileNotFoundError:
            continue
    listening = [
        row.split()[1].rpartition(":")[0]
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/{made.process.pid}/net/{table}").read_text().splitlines()[1:]
        if row.split()[3] == "0A" and row.split()[9] in inodes
    ]
    assert listening == ["0100007F"]


def test_what_it_logs_is_json_where_nobody_looks(make_service: Make) -> None:
    made = make_service().start()
    assert made.stop() == 0
    events = [json.loads(line) for line in made.log.read_text().splitlines()]
    said = [event["event"] for event in events]
    assert [name for name in said if name in {"ready", "stopping", "stopped"}] == ["ready", "stopping", "stopped"]
    assert all({"event", "level", "timestamp"} <= event.keys() for event in events)


def test_a_restart_keeps_the_key_and_everything_else(make_service: Make, tmp_path: Path) -> None:
    made = make_service().start()
    put_nap(made, tmp_path)
    key = made.key
    assert made.stop() == 0
    assert made.start().key == key
    assert [dag["dag_id"] for dag in made.ask("dags")] == ["nap"]


def test_a_home_whose_database_is_new_keeps_its_key(make_service: Make) -> None:
    made = make_service().start()
    key = made.key
    assert made.stop() == 0
    for path in made.home.glob("runyard.db*"):
        path.unlink()
    assert made.start().key == key
    assert made.ask("dags") == []


def test_a_lost_key_is_replaced_at_the_next_start(make_service: Make) -> None:
    made = make_service().start()
    old = made.key
    assert made.stop() == 0
    (made.home / "admin.key").unlink()
    made.start()
    assert made.key != old
    assert {key["name"] for key in made.ask("keys", "list")} == {"admin.key"}
    assert made.cli("keys", "revoke", old.split("_")[1]).returncode == 0


def test_documents_are_applied_before_it_says_where_it_is(make_service: Make, tmp_path: Path) -> None:
    (tmp_path / "dag.yaml").write_text("dag_id: given\ntasks:\n  a: {empty: true}\n")
    made = make_service().start("--port", "0", "--apply", str(tmp_path / "dag.yaml"))
    assert [dag["dag_id"] for dag in made.ask("dags")] == ["given"]


def test_documents_that_say_nothing_usable_do_not_keep_it_from_starting(make_service: Make, tmp_path: Path) -> None:
    (tmp_path / "dag.yaml").write_text("dag_id: given\ntasks: 7\n")
    made = make_service().start("--port", "0", "--apply", str(tmp_path / "dag.yaml"))
    assert made.ask("dags") == []


def test_a_home_in_use_is_refused_and_says_by_whom(make_service: Make) -> None:
    made = make_service().start()
    assert made.process is not None
    code, said = refused(make_service())
    assert code == 11
    assert f"in use by another service (pid {made.process.pid})" in said


def test_a_port_in_use_is_refused_before_database_or_key_is_made(make_service: Make) -> None:
    made = make_service()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, said = refused(made, "standalone", "--port", port)
    assert code == 12
    assert f"Port {port} of 127.0.0.1 cannot be listened on: Address already in use." in said
    assert "--port" in said
    assert {path.name for path in made.home.iterdir()} == {"code", "lock", "logs"}


def test_an_address_that_others_reach_needs_the_names_it_is_called_by(make_service: Make) -> None:
    code, said = refused(make_service(), "standalone", "--host", "0.0.0.0", "--port", "0")  # noqa: S104  # what is to be refused
    assert code == 2
    assert "RUNYARD_ALLOWED_HOSTS" in said


def test_a_service_that_may_be_reached_answers_to_its_names_only(make_service: Make) -> None:
    made = make_service(RUNYARD_ALLOWED_HOSTS="runyard.example.com").start("--host", "0.0.0.0", "--port", "0")  # noqa: S104  # with its names
    live = f"{made.url}/health/live"
    assert httpx.get(live, headers={"Host": "runyard.example.com"}).status_code == 200
    assert httpx.get(live, headers={"Host": "evil.example.com"}).status_code == 421


def test_an_unknown_executor_is_refused_with_those_that_there_are(make_service: Make) -> None:
    code, said = refused(make_service(RUNYARD_EXECUTORS="lokal"))
    assert code == 2
    assert "'lokal'" in said
    assert "local, sequential" in said


def test_a_home_that_is_a_file_is_refused(make_service: Make, tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    code, said = refused(make_service())
    assert code == 10
    assert f"{tmp_path / 'home'} is not a folder" in said


def test_a_key_file_that_holds_no_key_is_refused(make_service: Make) -> None:
    made = make_service()
    made.home.mkdir(mode=0o700)
    (made.home / "admin.key").write_text("hunter2")
    code, said = refused(made)
    assert code == 10
    assert "does not hold an API key" in said
    assert "hunter2" not in said


def test_a_database_of_a_newer_release_is_refused_with_both_revisions(make_service: Make) -> None:
    made = make_service()
    assert made.cli("db", "upgrade").returncode == 0
    head = made.cli("db", "current").stdout.strip()
    with sqlite3.connect(made.home / "runyard.db") as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    conn.close()
    code, said = refused(made)
    assert code == 13
    assert "'9999'" in said
    assert f"'{head}'" in said
    assert "db downgrade" in said


def test_a_file_that_is_no_database_is_refused(make_service: Make) -> None:
    made = make_service()
    made.home.mkdir(mode=0o700)
    (made.home / "runyard.db").write_text("no database at all, but a text that is longer than a header " * 20)
    code, said = refused(made)
    assert code == 13
    assert "runyard.db" in said


@pytest.mark.parametrize("command", ["api", "scheduler"])
def test_on_sqlite_the_parts_are_one_service(make_service: Make, command: str) -> None:
    code, said = refused(make_service(), command)
    assert code == 2
    assert "runyard standalone" in said


def test_a_database_is_not_taken_down_under_a_running_service(make_service: Make) -> None:
    made = make_service().start()
    done = made.cli("db", "downgrade", "base", "--yes")
    assert done.returncode == 11
    assert made.ask("dags") == []


def test_a_stop_puts_running_attempts_back_without_cost(make_service: Make, tmp_path: Path) -> None:
    made = make_service().start()
    journal = put_nap(made, tmp_path)
    made.cli("trigger", "nap", "--run-id", "r", "--param", "seconds=60")
    wait_for(lambda: lines(journal) == ["60"])
    assert made.stop(signal.SIGINT) == 0
    assert made.agents() == []
    made.start()
    wait_for(lambda: lines(journal) == ["60", "60"])
    (task,) = [task for task in made.ask("tasks", "nap", "r") if task["task_id"] == "nap"]
    assert (task["state"], task["try_number"]) == ("running", 2)


def test_a_kill_loses_nothing_and_repeats_nothing(make_service: Make, tmp_path: Path) -> None:
    made = make_service().start()
    journal = put_nap(made, tmp_path)
    made.cli("trigger", "nap", "--run-id", "r", "--param", "seconds=1.5")
    wait_for(lambda: lines(journal) == ["1.5"])
    made.kill()
    made.start()
    wait_for(lambda: made.ask("runs", "nap")[0]["state"] == "success")
    assert lines(journal) == ["1.5", "done", "after"]
    assert {task["try_number"] for task in made.ask("tasks", "nap", "r")} == {1}


def test_the_second_signal_ends_it_at_once_and_leaves_the_tasks_alone(make_service: Make, tmp_path: Path) -> None:
    made = make_service().start()
    journal = put_nap(made, tmp_path)
    made.cli("trigger", "nap", "--run-id", "r", "--param", "seconds=60")
    wait_for(lambda: lines(journal) == ["60"])
    assert made.process is not None
    made.process.send_signal(signal.SIGTERM)
    wait_for(lambda: '"stopping"' in made.log.read_text())
    assert made.stop() == 128 + signal.SIGTERM
    assert "ended at once" in made.log.read_text()


def test_a_followed_run_is_told_to_its_end_over_a_kill(make_service: Make, tmp_path: Path) -> None:
    made = make_service().start()
    journal = put_nap(made, tmp_path)
    port = made.url.rpartition(":")[2]
    with made.watch("trigger", "nap", "--param", "seconds=3", "--wait", "--json") as watching:
        wait_for(lambda: lines(journal) == ["3"])
        made.kill()
        made.start("--port", port)
        said, _ = watching.communicate(timeout=30)
    assert watching.returncode == 0
    assert json.loads(said)["state"] == "success"


@pytest.mark.postgres
def test_api_and_scheduler_are_services_of_their_own_on_postgres(
    make_service: Make, postgres_url: str, tmp_path: Path
) -> None:
    api = make_service("api", RUNYARD_DATABASE_URL=postgres_url).start(command="api")
    scheduler = make_service("scheduler", RUNYARD_DATABASE_URL=postgres_url).start_silent(command="scheduler")
    journal = put_nap(api, tmp_path)
    run = api.ask("trigger", "nap", "--param", "seconds=0", "--wait", "--timeout", "30")
    assert run["state"] == "success"
    assert lines(journal) == ["0", "done", "after"]
    assert api.stop() == 0
    assert scheduler.stop() == 0
