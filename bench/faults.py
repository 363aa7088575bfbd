"""What faults cost and do not cost, on a real installation: API, schedulers, Postgres, workers and Redis.

python -m bench.faults rescue     a host dies: how long until its tasks run elsewhere
python -m bench.faults pauses     hosts, database and network stand still at random: nothing is rescued that lives
python -m bench.faults kills      everything is killed, again and again, under load: nothing lost, nothing started twice
                                  (--schedulers 3: more of them; --executors local: agents of theirs, and no broker)
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from bench.blows import Blows
from bench.figures import Goal, Report, percentile, show
from bench.postgres import postgres
from tests.brokers import RedisServer
from tests.simulation.checker.journal import WOKEN
from tests.system import crash
from tests.system.fleet import Fleet
from tests.system.history import ClientLog, collect, judge
from tests.system.hosts import Pauses, children
from tests.system.service import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.command import Options
    from bench.postgres import Postgres

LEASE = 15
_PAUSE = 10.0
#: How much longer than the lease something stands still in the loop of kills.
_BEYOND = 5.0
#: Of the loop of kills.
_WORKERS = 3
#: Beside other benchmarks: long enough to see a lease run out and a pause survive it.
_SHORT_ROUNDS, _SHORT_LEASE, _SHORT_TASKS = 3, 90, 300
_JOURNAL = 'echo "$RUNYARD_ATTEMPT_ID $RUNYARD_TASK_ID $RUNYARD_FENCE $(date +%s%N)" >> "$JOURNAL"'


class Installation:
    """A fleet with its servers, and a client."""

    def __init__(self, folder: Path, server: Postgres, redis: RedisServer | None, stack: ExitStack, **how: Any) -> None:
        self.folder = folder
        self.server = server
        self.redis = redis
        self.fleet = Fleet(folder, database_url=server.create(), broker_url=redis.url if redis else None, **how)
        stack.callback(self.fleet.end)
        self.fleet.start()
        self.client = httpx.Client(
            base_url=f"{self.fleet.url}/api/v1", headers={"Authorization": f"Bearer {self.fleet.key}"}, timeout=30
        )
        stack.callback(self.client.close)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.request(method, path, json=body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def wait_for_end(self, run: dict[str, Any]) -> None:
        wait_for(lambda: self.ask("GET", f"/dags/{run['dag_id']}/runs/{run['run_id']}")["ended_at"], 60)

    def tasks(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.ask("GET", f"/dags/{run['dag_id']}/runs/{run['run_id']}/tasks?limit=1000{cursor}")
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"


@contextmanager
def installation(*, executor: str = "dramatiq", **how: Any) -> Iterator[Installation]:
    """Run everything in a folder that is gone afterwards; a broker only where the *executor* has one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="runyard-faults-")))
        server = stack.enter_context(postgres(folder))
        redis = None if executor == "local" else stack.enter_context(RedisServer(folder / "redis"))
        yield Installation(folder, server, redis, stack, **how)


def rescue(rounds: int) -> Report:
    """Kill a host with four running tasks in every round; its place is taken by a new one."""
    report = Report("rescue of a dead host's tasks", "postgres")
    times: list[float] = []
    with installation(lease=LEASE, workers=2, slots=4) as made:
        journal = made.folder / "journal"
        body = {"command": f"{_JOURNAL}; sleep 600", "shell": True, "env": {"JOURNAL": str(journal)}}
        made.ask("PUT", "/dags/long", {"tasks": {f"t{n}": body for n in range(4)}})
        secret = made.fleet.work_key()
        for number in range(rounds):
            journal.write_text("")
            run = made.ask("POST", "/dags/long/runs", {})
            _wait_for_lines(journal, 4)
            states = made.tasks(run)
            places = {task["worker_id"] for task in states}
            dying = [part for part in made.fleet.workers if _worker_id(part.home) in places]
            gone = dying[0]
            lost = sum(task["worker_id"] == _worker_id(gone.home) for task in states)
            gone.die()
            died = time.time_ns()
            made.fleet.add_worker(f"worker{number + 10}", secret)
            _wait_for_lines(journal, 4 + lost)
            times += [(int(line.split()[3]) - died) / 1e9 for line in journal.read_text().splitlines()[4:]]
            del made.fleet.parts[gone.name]
            made.ask("POST", f"/dags/long/runs/{run['run_id']}/cancel", {})
            made.wait_for_end(run)
    goal = Goal(LEASE + 20)
    report.add("dead host to new attempt running, median", "s", percentile(times, 50))
    report.add("dead host to new attempt running, p99", "s", percentile(times, 99), Goal(30))
    report.add("dead host to new attempt running, slowest", "s", max(times), goal)
    report.note(
        f"lease {LEASE} s, {rounds} hosts killed whole (worker, agent, zygote, tasks), {len(times)} tasks rescued"
    )
    return report


