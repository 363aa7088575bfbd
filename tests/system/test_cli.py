"""The command line against a real service: what people and scripts rely on."""

from __future__ import annotations

import json
import re
import socket
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.system.service import ROOT, Service, wait_for

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

SLOW = "dag_id: slow\ntasks:\n  nap: {command: [sleep, '60'], kill_grace: PT1S}\n"
BROKEN = """
dag_id: broken
tasks:
  a: {command: [echo, hi], depends_on: [nobody], colour: red}
  b: {python: {call: x}, trigger_rule: never}
"""


@pytest.fixture(scope="module", autouse=True)
def _examples(service: Service) -> None:
    done = service.cli("apply", "-f", str(ROOT / "examples"))
    assert (done.returncode, done.stdout) == (0, "created    access_log\ncreated    seed\n"), done.stderr


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "dag.yaml"
    path.write_text(SLOW)
    return path


def test_applying_again_changes_nothing_and_says_so(service: Service) -> None:
    done = service.cli("apply", "-f", str(ROOT / "examples" / "seed"))
    assert (done.returncode, done.stdout) == (0, "unchanged  seed\n")


def test_applying_a_change_names_the_new_version(service: Service, document: Path) -> None:
    text = "dag_id: changing\ntasks:\n  a: {command: [echo, '1']}\n"
    document.write_text(text)
    assert service.cli("apply", "-f", str(document)).stdout == "created    changing\n"
    document.write_text(text.replace("1", "2"))
    assert service.cli("apply", "-f", str(document)).stdout == "version 2  changing\n"


def test_every_file_is_tried_and_every_problem_is_told(service: Service, tmp_path: Path) -> None:
    (tmp_path / "dag.yaml").write_text("dag_id: among_others\ntasks:\n  a: {command: ['true']}\n")
    (tmp_path / "broken.yaml").write_text(BROKEN)
    (tmp_path / "garbage.json").write_text("{")
    (tmp_path / "nameless.yaml").write_text("tasks: {}\n")
    done = service.cli("apply", "-f", str(tmp_path), "--json")
    assert done.returncode == 1
    results = {result["file"].rpartition("/")[2]: result for result in json.loads(done.stdout)}
    assert {name: result["result"] for name, result in results.items()} == {
        "broken.yaml": "failed",
        "dag.yaml": "created",
        "garbage.json": "failed",
        "nameless.yaml": "failed",
    }
    pointers = {problem["pointer"] for problem in results["broken.yaml"]["problems"]}
    assert pointers >= {"/tasks/a/colour", "/tasks/a/depends_on/0", "/tasks/b/python/call", "/tasks/b/trigger_rule"}
    told = service.cli("apply", "-f", str(tmp_path)).stderr
    assert "broken.yaml: 4 problems" in told
    assert "/tasks/a/depends_on/0: There is no task 'nobody'." in told


@pytest.mark.usefixtures("document")
def test_two_files_cannot_define_one_dag(service: Service, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(SLOW)
    done = service.cli("apply", "-f", str(tmp_path))
    assert done.returncode == 1
    assert "The DAG 'slow' is defined by" in done.stderr


def test_a_dag_that_the_key_may_not_touch_does_not_hold_up_the_others(service: Service, tmp_path: Path) -> None:
    for name in ("team-a", "team-b", "team-c"):
        (tmp_path / f"{name}.yaml").write_text(f"dag_id: {name}\ntasks:\n  a: {{empty: true}}\n")
    key = service.ask("keys", "create", "b", "--scope", "define", "--scope", "read", "--dag-prefix", "team-b")["key"]
    done = service.cli("apply", "-f", str(tmp_path), RUNYARD_API_KEY=key)
    assert (done.returncode, done.stdout) == (1, "created    team-b\n")
    assert "team-a.yaml: 1 problem" in done.stderr
    assert "team-c.yaml: 1 problem" in done.stderr


def test_waiting_shows_the_way_and_ends_with_the_run(service: Service) -> None:
    done = service.cli("trigger", "seed", "--param", "name=you", "--wait")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1)[-1] for line in done.stdout.splitlines()]
    assert [line for line in lines if line.startswith("greeting")] == ["greeting running", "greeting success"]
    assert lines.index("hello success") < lines.index("greeting running")
    assert done.stdout.splitlines()[-1].startswith("success after ")


