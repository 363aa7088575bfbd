"""Whole installations: a service, a broker, and workers that somebody started on a command line."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import pytest
import redis
from celery.worker import state
from pydantic import SecretStr

from executors.queues.address import Address
from executors.queues.delivery import pack
from runyard.settings import WorkerSettings
from runyard.workers import celery_service
from runyard.workers.command import End
from tests.brokers import PASSWORD, RedisServer
from tests.queues.crew import CELERY, Crew, argv, ended, environment, get, stop
from tests.system.service import Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.brokers import RabbitServer

#: How long a run may take on a machine with other things to do.
PATIENCE = 60.0


pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis"), password=PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def service(broker: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    environ = {"RUNYARD_EXECUTORS": "local,dramatiq,celery", "RUNYARD_BROKER_URL": broker.url}
    made = Service(tmp_path_factory.mktemp("service") / "home", environ)
    try:
        yield made.start()
    finally:
        made.end()


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    answer: dict[str, Any] = service.ask("keys", "create", "workers", "--scope", "work")
    return str(answer["key"])


@pytest.fixture
def crew(service: Service, broker: RedisServer, key: str, library: str, tmp_path: Path) -> Iterator[Crew]:
    # Workers of the test before, which were killed, are live for as long as their lease: names tell them apart.
    made = Crew(service, tmp_path / f"crew-{uuid4().hex}", broker.url, key, library)
    yield made
    made.end()
    wait_for(lambda: not made.everything(), 30)
    broker.empty()


def trigger(crew: Crew, dag_id: str, tasks: dict[str, Any]) -> str:
    """Put a DAG there, start a run of it, and return its id."""
    document = crew.home.parent / f"{dag_id}.json"
    document.write_text(json.dumps({"dag_id": dag_id, "defaults": {"executor": crew.library}, "tasks": tasks}))
    applied = crew.service.cli("apply", "-f", str(document))
    assert applied.returncode == 0, applied.stderr
    run: dict[str, Any] = crew.service.ask("trigger", dag_id)
    return str(run["run_id"])


def states(service: Service, dag_id: str, run_id: str) -> dict[str, str]:
    found = get(service, f"/dags/{dag_id}/runs/{quote(run_id)}/tasks")["items"]
    return {task["task_id"]: task["state"] for task in found}


def wait_for_success(service: Service, dag_id: str, run_id: str) -> None:
    wait_for(lambda: set(states(service, dag_id, run_id).values()) == {"success"}, PATIENCE)


DRAMATIQ = pytest.mark.parametrize("library", ["dramatiq"], indirect=True)

CHAIN: dict[str, Any] = {
    "first": {"command": ["sh", "-c", "echo one; env; cat /proc/$PPID/environ"]},
    "second": {"command": ["echo", "two"], "depends_on": ["first"]},
}


def test_a_worker_runs_tasks_without_a_database_and_without_giving_away_a_secret(
    service: Service, crew: Crew, key: str
) -> None:
    worker = crew.runyard("--queues", "default,gpu", "--concurrency", "3", RUNYARD_LOG_LEVEL="debug")
    (record,) = crew.wait_for(1)
    assert (record["executor"], record["queues"], record["slots"]) == (crew.library, ["default", "gpu"], 3)
    run = trigger(crew, "chain", {**CHAIN, "hold": {"command": ["sleep", "4"], "queue": "gpu"}})
    wait_for(lambda: states(service, "chain", run)["hold"] == "running", PATIENCE)
    below = [pid for pid in crew.everything() if pid != worker.pid]
    assert len(below) >= 3, "the agent, its zygote, the task"
    seen = b"".join(argv(pid) for pid in crew.everything()) + b"".join(environment(pid) for pid in below)
    wait_for_success(service, "chain", run)
    seen += service.cli("logs", "chain", run, "first").stdout.encode() + crew.log.encode()
    for secret in (key, PASSWORD, quote(PASSWORD, safe=""), "rt1."):
        assert secret.encode() not in seen
    assert stop(worker) == 0
    assert not crew.agents()


def test_the_librarys_own_command_line_starts_a_worker(service: Service, crew: Crew) -> None:
    process = crew.own(3, {"dramatiq": "runyard.gpu", "celery": "runyard-celery.gpu"}[crew.library])
    (record,) = crew.wait_for(1)
    assert (record["executor"], record["queues"], record["slots"]) == (crew.library, ["gpu"], 3)
    run = trigger(crew, "plain", {name: {**task, "queue": "gpu"} for name, task in CHAIN.items()})
    wait_for_success(service, "plain", run)
    assert stop(process) == 0
    assert "rt1." not in crew.log
    assert not crew.agents()
    wait_for(lambda: not crew.records())


@DRAMATIQ
def test_with_the_master_its_workers_die_and_their_tasks_go_on(service: Service, crew: Crew, tmp_path: Path) -> None:
    master = crew.dramatiq("-p", "2", "-t", "2")
    crew.wait_for(2)
    journal = tmp_path / "journal"
    command = ["sh", "-c", f"echo begun >> {journal}; sleep 3; echo ended >> {journal}"]
    run = trigger(crew, "outlives", {"task": {"command": command}})
    wait_for(journal.exists, PATIENCE)
    workers = [pid for pid in crew.everything() if b"dramatiq" in argv(pid)]
    assert len(workers) >= 3
    master.kill()
    ended(master)
    wait_for(lambda: not [pid for pid in workers if argv(pid)])
    crew.processes.clear()
    crew.dramatiq("-p", "2", "-t", "2")
    wait_for_success(service, "outlives", run)
    assert journal.read_text() == "begun\nended\n"


def test_what_runs_when_a_worker_drains_runs_again_elsewhere(service: Service, crew: Crew, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    task = {"command": ["sh", "-c", f"echo $RUNYARD_TRY_NUMBER >> {journal}; [ $RUNYARD_TRY_NUMBER = 2 ] || sleep 60"]}
    first = crew.runyard("--concurrency", "1", RUNYARD_WORKER_DRAIN="0.5")
    crew.wait_for(1)
    run = trigger(crew, "drained", {"task": task})
    wait_for(journal.exists, PATIENCE)
    assert stop(first) == 0
    assert not crew.agents()
    crew.processes.clear()
    crew.runyard("--concurrency", "1")
    wait_for_success(service, "drained", run)
    assert journal.read_text() == "1\n2\n"


def test_the_second_signal_leaves_the_tasks_to_the_next_worker(service: Service, crew: Crew, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    command = ["sh", "-c", f"echo begun >> {journal}; sleep 4; echo ended >> {journal}"]
    first = crew.runyard(RUNYARD_WORKER_DRAIN="600")
    crew.wait_for(1)
    run = trigger(crew, "left", {"task": {"command": command}})
    wait_for(journal.exists, PATIENCE)
    first.send_signal(signal.SIGTERM)
    wait_for(lambda: "worker drains" in crew.log)
    first.send_signal(signal.SIGTERM)
    assert ended(first, 10) == 128 + signal.SIGTERM
    crew.processes.clear()
    crew.runyard()
    wait_for_success(service, "left", run)
    assert journal.read_text() == "begun\nended\n"


@DRAMATIQ
def test_a_forged_message_runs_nothing_and_is_not_kept(service: Service, broker: RedisServer, crew: Crew) -> None:
    crew.runyard()
    crew.wait_for(1)
    forged = "01a203c8-3a72-7bed-b8bb-8ecb011a1b1f"
    with redis.Redis.from_url(broker.url) as client:
        client.hset("runyard:runyard.default.msgs", forged, pack("runyard.default", forged, "rt1.Zm9yZ2Vk"))
        client.rpush("runyard:runyard.default", forged)
        wait_for(lambda: not client.hexists("runyard:runyard.default.msgs", forged))
    run = trigger(crew, "after", CHAIN)
    wait_for_success(service, "after", run)


@pytest.mark.parametrize("library", ["celery"], indirect=True)
def test_celerys_worker_is_started_again_when_it_ends_by_itself(
    service: Service, broker: RedisServer, crew: Crew, key: str
) -> None:
    class Wish(End):
        def listen(self) -> None:
            """Only the main thread hears signals."""

    settings = WorkerSettings(
        home=crew.home,
        api_url=service.url,
        api_key=SecretStr(key),
        worker_name=crew.home.name,
        worker_concurrency=2,
        worker_drain=0,
    )
    wish = Wish()
    serving = threading.Thread(target=celery_service.serve, args=(settings, Address.read(broker.url), wish))
    state.should_stop = None
    serving.start()
    try:
        wait_for(crew.records, PATIENCE)
        wait_for_success(service, "before", trigger(crew, "before", CHAIN))
        crashed = [thread for thread in threading.enumerate() if thread.name == "celery"]
        state.should_stop = 1
        wait_for(lambda: not any(thread.is_alive() for thread in crashed))
        state.should_stop = None
        wait_for_success(service, "after", trigger(crew, "after", CHAIN))
    finally:
        wish.came.set()
        serving.join(60)
    assert not serving.is_alive()


def test_a_worker_without_a_service_waits_and_says_so(crew: Crew) -> None:
    worker = crew.runyard(RUNYARD_API_URL="http://127.0.0.1:1")
    wait_for(lambda: "unreachable" in crew.log, 30)
    assert worker.poll() is None
    assert stop(worker) == 0


def test_a_refused_worker_ends_and_says_why(service: Service, crew: Crew) -> None:
    answer: dict[str, Any] = service.ask("keys", "create", "reader", "--scope", "read")
    assert ended(crew.runyard(RUNYARD_API_KEY=str(answer["key"]))) == 4
    assert "runyard: The API refuses this worker" in crew.log
    assert str(answer["key"]) not in crew.log
    assert ended(crew.own(RUNYARD_API_KEY="rk_wrong")) in (0, 4)
    assert "the API refuses this worker" in crew.log
    wait_for(lambda: not crew.agents(), 90)


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        pytest.param({"RUNYARD_BROKER_URL": ""}, 2, "The executor has no broker.", id="no broker"),
        pytest.param({"RUNYARD_BROKER_URL": "redis://:s3cret@h/x"}, 2, "the number of a database", id="no address"),
        pytest.param({"RUNYARD_BROKER_URL": "sqs://s3cret"}, 2, "no kind of broker", id="no broker of ours"),
        pytest.param({"RUNYARD_API_KEY": ""}, 4, "The worker has no key for the API.", id="no key"),
        pytest.param({"RUNYARD_API_KEY": "", "RUNYARD_API_KEY_FILE": "/no/file"}, 2, "No such file", id="no key file"),
        pytest.param({"RUNYARD_API_URL": "localhost"}, 2, "RUNYARD_API_URL", id="no url"),
        pytest.param({"RUNYARD_QUEUE_PREFIX": "a.b"}, 2, "RUNYARD_QUEUE_PREFIX", id="no prefix"),
        pytest.param({"RUNYARD_WORKER_QUEUES": "a b"}, 2, "RUNYARD_WORKER_QUEUES", id="no queue"),
        pytest.param({"RUNYARD_HOME": "/proc/nowhere"}, 10, "/proc/nowhere", id="no home"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_and_ends_a_worker(
    crew: Crew, environ: dict[str, str], code: int, said: str
) -> None:
    assert ended(crew.runyard(**environ)) == code
    assert ended(crew.own(**environ)) == code
    assert crew.log.count(said) >= 2
    assert "s3cret" not in crew.log
    assert "Traceback" not in crew.log


def test_a_queue_without_its_prefix_is_not_served(crew: Crew) -> None:
    assert ended(crew.own(2, "default")) == 2
    assert "a queue at the broker is named with its prefix" in crew.log


@pytest.mark.parametrize("library", ["celery"], indirect=True)
def test_celery_is_not_let_run_attempts_in_its_own_processes(crew: Crew) -> None:
    args = ["-A", "runyard.workers.celery", "worker", "-P", "solo"]
    assert ended(crew.start(CELERY, *args)) == 2
    assert "use -P threads" in crew.log


@pytest.mark.rabbitmq
def test_the_same_with_rabbitmq(rabbit_server: RabbitServer, rabbit_url: str, library: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        service = Service(tmp_path / "home", {"RUNYARD_EXECUTORS": library, "RUNYARD_BROKER_URL": rabbit_url})
        stack.callback(service.end)
        service.start()
        key = str(service.ask("keys", "create", "workers", "--scope", "work")["key"])
        crew = Crew(service, tmp_path / "crew", rabbit_url, key, library)
        stack.callback(crew.end)
        worker = crew.runyard("--concurrency", "2")
        crew.wait_for(1)
        wait_for_success(service, "one", trigger(crew, "one", CHAIN))
        assert stop(worker) == 0
        crew.processes.clear()
        own = crew.own()
        crew.wait_for(1)
        wait_for_success(service, "two", trigger(crew, "two", CHAIN))
        rabbit_server.restart()
        wait_for_success(service, "three", trigger(crew, "three", CHAIN))
        assert stop(own) == 0
        for secret in (PASSWORD, "rt1.", key):
            assert secret not in crew.log