def _wait_for_lines(file: Path, number: int) -> None:
    wait_for(lambda: len(file.read_text().splitlines()) == number, 120)


def _worker_id(home: Path) -> str:
    return next(home.glob("workers/*/agent/id")).read_text().strip()


def pauses(lease: int, number: int) -> Report:
    """Run *number* tasks while hosts, database and network stand still for ten seconds each, at random."""
    report = Report(f"false rescues, lease {lease} s", "postgres")
    chance = random.Random(1)  # noqa: S311  # a schedule of faults, not a secret
    done: Counter[str] = Counter()
    with installation(lease=lease, workers=2, slots=8) as made:
        body = {"command": ["sleep", "1"]}
        made.ask("PUT", "/dags/many", {"tasks": {f"t{n}": body for n in range(number)}})
        run = made.ask("POST", "/dags/many/runs", {})
        while made.ask("GET", f"/dags/many/runs/{run['run_id']}")["ended_at"] is None:
            kind = chance.choice(["worker", "network", "database"])
            done[kind] += 1
            _stand_still(made, kind, chance)
            time.sleep(chance.uniform(1, 4))
        tasks = made.tasks(run)
    report.add("tasks", "", len(tasks))
    report.add("attempts beyond the first", "", sum(task["try_number"] - 1 for task in tasks), Goal(0))
    report.add("tasks that did not succeed", "", sum(task["state"] != "success" for task in tasks), Goal(0))
    report.note(
        f"lease {lease} s; pauses of 10 s: {dict(done)}; worker: SIGSTOP of everything on a host, database: of all of "
        "Postgres, network: a wire between all workers and the API that holds everything back"
    )
    return report


def _stand_still(made: Installation, kind: str, chance: random.Random) -> None:
    """Have one thing do nothing for ten seconds, and go on where it was."""
    if kind == "network":
        made.fleet.wire.hold()
        time.sleep(_PAUSE)
        made.fleet.wire.heal()
    elif kind == "worker":
        part = chance.choice(made.fleet.workers)
        with Pauses(_PAUSE) as pauses:
            pauses.begin(part.name, kind, part.host)
            pauses.wait()
    else:
        pids = _postgres_of(made.folder)
        _signal(pids, signal.SIGSTOP)
        time.sleep(_PAUSE)
        _signal(pids, signal.SIGCONT)


def _postgres_of(folder: Path) -> list[int]:
    first = int((folder / "pg" / "postmaster.pid").read_text().split("\n", 1)[0])
    return [first, *children(first)]


def _signal(pids: list[int], sent: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sent)


