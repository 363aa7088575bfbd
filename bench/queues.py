"""Tasks through the dramatiq executor on Redis, beside Dramatiq as it comes with the same child processes.

python -m bench.queues
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench import machine
from bench.chain import LENGTH, chain
from bench.client import Client
from bench.command import run_benchmark
from bench.figures import ROOT, Goal, Report, percentile
from bench.processes import cpu_seconds
from bench.running import CODE, wait_ready
from bench.stages import add_stages
from tests.brokers import RedisServer
from tests.system.hosts import children
from tests.system.service import PLAIN, RUNYARD, Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.command import Options, Servers

SLOTS = 8
#: Some seconds of work: with 400, what bare Dramatiq did was between 250 and 700 tasks/s, by how long it took to begin.
TASKS = 1600
_WITHIN_BARE = Goal(0.5, "at least")


@dataclass(frozen=True, slots=True)
class Fleet:
    """A service and a worker of it."""

    service: Service
    client: Client
    #: By what they are: service, feeder, agent, zygote.
    pids: dict[str, int]

    def cpu(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    def calls(self) -> float:
        """Return how many requests of workers the API has answered so far."""
        request = urllib.request.Request(  # noqa: S310  # our own, loopback
            f"{self.service.url}/metrics", headers={"Authorization": f"Bearer {self.service.key}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  # as above
            lines = answer.read().decode().splitlines()
        counted = [line for line in lines if line.startswith("runyard_http_requests_total") and "/worker/v1/" in line]
        return sum(float(line.rpartition(" ")[2]) for line in counted if "heartbeat" not in line)


def measure(options: Options) -> Sequence[Report]:
    """Measure on each database that was asked for."""
    with options.servers() as servers, ExitStack() as stack:
        (servers.folder / "redis").mkdir()
        redis = RedisServer(servers.folder / "redis")
        redis.start()
        stack.callback(redis.close)
        reports = []
        for database in options.databases:
            with fleet(servers, database, redis) as running, _bare(servers, redis) as bare:
                reports.append(_measure(running, bare, database, options))
    return reports


@contextmanager
def fleet(servers: Servers, database: str, redis: RedisServer, slots: int = SLOTS, **environ: str) -> Iterator[Fleet]:
    """Run a service with the dramatiq executor alone, and one worker."""
    broker = {"RUNYARD_BROKER_URL": redis.url, "RUNYARD_CODE_DIR": str(CODE), "RUNYARD_LOG_LEVEL": "warning"}
    where = servers.database(database)
    made = Service(servers.home(), {**broker, **where, "RUNYARD_EXECUTORS": "dramatiq", **environ})
    with ExitStack() as stack:
        stack.callback(made.end)
        made.start("--port", "0")
        wait_ready(made.url)
        client = Client(made.url, made.key)
        stack.callback(client.close)
        pids = {"service": made.process.pid if made.process else 0} | stack.enter_context(
            worker(servers.home(), made, broker, slots)
        )
        wait_for(lambda: any(one["free"] == slots for one in client.items("/workers")))
        yield Fleet(made, client, pids)


@contextmanager
def worker(home: Path, made: Service, broker: dict[str, str], slots: int) -> Iterator[dict[str, int]]:
    """Run ``runyard worker``; yield its processes."""
    key = made.ask("keys", "create", "bench", "--scope", "work")["key"]
    environ = {**PLAIN, **broker, "RUNYARD_HOME": str(home), "RUNYARD_API_URL": made.url, "RUNYARD_API_KEY": key}
    with Path(f"{home}.log").open("w") as log:
        process = subprocess.Popen([RUNYARD, "worker", "--concurrency", str(slots)], env=environ, stderr=log)
    try:
        agent = wait_for(lambda: _agents(home))[0]
        zygote = wait_for(lambda: children(agent))[0]
        yield {"feeder": process.pid, "agent": agent, "zygote": zygote}
    finally:
        process.terminate()
        process.wait(60)


def _agents(home: Path) -> list[int]:
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if b"worker/__main__.py" in line and str(home).encode() in line:
            found.append(int(place.name))
    return found


#: How long bare Dramatiq may take, in seconds, before something is broken.
_LATE: Final = 60.0


def _poll(condition: Callable[[], bool], pause: float) -> None:
    """Wait for a child closely: what waits here is measured."""
    late = time.monotonic() + _LATE
    while not condition():
        assert time.monotonic() < late, "bare Dramatiq has not run it; see bare.log in the bench's folder"
        time.sleep(pause)


@dataclass(frozen=True, slots=True)
class Bare:
    """Dramatiq's own command line at work."""

    place: Path
    pids: tuple[int, ...]

    def send(self, names: Sequence[str], argv: list[str]) -> None:
        from bench.bare_dramatiq import child  # noqa: PLC0415  # its broker is known by now

        for name in names:
            child.send(name, argv, str(self.place))

    def wait(self, name: str) -> Path:
        """Return the output of a child once it has ended."""
        file = self.place / name
        _poll(file.exists, 0.0005)
        return file

    def wait_for(self, count: int) -> None:
        # Not oftener: reading a folder of so many files takes from what is measured.
        _poll(lambda: sum(entry.name.isdigit() for entry in os.scandir(self.place)) >= count, 0.02)

    def cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)


