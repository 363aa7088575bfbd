"""Kill -9 under load, and what must be true afterwards: judged by the independent checker.

Shared by the test run (a few cycles) and ``bench/crash.py`` (many).
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx

from tests.system import hosts
from tests.system.history import ClientLog, collect, journaling, judge
from tests.system.hosts import Pauses
from tests.system.service import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.simulation.checker import Report
    from tests.system.history import Target
    from tests.system.service import Service

#: Without any run ending for so long, it does not come to rest any more.
_PATIENCE: Final = 60.0
#: How many runs have their cancel asked for, and how many of these are cleared afterwards.
_CANCELLED: Final = 0.1
_CLEARED: Final = 0.5
#: The same of runs whose tasks take seconds; in how many seconds after their triggers.
_LONG_CANCELLED: Final = 0.5
_LONG_WITHIN: Final = 2.0
#: In seconds: how often such a run is asked for, and how long its tasks take.
_LONG_PAUSE: Final = 5.0
_LONG: Final = 2.5
#: So many accepted runs are waited for: a loop in which little was asked for shows little.
_LEAST: Final = 40
#: In how many cycles the database, or the zygote, goes first; in how many something stands still.
_RARE: Final = 0.1
_PAUSED: Final = 0.03


@dataclass
class Result:
    """The outcome of a loop of kills."""

    cycles: int
    kills: Counter[str]
    #: Those that nothing has cut short.
    pauses: Counter[str]
    accepted: int
    unanswered: int
    starts: int
    report: Report
    #: Answers that no client should get.
    wrong: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong, in words."""
        return [*self.wrong, *map(str, self.report.violations)]