def kills(cycles: int, *, executor: str = "dramatiq", schedulers: int = 2, seed: int = 2) -> Report:
    """Strike what there is, one after the other, under load; judge from the clients' log and the tasks' journal."""
    report = Report(f"kills of everything, {executor}, {schedulers} schedulers", "postgres")
    chance = random.Random(seed)  # noqa: S311  # as above
    how: dict[str, Any] = {"executor": executor, "schedulers": schedulers, "workers": _WORKERS, "lease": LEASE}
    with installation(**how) as made, Pauses(LEASE + _BEYOND) as pauses:
        journal = made.folder / "journal"
        log = ClientLog()
        crash.define(made.fleet, log, journal)
        clients = [crash.Client(made.fleet, "client0", "diamond", log, 0.2)]
        clients += [crash.Client(made.fleet, f"client{n}", "single", log, 0.1) for n in (1, 2)]
        clients.append(crash.long_client(made.fleet, "client3", log))
        for client in clients:
            client.start()
        blows = Blows(made, chance, pauses)
        began = time.monotonic()
        for _ in range(cycles):
            time.sleep(chance.uniform(0.2, 1.5))
            blows.strike()
        pauses.wait()
        took = time.monotonic() - began
        for client in clients:
            client.over.set()
        for client in clients:
            client.join(120)
        crash.come_to_rest(made.fleet)
        # The checker takes what the limits are at the end: all that run tasks count.
        wait_for(lambda: _serving(made) == len(made.fleet.hosts), 60)
        ended = [words for part in made.fleet.parts.values() if (words := part.last_words()) is not None]
        history = collect(made.fleet, log, journal)
        # Of a whole host: what is below a process or an agent that stands still alone goes on.
        hosts = [(since, until) for what, since, until in pauses.stood if what == "pause host"]
        history += [{"type": "pause", "from": since, "until": until} for since, until in hosts]
        found = judge(history, Path("kills.jsonl").absolute())
    wrong = [each for client in clients for each in client.wrong] + [str(one) for one in found.violations]
    report.add("schedulers", "", schedulers)
    report.add("blows", "", blows.struck.total())
    report.add("pauses that lasted beyond the lease", "", pauses.lasted.total())
    report.add("accepted runs", "", log.accepted())
    report.add("starts of user code", "", found.counts["journal starts"])
    report.add("attempts lost in the middle", "", sum(line.get("reason") == "lost" for line in history))
    report.add("services that ended by themselves", "", len(ended), Goal(0))
    report.add("violations of any invariant, and wrong answers", "", len(wrong), Goal(0))
    report.note(
        f"kills by kind: {dict(sorted(blows.struck.items()))} in {took:.0f} s",
        f"{WOKEN}: {found.counts[WOKEN]}",
        f"pauses are of {LEASE + _BEYOND:g} s, the lease is {LEASE} s; a kill cut short: {dict(pauses.cut) or 'none'}",
        f"executor {executor}, {schedulers} schedulers, seed {seed}; judged by tests.simulation.checker",
        *ended,
        *wrong[:5],
    )
    return report


def _serving(made: Installation) -> int:
    """Return how many of those that run tasks say that they do."""
    if made.redis is not None:
        return sum(one["state"] == "live" for one in made.ask("GET", "/workers")["items"])
    (local,) = [one for one in made.ask("GET", "/executors")["items"] if one["name"] == "local"]
    return sum(place["status"] == "ok" for place in local["places"])


def measure(options: Options) -> Sequence[Report]:
    """Run them in a short form; the commands above have the long ones."""
    return [
        rescue(_SHORT_ROUNDS),
        pauses(_SHORT_LEASE, _SHORT_TASKS),
        kills(options.cycles),
        kills(options.cycles, executor="local", schedulers=3),
    ]


def main() -> None:
    """Be one of three commands."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults")
    parser.add_argument("what", choices=["rescue", "pauses", "kills"])
    parser.add_argument("--rounds", type=int, default=10, help="rescue: how many hosts die")
    parser.add_argument("--lease", type=int, default=90, help="pauses: seconds")
    parser.add_argument("--tasks", type=int, default=1000, help="pauses: how many run")
    parser.add_argument("--cycles", type=int, default=200, help="kills: how many")
    parser.add_argument("--schedulers", type=int, default=2, help="kills: how many there are")
    parser.add_argument("--executors", choices=["dramatiq", "local"], default="dramatiq", help="kills: who runs tasks")
    parser.add_argument("--seed", type=int, default=2, help="kills: of the order of blows")
    parser.add_argument("--markdown", action="store_const", const="markdown", default="tables", dest="form")
    given = parser.parse_args()
    if given.what == "rescue":
        report = rescue(given.rounds)
    elif given.what == "pauses":
        report = pauses(given.lease, given.tasks)
    else:
        report = kills(given.cycles, executor=given.executors, schedulers=given.schedulers, seed=given.seed)
    show([report], given.form)


if __name__ == "__main__":
    main()