def test_following_prints_what_the_tasks_write(service: Service) -> None:
    done = service.cli("trigger", "seed", "--param", "name=you", "--follow")
    assert done.returncode == 0, done.stderr
    assert "greeting | Hello, YOU!\n" in done.stdout
    assert "hello | A task's log is what it prints.\n" in done.stdout


def test_an_example_does_its_work(service: Service) -> None:
    run = service.ask("trigger", "access_log", "--param", "lines=5000", "--wait")
    assert run["state"] == "success"
    tasks = {task["task_id"]: task for task in service.ask("tasks", "access_log", run["run_id"])}
    assert {task["state"] for task in tasks.values()} == {"success"}
    assert tasks["tidy"]["started_at"] >= tasks["report"]["ended_at"]
    log = service.cli("logs", "access_log", run["run_id"], "report")
    assert log.returncode == 0
    assert log.stdout.startswith("# Access log of 2026-03-29\n")
    assert "/checkout" in log.stdout


def test_a_run_that_fails_is_told_by_the_exit_code(service: Service, document: Path) -> None:
    document.write_text("dag_id: failing\ntasks:\n  a: {command: ['false']}\n")
    service.cli("apply", "-f", str(document))
    done = service.cli("trigger", "failing", "--wait")
    assert done.returncode == 1
    assert re.search(r"a: runyard logs failing \S+ a\n", done.stderr)


def test_a_run_can_be_cancelled_while_somebody_waits_for_it(service: Service, document: Path) -> None:
    service.cli("apply", "-f", str(document))
    outcome: dict[str, subprocess.CompletedProcess[str]] = {}
    waiting = threading.Thread(
        target=lambda: outcome.update(done=service.cli("trigger", "slow", "--run-id", "nap", "--wait", "--json"))
    )
    waiting.start()
    wait_for(lambda: '"running"' in service.cli("tasks", "slow", "nap", "--json").stdout)
    done = service.cli("cancel", "slow", "nap")
    assert (done.returncode, done.stdout) == (0, "nap is cancelling.\n")
    waiting.join(30)
    assert outcome["done"].returncode == 1
    assert json.loads(outcome["done"].stdout)["state"] == "cancelled"


def test_waiting_has_an_end_when_it_is_given_one(service: Service, document: Path) -> None:
    service.cli("apply", "-f", str(document))
    done = service.cli("trigger", "slow", "--run-id", "long", "--wait", "--timeout", "0.5")
    assert done.returncode == 9
    assert "still goes on" in done.stderr
    service.cli("cancel", "slow", "long")


def test_the_same_idempotency_key_starts_one_run(service: Service) -> None:
    first = service.ask("trigger", "seed", "--idempotency-key", "order-1")
    assert service.ask("trigger", "seed", "--idempotency-key", "order-1") == first


def test_a_paused_dag_holds_its_runs(service: Service, document: Path) -> None:
    document.write_text("dag_id: held\ntasks:\n  a: {command: ['true']}\n")
    service.cli("apply", "-f", str(document))
    assert service.cli("pause", "held").returncode == 0
    done = service.cli("trigger", "held", "--run-id", "later")
    assert (done.returncode, done.stdout) == (0, "later is queued.\n")
    assert "the DAG is paused" in done.stderr
    assert service.cli("unpause", "held").returncode == 0
    wait_for(lambda: service.ask("runs", "held")[0]["state"] == "success")


def test_a_run_can_be_done_again(service: Service) -> None:
    run = service.ask("trigger", "seed", "--wait")
    dry = service.cli("clear", "seed", run["run_id"], "greeting", "--dry-run")
    assert "1 task instance would be cleared." in dry.stdout
    assert "1 task instance were cleared." in service.cli("clear", "seed", run["run_id"], "greeting").stdout
    wait_for(lambda: service.ask("runs", "seed", "--limit", "1")[0]["state"] == "success")
    tries = {task["task_id"]: task["try_number"] for task in service.ask("tasks", "seed", run["run_id"])}
    assert tries == {"hello": 1, "name": 1, "greeting": 2}


def test_lists_are_tables_for_people_and_arrays_for_programs(service: Service) -> None:
    service.cli("trigger", "seed", "--run-id", "listed", "--wait")
    table = service.cli("runs", "seed").stdout.splitlines()
    assert table[0].split() == ["DAG", "RUN", "STATE", "VERSION", "QUEUED", "TOOK"]
    assert any(line.startswith("seed  listed") for line in table[1:])
    assert {"access_log", "seed"} <= {dag["dag_id"] for dag in service.ask("dags")}
    assert [dag["dag_id"] for dag in service.ask("dags", "--tag", "report")] == ["access_log"]
    assert len(service.ask("runs", "--limit", "1")) == 1