class Client(threading.Thread):
    """Triggers runs as fast as *pause* allows, and cancels and clears some.

    Repeats what was not answered, with the same key, until it is.
    """

    def __init__(
        self,
        service: Target,
        name: str,
        dag_id: str,
        log: ClientLog,
        pause: float,
        *,
        cancelled: float = _CANCELLED,
        within: float = 0.3,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._cancelled = cancelled
        self._within = within
        self._service = service
        self._dag_id = dag_id
        self._log = log
        self._pause = pause
        self._chance = random.Random(name)  # noqa: S311  # which runs are cancelled, not a secret
        self._number = 0
        self.over = threading.Event()
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.over.is_set():
            answer = self._ask("trigger", None, {}, 201)
            if answer is not None and self._chance.random() < self._cancelled:
                self._interfere(answer.json()["run_id"])
            self.over.wait(self._pause)

    def _interfere(self, run_id: str) -> None:
        time.sleep(self._chance.uniform(0, self._within))
        self._log.ask(self._service, "read", self._dag_id, run_id, client=self.name)
        self._ask("cancel", run_id, {}, 202, 409)  # 409: it has ended
        if self._chance.random() < _CLEARED:
            self._ask("clear", run_id, {}, 200, 409)  # 409: it is still being cancelled

    def _ask(self, op: str, run_id: str | None, body: Any, *expected: int) -> httpx.Response | None:
        self._number += 1
        key = f"{self.name}-{self._number}"
        while True:
            answer = self._log.ask(self._service, op, self._dag_id, run_id, key=key, body=body, client=self.name)
            if answer is None or answer.status_code == 503:
                time.sleep(0.05)
                continue
            if answer.status_code not in expected:
                self.wrong.append(f"{op} {key}: {answer.status_code} {answer.text}")
                return None
            return answer


def long_client(service: Target, name: str, log: ClientLog) -> Client:
    """Return a client that asks for the runs whose tasks take seconds, and cancels half of them meanwhile."""
    return Client(service, name, "long", log, _LONG_PAUSE, cancelled=_LONG_CANCELLED, within=_LONG_WITHIN)


def crash_loop(
    service: Service,
    journal: Path,
    *,
    cycles: int,
    seed: int = 1,
    port: int,
    longest_life: float = 1.2,
    restart_database: Callable[[], None] | None = None,
    pause: float | None = None,
) -> Result:
    """Run *cycles* kills of a running service and its agents under load, let it come to rest, and judge.

    A service lives for at most *longest_life* seconds.  Where its database is a server, that is restarted now and then;
    with *pause* the service and its agent stand still for so many seconds now and then.
    """
    chance = random.Random(seed)  # noqa: S311  # a schedule of faults, not a secret
    log = ClientLog()
    define(service, log, journal)
    clients = [
        Client(service, "client0", "diamond", log, 0.1),
        *(Client(service, f"client{n}", "single", log, 0.02) for n in (1, 2)),
        long_client(service, "client3", log),
    ]
    for client in clients:
        client.start()
    with Pauses(pause or 0) as pauses:
        blows = _Blows(service, port, chance, pauses, restart_database)
        for extra in blows.plan(cycles, paused=pause is not None):
            time.sleep(chance.uniform(0.2, longest_life))
            blows.strike(extra)
        pauses.wait()
    # On a slow machine little was asked for by now, and a load in which nobody reads proves nothing about reads.
    wait_for(lambda: (log.has_read() and log.accepted() >= _LEAST) or None, 60)
    for client in clients:
        client.over.set()
    for client in clients:
        client.join(60)
    come_to_rest(service)
    report = judge(collect(service, log, journal), journal.with_suffix(".jsonl"))
    wrong = [each for client in clients for each in client.wrong]
    starts = report.counts["journal starts"]
    return Result(cycles, blows.kills, pauses.lasted, log.accepted(), log.unanswered, starts, report, wrong)


class _Blows:
    """What strikes one service and its agent; counted where it has struck."""

    def __init__(
        self,
        service: Service,
        port: int,
        chance: random.Random,
        pauses: Pauses,
        restart_database: Callable[[], None] | None,
    ) -> None:
        self._service = service
        self._port = port
        self._chance = chance
        self._pauses = pauses
        self._restart_database = restart_database
        self.kills: Counter[str] = Counter()

    def plan(self, cycles: int, *, paused: bool) -> list[str]:
        """Return what each cycle begins with, mostly nothing; each kind at least once where the loop is long enough."""
        often = {"zygote": _RARE} | ({"database": _RARE} if self._restart_database is not None else {})
        if paused:
            often |= {"pause of the service": _PAUSED, "pause of the agent": _PAUSED}
        extras = [kind for kind, part in often.items() for _ in range(max(1, round(cycles * part)))]
        extras = (extras + [""] * cycles)[:cycles]
        self._chance.shuffle(extras)
        return extras

    def strike(self, extra: str) -> None:
        """Strike with *extra*, then kill the agent, the service, or both."""
        chance, service = self._chance, self._service
        if extra:
            self._strike(extra)
        if chance.random() < 0.3 and not self._pauses.stands("agent"):
            self.kills["agent"] += hosts.send(service.agents(), signal.SIGKILL)
            if chance.random() < 0.5:
                return
        service.stop(signal.SIGKILL)
        self.kills["service"] += 1
        time.sleep(chance.uniform(0, 0.3))
        service.start("--port", str(self._port))

    def _strike(self, kind: str) -> None:
        service = self._service
        if kind == "database":
            assert self._restart_database is not None
            self._restart_database()
            self.kills[kind] += 1
            time.sleep(self._chance.uniform(0, 1))
        elif kind == "zygote":
            # An agent that was killed a moment ago has a successor soon, and that one a zygote.
            wait_for(lambda: hosts.send(hosts.zygotes(service.home), signal.SIGKILL), 30)
            self.kills[kind] += 1
        elif kind == "pause of the service":
            self.kills[kind] += self._pauses.begin("service", kind, lambda: [service.pid])
            self._pauses.wait()
        else:  # its service is killed and started meanwhile
            self.kills[kind] += wait_for(lambda: self._pauses.begin("agent", kind, service.agents), 30)


def define(service: Target, log: ClientLog, journal: Path) -> None:
    """Define a diamond with a task that fails first, a single task, and two that take long; all with limits.

    One of the long ones does not end when it is asked to, and has to be killed.
    """
    journal.touch()
    flaky = '[ "$RUNYARD_FENCE" -gt 1 ] || { say fail; exit 1; }'
    tasks = {
        "a": journaling("sleep 0.03", journal),
        "b": journaling("sleep 0.03", journal, "a"),
        "c": journaling(flaky, journal, "a", retries=1, retry_delay="PT0.1S"),
        "d": journaling("sleep 0.03", journal, "b", "c"),
        "e": {"empty": {}, "depends_on": ["d"]},
    }
    log.put(service, "diamond", {"tasks": tasks, "max_active_runs": 6, "max_active_tasks": 3})
    log.put(service, "single", {"tasks": {"a": journaling("sleep 0.03", journal)}, "max_active_tasks": 3})
    long = {
        "slow": journaling(f"sleep {_LONG}", journal),
        "deaf": journaling(f"trap '' TERM; sleep {_LONG}", journal, kill_grace="PT0.5S"),
    }
    log.put(service, "long", {"tasks": long, "max_active_runs": 2, "max_active_tasks": 2})


def come_to_rest(service: Target) -> None:
    """Wait until no run is active, as long as runs go on ending."""
    changed, before = time.monotonic(), -1
    while active := _active(service):
        if active != before:
            changed, before = time.monotonic(), active
        if time.monotonic() - changed > _PATIENCE:
            return  # the checker says what is not at rest
        time.sleep(0.3)


def _active(service: Target) -> int:
    states = ("queued", "running", "cancelling")
    answer = httpx.get(
        f"{service.url}/api/v1/runs",
        params={"limit": 1000, "state": states},
        headers={"Authorization": f"Bearer {service.key}"},
        timeout=30,
    ).json()
    return len(answer["items"])