@contextmanager
def _bare(servers: Servers, redis: RedisServer) -> Iterator[Bare]:
    place = servers.home()
    place.mkdir()
    os.environ["BENCH_BROKER_URL"] = url = redis.url.replace("/0", "/1")
    command = [str(Path(sys.executable).with_name("dramatiq")), "bench.bare_dramatiq", "-p", "1", "-t", str(SLOTS)]
    environ = {**PLAIN, "BENCH_BROKER_URL": url}
    with (servers.folder / "bare.log").open("w") as log:
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=log)
    try:
        bare = Bare(place, (process.pid,))
        bare.send(["warm"], ["true"])
        bare.wait("warm")
        below = children(process.pid)
        yield Bare(place, (process.pid, *below, *(pid for one in below for pid in children(one))))
    finally:
        process.terminate()
        process.wait(60)


def _measure(running: Fleet, bare: Bare, database: str, options: Options) -> Report:
    report = Report("queues", database)
    client = running.client
    client.define("fan", {f"t{n:04}": {"command": ["true"]} for n in range(TASKS)})
    client.define("chain", chain({"command": ["date", "+%s%N"]}))
    for dag_id in ("fan", "chain"):
        client.run(dag_id)
    for _ in range(options.repeat):
        machine.beside(report, options, "spawn", "fork", "sqlite", url=None)
        _rates(report, running, bare)
        _lags(report, running, bare)
    _idle(report, running, bare, options.idle_seconds)
    report.note(
        f"{SLOTS} slots (threads) and {TASKS} commands `true`, everything on this machine; Dramatiq as it comes: its "
        "own command line, one process, its default middleware, an actor that has the same zygote fork the same child, "
        "no database and no state",
        "lag: the time between the bodies of two tasks (`date +%s%N`), with exit, finish, admission, message, start, "
        "fork and exec; Dramatiq's: from before send() to the child's own clock, one message at a time",
        "HTTP calls are what the API counts of /worker/v1 without heartbeats",
    )
    return report


def _rates(report: Report, running: Fleet, bare: Bare) -> None:
    for file in bare.place.iterdir():
        file.unlink()
    cpu, began = bare.cpu(), time.monotonic()
    bare.send([str(n) for n in range(TASKS)], ["true"])
    bare.wait_for(TASKS)
    seconds = time.monotonic() - began
    rate = TASKS / seconds
    report.add("Dramatiq as it comes, with the same child", "tasks/s", rate)
    report.add("Dramatiq as it comes: CPU a task", "ms", 1000 * (bare.cpu() - cpu) / TASKS)
    before, calls, began = running.cpu(), running.calls(), time.monotonic()
    run = running.client.run("fan")
    seconds = time.monotonic() - began
    after = running.cpu()
    report.add("Runyard through dramatiq, as the client sees it", "tasks/s", TASKS / seconds)
    report.add("Runyard through dramatiq, from the run's start to its end", "tasks/s", TASKS / run["duration"])
    report.add("the part of bare Dramatiq's rate", "", TASKS / seconds / rate, _WITHIN_BARE)
    report.add("HTTP calls a task", "", (running.calls() - calls) / TASKS)
    for name in running.pids:
        report.add(f"CPU a task: {name}", "ms", 1000 * (after[name] - before[name]) / TASKS)


def _lags(report: Report, running: Fleet, bare: Bare) -> None:
    waits = []
    for n in range(LENGTH):
        name = f"lag{time.monotonic_ns()}"
        sent = time.time_ns()
        bare.send([name], ["date", "+%s%N"])
        if n:
            waits.append((int(bare.wait(name).read_text()) - sent) / 1e6)
        else:
            bare.wait(name)
    theirs = percentile(waits, 50)
    report.add("Dramatiq as it comes: send to run, median", "ms", theirs)
    report.add("Dramatiq as it comes: send to run, p95", "ms", percentile(waits, 95))
    run = running.client.run("chain")
    stamps = [int(running.client.log(run, f"t{n:02}")) for n in range(LENGTH)]
    lags = [(later - earlier) / 1e6 for earlier, later in pairwise(stamps)]
    add_stages(report, "dependent tasks", running.client.tasks(run), stamps)
    ours = percentile(lags, 50)
    report.add(f"{LENGTH} dependent tasks: lag from body to body, median", "ms", ours)
    report.add(f"{LENGTH} dependent tasks: lag from body to body, p95", "ms", percentile(lags, 95))
    report.add("lag beyond Dramatiq's send to run", "ms", ours - theirs, Goal(15))
    report.add(f"{LENGTH} dependent tasks, as the run's times say", "s", run["duration"])


def _idle(report: Report, running: Fleet, bare: Bare, seconds: float) -> None:
    mine, theirs, began = running.cpu(), bare.cpu(), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    now = running.cpu()
    for name in running.pids:
        report.add(f"idle CPU: {name}", "%", 100 * (now[name] - mine[name]) / took)
    report.add("idle CPU: Dramatiq as it comes, all its processes", "%", 100 * (bare.cpu() - theirs) / took)


if __name__ == "__main__":
    run_benchmark(measure)