def test_a_key_is_made_used_and_revoked(service: Service) -> None:
    made = service.ask("keys", "create", "a reader", "--scope", "read")
    assert service.cli("dags", RUNYARD_API_KEY=made["key"]).returncode == 0
    refused = service.cli("trigger", "seed", RUNYARD_API_KEY=made["key"])
    assert refused.returncode == 4
    assert "trigger" in refused.stderr
    assert "a reader" in service.cli("keys", "list").stdout
    assert service.cli("keys", "revoke", made["key_id"]).returncode == 0
    wait_for(lambda: service.cli("dags", RUNYARD_API_KEY=made["key"]).returncode == 4)


def test_the_executors_are_listed(service: Service) -> None:
    assert service.ask("executors")[0]["name"] == "local"
    assert "local" in service.cli("executors").stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        pytest.param(["trigger", "nobody"], 5, "nobody", id="an unknown DAG is not found"),
        pytest.param(["tasks", "seed", "nobody"], 5, "nobody", id="an unknown run is not found"),
        pytest.param(["cancel", "seed", ".."], 7, "", id="dots are no id"),
        pytest.param(["trigger", "seed", "--param", "nme=1"], 7, "/params/nme", id="a param that is not declared"),
        pytest.param(["trigger", "seed", "--param", "name"], 2, "NAME=VALUE", id="a param without a value"),
        pytest.param(["trigger", "seed", "--params-json", "{"], 2, "not JSON", id="params that are not JSON"),
        pytest.param(["trigger", "seed", "--params-json", "[]"], 2, "not an object", id="params that are a list"),
        pytest.param(["apply", "-f", "/nowhere"], 2, "no file or folder", id="a file that is not there"),
        pytest.param(["apply"], 2, "", id="an option is missing"),
        pytest.param(["frobnicate"], 2, "", id="an unknown command"),
    ],
)
def test_what_is_wrong_has_an_exit_code_and_a_sentence(service: Service, args: list[str], code: int, said: str) -> None:
    done = service.cli(*args)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "key", ["nonsense", "runyard_aaaaaaaaaaaaaaaa_" + "a" * 52 + "_00000000", "with\nlines"], ids=repr
)
def test_a_wrong_key_is_refused(service: Service, key: str) -> None:
    done = service.cli("dags", RUNYARD_API_KEY=key)
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr


def test_no_key_at_all_is_refused_with_the_places_it_was_looked_for(service: Service, tmp_path: Path) -> None:
    done = service.cli("dags", RUNYARD_HOME=str(tmp_path))
    assert done.returncode == 4
    assert "RUNYARD_API_KEY" in done.stderr
    assert str(tmp_path / "admin.key") in done.stderr


def test_a_service_that_is_not_there_is_told_with_its_address(service: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = service.cli("dags", RUNYARD_API_URL=url)
    assert done.returncode == 3
    assert url in done.stderr


def test_workers_and_the_queues_that_they_serve_are_listed(service: Service) -> None:
    assert [one["kind"] for one in service.ask("workers")] == ["agent"]
    made = service.ask("keys", "create", "a worker", "--scope", "work", "--queue", "gpu")
    assert "gpu" in service.cli("keys", "list").stdout
    registration = {
        "protocol": 1,
        "version": "0",
        "worker_id": "a" * 32,
        "boot_id": "b" * 32,
        "token": "c" * 43,
        "name": "builder",
        "host": "here",
        "pid": 1,
        "executor": "dramatiq",
        "queues": ["gpu"],
        "slots": 2,
    }
    bearer = {"Authorization": f"Bearer {made['key']}"}
    answer = httpx.post(f"{service.url}/worker/v1/workers", json=registration, headers=bearer)
    assert answer.status_code == 200, answer.text
    (worker,) = [one for one in service.ask("workers") if one["kind"] == "worker"]
    assert (worker["name"], worker["queues"], worker["free"]) == ("builder", ["gpu"], 2)
    assert "builder" in service.cli("workers").stdout
    shown = service.cli("executors").stdout
    assert "gpu" in shown
    assert "WAITING" in shown
