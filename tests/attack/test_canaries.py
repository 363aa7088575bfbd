"""A secret of its own for every way in, looked for at every way out.

======================  ==============================================================================================
What goes in            Where it may come out
======================  ==============================================================================================
the admin key           ``admin.key`` of its home, 0600
a made key              the one answer that makes it, and its owner's environment
an ``Idempotency-Key``  its row: a repeated request is found by it; the refusal of another request with the same one
the database's password  nowhere
the broker's password   nowhere
a worker's token        nowhere: it is hashed
an attempt's key        nowhere: it is hashed
a ticket                the broker's message, and the worker that takes it
a wrong key             nowhere
a variable of the       nowhere
service's environment
a task's ``env``, an    the document and its versions, the body of the attempt that carries it (the database, the
HTTP task's header,     answer to its start, the agent's spool) and the task itself; params and labels are what a run
params, a note          shows
======================  ==============================================================================================

Ways out: every answer, ``/metrics``, the document, every log at the level debug, with errors and tracebacks; what the
command line prints; all files and their modes; command lines and environments of processes; the broker; every table.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import pytest

from tests.attack import outlets
from tests.brokers import RedisServer
from tests.system.fleet import Fleet
from tests.system.service import PLAIN, RUNYARD, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.databases import PostgresServer

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

_TICKET: Final = re.compile(r"rt1\.[A-Za-z0-9_-]{43}")
#: What users write into documents and runs, which is theirs to see; Runyard's own words never repeat it.
USERS: Final = frozenset({"task env", "http header", "param", "note"})
TASKS: Final[dict[str, Any]] = {
    "show": {"command": ["sh", "-c", "env; sleep 0.5; tr '\\0' ' ' </proc/self/cmdline"]},
    "ask": {"http": {"method": "GET", "url": "http://127.0.0.1:9/x"}},
    "own": {"command": ["true"], "queue": "canaries"},
}


def canary(name: str) -> str:
    return f"canary-{name.replace(' ', '-')}-{secrets.token_hex(12)}"


def with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:{password}@{host}").geturl()


@dataclass
class Story:
    """An installation in which everything was said once, and everything that came out of it."""

    fleet: Fleet
    folder: Path
    canaries: dict[str, str]
    answers: dict[str, str] = field(default_factory=dict)
    printed: dict[str, str] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    environments: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    open_files: list[str] = field(default_factory=list)
    output: str = ""

    def ask(self, method: str, path: str, key: str | None = None, **more: Any) -> httpx.Response:
        """Send one request, and keep what was answered."""
        headers = {"Authorization": f"Bearer {key or self.fleet.key}"} | more.pop("headers", {})
        answer = httpx.request(method, f"{self.fleet.url}{path}", headers=headers, timeout=30, **more)
        said = f"{answer.status_code} {dict(answer.headers)} {answer.text}"
        self.answers[f"{len(self.answers)} {method} {path.partition('?')[0]} {answer.status_code}"] = said
        return answer

    def cli(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        known = {**PLAIN, "RUNYARD_HOME": str(self.fleet.home), "RUNYARD_API_URL": self.fleet.url}
        done = subprocess.run([RUNYARD, *args], env=known | environ, capture_output=True, text=True, check=False)
        self.printed[f"{len(self.printed)} {' '.join(args[:2])}"] = done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("canaries")
    known = {name: canary(name) for name in ("database password", "broker password", "service variable")}
    known |= {name: canary(name) for name in ("idempotency key", "wrong key", *USERS)}
    known |= {name: canary(name).ljust(43, "A") for name in ("worker token", "attempt key")}
    base = postgres_server.borrow()
    broker_folder = tmp_path_factory.mktemp("broker")
    with RedisServer(broker_folder, password=known["broker password"]) as server:
        server.start()
        fleet = Fleet(
            folder,
            database_url=with_password(base, known["database password"]),
            broker_url=server.url,
            schedulers=1,
            workers=0,
        )
        fleet.environ["RUNYARD_LOG_LEVEL"] = "debug"
        fleet.environ["AWS_SECRET_ACCESS_KEY"] = known["service variable"]
        for part in fleet.parts.values():
            part._environ.update(fleet.environ)
        told = Story(fleet, folder, known)
        try:
            fleet.start()
            _tell(told, server, postgres_server, base)
            yield told
        finally:
            fleet.end()
            postgres_server.give_back(base)


def _tell(story: Story, server: RedisServer, database: PostgresServer, base: str) -> None:
    known = story.canaries
    known["admin key"] = story.fleet.key.split("_")[2]
    made = story.ask(
        "POST",
        "/api/v1/keys",
        json={"name": "workers", "scopes": ["work"]},
        headers={"Idempotency-Key": known["idempotency key"]},
    ).json()["key"]
    known["made key"] = made.split("_")[2]
    worker = story.fleet.add_worker("worker1", made)
    _users(story)
    _protocol(story, server, made)
    _wrong(story, database, base)
    _command_line(story)
    pids = [part.pid for part in story.fleet.parts.values()]
    story.lines |= outlets.processes(pids, "cmdline")
    own = {f" {part.pid}" for part in story.fleet.parts.values()}  # their operator has told these what they know
    environments = outlets.processes([*pids, *worker.agents()], "environ")
    story.environments |= {name: text for name, text in environments.items() if not name.endswith(tuple(own))}
    with server.client() as client:
        story.messages |= outlets.broker(client)
    story.tables = outlets.database(base)
    story.files = outlets.files(story.folder)
    story.open_files = outlets.open_to_others(story.folder)


def _users(story: Story) -> None:
    """What users do: tasks with variables, headers and params, which run."""
    known = story.canaries
    tasks: dict[str, Any] = {name: dict(task) for name, task in TASKS.items()}
    tasks["show"]["env"] = {"TOKEN": known["task env"]}
    tasks["ask"]["http"] = {**tasks["ask"]["http"], "headers": {"Authorization": f"Bearer {known['http header']}"}}
    document = {"tasks": tasks, "params": {"type": "object", "properties": {"token": {"type": "string"}}}}
    assert story.ask("PUT", "/api/v1/dags/canaries", json=document).status_code == 201
    body = {"run_id": "r", "params": {"token": known["param"]}, "note": known["note"]}
    assert story.ask("POST", "/api/v1/dags/canaries/runs", json=body).status_code == 201

    def running() -> bool:
        pids = [story.fleet.parts["worker1"].pid]
        story.lines |= outlets.processes(pids, "cmdline")
        found = outlets.processes(pids, "environ")
        story.environments |= {name: text for name, text in found.items() if not name.endswith(f" {pids[0]}")}
        return task("show")["state"] in {"success", "failed"} and task("ask")["state"] in {"success", "failed"}

    def task(name: str) -> dict[str, Any]:
        found: dict[str, Any] = story.ask("GET", f"/api/v1/dags/canaries/runs/r/tasks/{name}").json()
        return found

    wait_for(lambda: story.ask("GET", "/api/v1/dags/canaries/runs/r/tasks").json()["items"])
    wait_for(running, 60)
    story.output = httpx.get(
        f"{story.fleet.url}/api/v1/dags/canaries/runs/r/tasks/show/logs",
        headers={"Authorization": f"Bearer {story.fleet.key}"},
    ).text


def _protocol(story: Story, server: RedisServer, made: str) -> None:
    """What a worker of the test's own does, with a token and a key of its own; its ticket comes from the broker."""
    known, boot, worker_id = story.canaries, secrets.token_hex(16), secrets.token_hex(16)
    body = {
        "protocol": 1, "version": "0", "worker_id": worker_id, "boot_id": boot, "token": known["worker token"],
        "name": "w", "host": "h", "pid": 1, "executor": "dramatiq", "queues": ["canaries"], "slots": 1,
    }  # fmt: skip
    assert story.ask("POST", "/worker/v1/workers", made, json=body).status_code == 200
    path = f"/worker/v1/workers/{worker_id}"
    assert story.ask("POST", f"{path}/heartbeat", known["worker token"], json={"boot_id": boot}).status_code == 200

    def message() -> tuple[str, str] | None:
        with server.client() as client:
            for place, text in outlets.broker(client).items():
                if found := _TICKET.search(text):
                    story.messages[place] = text
                    attempt = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)
                    return None if attempt is None else (found[0], attempt[0])
        return None

    known["ticket"], attempt_id = wait_for(message)
    start = {"protocol": 1, "boot_id": boot, "key": known["attempt key"], "worker_id": worker_id}
    place = f"/worker/v1/attempts/{attempt_id}"
    assert story.ask("POST", f"{place}/start", known["ticket"], json=start).status_code == 200
    assert story.ask("POST", f"{place}/start", known["ticket"], json=start | {"protocol": 99}).status_code >= 400
    assert story.ask("POST", f"{place}/start", known["worker token"], json=start).status_code == 401
    for credential in ("attempt key", "worker token", "ticket"):
        for method, call in (("POST", "heartbeat"), ("PUT", "output"), ("POST", "finish"), ("GET", "inputs/show")):
            body = {"boot_id": boot} if call == "output" else {"boot_id": boot, "wrong": known[credential]}
            story.ask(method, f"{place}/{call}", known[credential], json=body)
    assert story.ask("DELETE", f"{path}?boot_id={boot}", known["worker token"]).status_code == 204


