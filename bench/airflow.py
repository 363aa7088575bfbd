"""Airflow beside Runyard: its three services from another virtual environment, on a new home and a new database.

Nothing of it is a dependency: ``RUNYARD_BENCH_AIRFLOW`` names an environment that has Airflow 3.3 in it.  Everything is
as Airflow comes, except the parallelism, which is the same for both; ``AIRFLOW__…`` of the calling environment is
passed on, so that a tuned Airflow is measured by the same command.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import signal
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.ports import free_port
from bench.processes import cpu_seconds, pss
from tests.system.hosts import children
from tests.system.service import PLAIN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

VARIABLE: Final = "RUNYARD_BENCH_AIRFLOW"
_READY_WITHIN: Final = 180.0
_RUN_WITHIN: Final = 600.0
_PARTS: Final = ("api-server", "scheduler", "dag-processor")
#: Often enough for figures in seconds, seldom enough to cost it nothing: its own times say when a run ended.
_LOOK_EVERY: Final = 0.25

DAGS: Final = """
from airflow.sdk import DAG, task

@task
def fib(number):
    def work(n):
        return n if n < 2 else work(n - 1) + work(n - 2)
    return work(number)

@task
def step():
    return 1

def chain(dag_id, length, number):
    with DAG(dag_id, schedule=None):
        before = None
        for n in range(length):
            now = fib.override(task_id=f"t{n:02}")(number)
            if before is not None:
                before >> now
            before = now

chain("light", 40, 10)
chain("heavy", 10, 33)
with DAG("fan", schedule=None):
    middle = [step.override(task_id=f"m{n:03}")() for n in range(100)]
    step.override(task_id="first")() >> middle >> step.override(task_id="last")()
with DAG("single", schedule=None, max_active_runs=1000):
    step.override(task_id="only")()
"""


def environment() -> Path | None:
    """Return the virtual environment that has an Airflow, if one was named."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    place = Path(named)
    if not (place / "bin" / "airflow").exists():
        raise SystemExit(f"{VARIABLE}={named}: there is no bin/airflow in it. Install apache-airflow 3.3 there.")
    return place


class Airflow:
    """One installation that runs."""

    def __init__(self, home: Path, url: str, processes: list[subprocess.Popen[bytes]]) -> None:
        self.home = home
        self._host = url.removeprefix("http://")
        self._processes = processes
        self._token = ""
        #: Seconds from starting ``airflow db migrate`` to its end, and from starting the services to all being healthy.
        self.migrated_after = 0.0
        self.ready_after = 0.0

    @property
    def pids(self) -> list[int]:
        """Return all its processes that are there now."""
        found = []
        waiting = [process.pid for process in self._processes]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting += children(pid)
        return found

    def cpu(self) -> float:
        """Return the processor time of all its processes, ended ones that were waited for included."""
        return sum(cpu_seconds(pid, children=True) for pid in self.pids)

    def memory(self) -> float:
        """Return the proportional set sizes of all its processes, in MB."""
        return sum(pss(pid) for pid in self.pids) / 1e6

    def healthy(self) -> bool:
        """Whether database, scheduler and DAG processor all are."""
        for process in self._processes:
            if process.poll() is not None:
                raise RuntimeError(f"Airflow ended by itself: {process.args!r}, see {self.home}")
        try:
            status, said = self._ask("GET", "/api/v2/monitor/health")
        except OSError:
            return False
        parts = ("metadatabase", "scheduler", "dag_processor")
        return status == http.client.OK and all((said.get(part) or {}).get("status") == "healthy" for part in parts)

    def sign_in(self) -> None:
        """Take a token: everybody is an administrator here."""
        self._token = self.call("GET", "/auth/token")["access_token"]

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Return what a request answers that must succeed."""
        status, said = self._ask(method, path, body)
        if status >= http.client.MULTIPLE_CHOICES:
            raise RuntimeError(f"Airflow: {method} {path}: {status} {said}")
        return said

    def wait_for_dag(self, dag_id: str) -> None:
        """Return once a DAG has been read from its file."""
        deadline = time.monotonic() + _READY_WITHIN
        while self._ask("GET", f"/api/v2/dags/{dag_id}")[0] != http.client.OK:
            if time.monotonic() > deadline:
                raise RuntimeError(f"Airflow does not find the DAG {dag_id}")
            time.sleep(_LOOK_EVERY)

    def trigger(self, dag_id: str) -> str:
        return str(self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})["dag_run_id"])

    def run(self, dag_id: str) -> tuple[float, float]:
        """Run a DAG to its end; return its own duration, and the seconds from before the trigger to that end."""
        began = time.time()
        run_id = self.trigger(dag_id)
        deadline = time.monotonic() + _RUN_WITHIN
        while True:
            run = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")
            if run["state"] == "success":
                return _at(run["end_date"]) - _at(run["start_date"]), _at(run["end_date"]) - began
            if run["state"] == "failed" or time.monotonic() > deadline:
                raise RuntimeError(f"Airflow: the run of {dag_id} is {run['state']} after {time.time() - began:.0f} s")
            time.sleep(_LOOK_EVERY)

    def lags(self, dag_id: str) -> list[float]:
        """Return the milliseconds between the tasks of the last run of a chain, by its own times."""
        last = self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns?order_by=-start_date&limit=1")["dag_runs"][0]
        path = f"/api/v2/dags/{dag_id}/dagRuns/{last['dag_run_id']}/taskInstances?limit=100&order_by=start_date"
        times = [(_at(one["start_date"]), _at(one["end_date"])) for one in self.call("GET", path)["task_instances"]]
        return [1000 * (later[0] - earlier[1]) for earlier, later in pairwise(times)]

    def singles(self, count: int) -> float:
        """Trigger *count* runs one after the other; return the seconds from the first trigger to the last end."""
        began = time.time()
        runs = {self.trigger("single") for _ in range(count)}
        deadline = time.monotonic() + _RUN_WITHIN
        while True:
            path = f"/api/v2/dags/single/dagRuns?order_by=-run_after&limit={count}"
            page = [run for run in self.call("GET", path)["dag_runs"] if run["dag_run_id"] in runs]
            if len(page) == count and all(run["state"] == "success" for run in page):
                return max(_at(run["end_date"]) for run in page) - began
            if time.monotonic() > deadline or any(run["state"] == "failed" for run in page):
                raise RuntimeError(f"Airflow: {count} single runs did not end well: {[run['state'] for run in page]}")
            time.sleep(1)

    def _ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        conn = http.client.HTTPConnection(self._host, timeout=60)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
            conn.request(method, path, None if body is None else json.dumps(body), headers)
            answer = conn.getresponse()
            text = answer.read().decode()
            return answer.status, json.loads(text) if text.startswith(("{", "[")) else {"text": text}
        finally:
            conn.close()


@contextmanager
def airflow(place: Path, home: Path, database_url: str | None, slots: int) -> Iterator[Airflow]:
    """Run Airflow from *place* on a new *home*; on SQLite where *database_url* is None."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = _environ(place, home, database_url, url, slots)
    (home / "dags").mkdir(parents=True)
    (home / "dags" / "flows.py").write_text(DAGS)
    command = str(place / "bin" / "airflow")
    with ExitStack() as stack:
        log = stack.enter_context((home / "services.log").open("wb"))
        began = time.monotonic()
        subprocess.run([command, "db", "migrate"], env=environ, cwd=home, stdout=log, stderr=log, check=True)
        migrated = time.monotonic()
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_end, processes)
        for part in _PARTS:  # each where the callback finds it, also when the next cannot be started
            one = [command, part]
            processes += [subprocess.Popen(one, env=environ, cwd=home, stdout=log, stderr=log, start_new_session=True)]
        made = Airflow(home, url, processes)
        while not made.healthy():
            if time.monotonic() - migrated > _READY_WITHIN:
                raise RuntimeError(f"Airflow is not ready after {_READY_WITHIN:.0f} s, see {home}/services.log")
            time.sleep(0.05)
        made.migrated_after, made.ready_after = migrated - began, time.monotonic() - migrated
        made.sign_in()
        for dag_id in ("light", "heavy", "fan", "single"):
            made.wait_for_dag(dag_id)
        yield made


def _environ(place: Path, home: Path, database_url: str | None, url: str, slots: int) -> Mapping[str, str]:
    database = f"sqlite:///{home}/airflow.db"
    if database_url is not None:
        database = database_url.replace("postgresql://", "postgresql+psycopg2://", 1)
    settings = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": str(slots),
        "CORE__DAGS_FOLDER": str(home / "dags"),
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__MAX_ACTIVE_TASKS_PER_DAG": str(slots),
        "DATABASE__SQL_ALCHEMY_CONN": database,
        "API__HOST": "127.0.0.1",
        "API__PORT": url.rpartition(":")[2],
        "API__BASE_URL": url,
        "API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
        "LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": str(free_port()),
    }
    return {
        **PLAIN,
        "PATH": f"{place / 'bin'}:{PLAIN['PATH']}",
        "HOME": str(home),
        "AIRFLOW_HOME": str(home),
        **{f"AIRFLOW__{name}": value for name, value in settings.items()},
        **{name: value for name, value in os.environ.items() if name.startswith("AIRFLOW__")},
    }


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Leave nothing behind: each part is a session of its own."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