def _wrong(story: Story, database: PostgresServer, base: str) -> None:
    """Every kind of error, and a failure with its traceback."""
    known = story.canaries
    wrong, again = known["wrong key"], {"Idempotency-Key": known["idempotency key"]}
    for key in (wrong, f"runyard_{'a' * 16}_{wrong}_00000000", f"rt1.{wrong}", story.fleet.key + wrong):
        assert story.ask("GET", "/api/v1/dags", key).status_code == 401
    story.ask("GET", f"/api/v1/dags?key={wrong}")
    story.ask("POST", "/api/v1/keys", json={"name": "other", "scopes": ["read"]}, headers=again)
    story.ask("GET", "/api/v1/dags", headers={"Host": "elsewhere"})
    story.ask("GET", f"/nowhere/{wrong}", wrong)
    name = base.partition("?")[0].rpartition("/")[2]
    database.run("ALTER TABLE idempotency_keys RENAME TO away", database=name)
    run = {"params": {"token": known["param"]}, "note": known["note"]}
    failed = story.ask("POST", "/api/v1/dags/canaries/runs", json=run, headers=again)
    database.run("ALTER TABLE away RENAME TO idempotency_keys", database=name)
    assert failed.status_code == 500, failed.text
    for path in ("", "/r", "/r/events", "/r/tasks", "/r/tasks/show/attempts", "/r/tasks/ask/logs"):
        story.ask("GET", f"/api/v1/dags/canaries/runs{path}")
    for path in ("/metrics", "/openapi.json", "/docs", "/health/ready", "/api/v1/keys", "/api/v1/workers"):
        assert story.ask("GET", path).status_code == 200


def _command_line(story: Story) -> None:
    for args in (
        ["dags"],
        ["runs", "canaries"],
        ["keys", "list"],
        ["workers"],
        ["executors"],
        ["logs", "canaries", "r"],
    ):
        story.cli(*args)
        story.cli(*args, "--json")
    story.cli("trigger", "nothing", "--param", "token=x")
    story.cli("dags", RUNYARD_API_KEY=story.canaries["wrong key"])
    for url in ("http://u:{0}@127.0.0.1:9", "http://u:{0}/x@127.0.0.1:9", "http://127.0.0.1:{0}", "http://[{0}"):
        done = story.cli("dags", RUNYARD_API_URL=url.format(story.canaries["wrong key"]))
        assert done.returncode
        assert "RUNYARD_API_URL" in done.stderr


def sings(story: Story, found: dict[str, str], *, but: frozenset[str] = frozenset()) -> set[tuple[str, str]]:
    known = {name: text for name, text in story.canaries.items() if name not in but}
    return outlets.where(known, found)


def every_canary_was_let_in(story: Story) -> None:
    assert all(story.canaries.values())
    assert len(story.canaries) >= 13
    assert f"TOKEN={story.canaries['task env']}" in story.output
    assert any('"request failed"' in text and "Traceback" in text for text in story.files.values())


def answers_show_a_key_once_and_the_users_own_to_users(story: Story) -> None:
    found = sings(story, story.answers, but=USERS)
    assert sorted((name, place.partition(" ")[2]) for name, place in found) == [
        ("idempotency key", "POST /api/v1/keys 422"),
        ("made key", "POST /api/v1/keys 201"),
    ]
    refused = {
        place: text for place, text in story.answers.items() if place.endswith(("400", "401", "404", "422", "500"))
    }
    assert refused
    assert {name for name, _ in sings(story, refused)} <= {"idempotency key"}
    quiet = {
        place: text for place, text in story.answers.items() if re.search(r"/(metrics|events|attempts|docs)", place)
    }
    assert sings(story, quiet, but=frozenset()) == set()


def no_log_line_has_one_whatever_went_wrong(story: Story) -> None:
    logs = {
        place: text for place, text in story.files.items() if place.endswith(".log") and not place.startswith("logs/")
    }
    assert len(logs) >= 3
    assert story.fleet.environ["RUNYARD_LOG_LEVEL"] == "debug"
    assert sings(story, logs) == set()
    assert not any(_TICKET.search(text) for text in logs.values())


def the_command_line_prints_none(story: Story) -> None:
    assert sings(story, story.printed, but=USERS) == set()
    assert len(story.printed) >= 15


def no_process_shows_one_and_tasks_get_what_is_theirs(story: Story) -> None:
    assert story.lines
    assert sings(story, story.lines) == set()
    assert story.environments
    assert {name for name, _ in sings(story, story.environments)} <= {"task env"}
    assert sings(story, {"the environment of a task": story.output}, but=frozenset({"task env"})) == set()


def files_are_private_and_have_only_what_they_are_for(story: Story) -> None:
    homes = [
        one for one in story.open_files if not one.partition(" ")[0].endswith((".log", "api", "scheduler1", "worker1"))
    ]
    assert homes == []
    found = {(name, place) for name, place in sings(story, story.files, but=USERS) if not place.endswith("admin.key")}
    assert found == set()


def messages_have_a_ticket_and_nothing_else(story: Story) -> None:
    assert story.messages
    assert {name for name, _ in sings(story, story.messages)} == {"ticket"}


def the_database_has_hashes(story: Story) -> None:
    found = sings(story, story.tables, but=USERS)
    assert found == {("idempotency key", "idempotency_keys")}
    assert not any(_TICKET.search(text) for text in story.tables.values())
    assert {place for name, place in sings(story, story.tables) if name in {"task env", "http header"}} == {
        "dag_versions"
    }
    assert {place for name, place in sings(story, story.tables) if name in {"param", "note"}} <= {"runs", "attempts"}
    assert "events" in story.tables


WAYS_OUT: Final = (
    every_canary_was_let_in,
    answers_show_a_key_once_and_the_users_own_to_users,
    no_log_line_has_one_whatever_went_wrong,
    the_command_line_prints_none,
    no_process_shows_one_and_tasks_get_what_is_theirs,
    files_are_private_and_have_only_what_they_are_for,
    messages_have_a_ticket_and_nothing_else,
    the_database_has_hashes,
)


def test_each_secret_comes_out_where_it_may_and_nowhere_else(story: Story, subtests: pytest.Subtests) -> None:
    """Test all of them in one: a parallel run makes one installation, not one for each of its workers."""
    for way_out in WAYS_OUT:
        with subtests.test(way_out.__name__.replace("_", " ")):
            way_out(story)


@pytest.mark.parametrize("command", [["db", "check"], ["api", "--port", "0"], ["scheduler"]])
@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("RUNYARD_DATABASE_URL", "postgresql://u:{0}@127.0.0.1:1/x"),
        ("RUNYARD_DATABASE_URL", "postgresql://u:{0}@[::1/x"),
        ("RUNYARD_DATABASE_URL", "postgresql://u:{0}@127.0.0.1:{0}/x"),
        ("RUNYARD_DATABASE_URL", "postgresql://u:1/{0}@127.0.0.1/x"),
        ("RUNYARD_DATABASE_URL", "mysql://u:{0}@127.0.0.1/x?password={0}"),
    ],
)
def test_a_service_that_cannot_start_says_no_password(tmp_path: Path, command: list[str], name: str, url: str) -> None:
    secret = canary("start")
    environ = {**PLAIN, "RUNYARD_HOME": str(tmp_path / "home"), name: url.format(secret)}
    done = subprocess.run(
        [RUNYARD, *command], env=environ, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert done.returncode != 0
    assert done.stderr
    assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "url", ["redis://:{0}@127.0.0.1:{0}/0", "redis://:{0}@[::1/0", "kafka://u:{0}@h/0", "amqp://u:{0}@"]
)
def test_a_broker_that_is_none_is_named_without_its_password(tmp_path: Path, url: str) -> None:
    secret = canary("start")
    environ = {**PLAIN, "RUNYARD_HOME": str(tmp_path / "home"), "RUNYARD_BROKER_URL": url.format(secret)}
    environ |= {"RUNYARD_EXECUTORS": "dramatiq", "RUNYARD_API_KEY": secret}
    environ |= {"RUNYARD_API_URL": url.format(secret).replace("redis:", "http:")}
    for command in (["standalone", "--port", "0"], ["worker"]):
        done = subprocess.run([RUNYARD, *command], env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode != 0
        assert secret not in done.stdout + done.stderr
