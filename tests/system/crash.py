"""Kill -9 under load, and what must be true afterwards: judged from outside, by clients' log and tasks' journal.

Shared by the test run (a few cycles) and ``bench/crash.py`` (many).  Nothing here looks into the database.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import httpx

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.service import Service

#: One line as each attempt starts and one as it ends; O_APPEND keeps lines whole.
_TASK = 'echo "start $RUNYARD_ATTEMPT_ID $RUNYARD_RUN_ID $RUNYARD_TASK_ID $RUNYARD_FENCE" >> "$JOURNAL"; sleep {sleep}; echo "end $RUNYARD_ATTEMPT_ID $RUNYARD_RUN_ID $RUNYARD_TASK_ID $RUNYARD_FENCE" >> "$JOURNAL"'  # noqa: E501  # one shell line
TASKS = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


class Target(Protocol):
    """Where the load goes."""

    url: str

    @property
    def key(self) -> str: ...


@dataclass
class Log:
    """What the clients did and were told."""

    #: Idempotency key → run_id, answered 2xx.
    accepted: dict[str, str] = field(default_factory=dict)
    #: Requests whose answer never came, and that were sent again.
    repeated: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Result:
    """The outcome of a loop of kills."""

    cycles: int
    kills: Counter[str]
    accepted: int
    repeated: int
    starts: int
    problems: list[str]


class Client(threading.Thread):
    """Triggers runs as fast as *pause* allows; repeats what was not answered, with the same key, until it is."""

    def __init__(self, service: Target, name: str, log: Log, stop: threading.Event, pause: float) -> None:
        super().__init__(name=name, daemon=True)
        self._service = service
        self._log = log
        self._stop_event = stop
        self._pause = pause

    def run(self) -> None:
        number = 0
        while not self._stop_event.is_set():
            number += 1
            self._trigger(f"{self.name}-{number}")
            time.sleep(self._pause)

    def _trigger(self, key: str) -> None:
        while True:
            try:
                answer = httpx.post(
                    f"{self._service.url}/api/v1/dags/crash/runs",
                    json={},
                    headers={"Authorization": f"Bearer {self._service.key}", "Idempotency-Key": key},
                    timeout=5,
                )
            except (httpx.HTTPError, OSError):
                self._log.repeated += 1
                time.sleep(0.05)
                continue
            if answer.status_code == 201:
                self._log.accepted[key] = answer.json()["run_id"]
                return
            if answer.status_code != 503:
                self._log.wrong.append(f"{key}: {answer.status_code} {answer.text}")
                return
            time.sleep(0.05)


def crash_loop(service: Service, journal: Path, *, cycles: int, seed: int = 1, port: int, agents_too: bool) -> Result:
    """Run *cycles* kills of a running service under load, let it come to rest, and judge."""
    chance = random.Random(seed)  # noqa: S311  # a schedule of faults, not a secret
    log, stop = Log(), threading.Event()
    define(service, journal)
    clients = [Client(service, f"client{n}", log, stop, 0.02) for n in range(3)]
    for client in clients:
        client.start()
    kills: Counter[str] = Counter()
    for _ in range(cycles):
        time.sleep(chance.uniform(0.2, 1.2))
        if agents_too and chance.random() < 0.3:
            for pid in service.agents():
                _kill(pid)
                kills["agent"] += 1
            if chance.random() < 0.5:
                continue
        service.stop(signal.SIGKILL)
        kills["service"] += 1
        time.sleep(chance.uniform(0, 0.3))
        service.start("--port", str(port))
    stop.set()
    for client in clients:
        client.join(60)
    states = at_rest(service, set(log.accepted.values()))
    return judge(log, states, journal.read_text().split("\n"), cycles, kills)


def _kill(pid: int) -> None:
    import os  # noqa: PLC0415  # beside its only use

    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def define(service: Target, journal: Path) -> None:
    tasks: dict[str, Any] = {
        name: {
            "command": _TASK.format(sleep="0.03"),
            "shell": True,
            "env": {"JOURNAL": str(journal)},
            "depends_on": upstream,
        }
        for name, upstream in TASKS.items()
    }
    journal.touch()
    answer = httpx.put(
        f"{service.url}/api/v1/dags/crash",
        json={"tasks": tasks},
        headers={"Authorization": f"Bearer {service.key}"},
        timeout=30,
    )
    assert answer.status_code in (200, 201), answer.text


def at_rest(service: Target, runs: set[str], seconds: float = 180) -> dict[str, str]:
    """Wait until no run is active; return the state of every run."""
    deadline = time.monotonic() + seconds
    while True:
        states = _states(service)
        if runs <= set(states) and all(states[run] in ("success", "failed", "cancelled") for run in states):
            return states
        if time.monotonic() > deadline:
            return states
        time.sleep(0.3)


def _states(service: Target) -> dict[str, str]:
    states: dict[str, str] = {}
    cursor: str | None = None
    while True:
        answer = httpx.get(
            f"{service.url}/api/v1/dags/crash/runs",
            params={"limit": 1000} | ({"cursor": cursor} if cursor else {}),
            headers={"Authorization": f"Bearer {service.key}"},
            timeout=30,
        ).json()
        states |= {run["run_id"]: run["state"] for run in answer["items"]}
        cursor = answer["next_cursor"]
        if cursor is None:
            return states


def judge(log: Log, states: dict[str, str], lines: list[str], cycles: int, kills: Counter[str]) -> Result:
    problems = list(log.wrong)
    problems += [f"accepted run {run} is gone" for run in log.accepted.values() if run not in states]
    problems += [f"run {run} is {state}" for run, state in states.items() if state != "success"]
    extra = Counter(log.accepted.values())
    problems += [f"run {run} answers {times} keys" for run, times in extra.items() if times > 1]
    if len(states) != len(log.accepted):
        problems.append(f"{len(states)} runs for {len(log.accepted)} accepted triggers")
    starts: Counter[str] = Counter()
    fences: Counter[tuple[str, str, str]] = Counter()
    done: set[tuple[str, str]] = set()
    for line in filter(None, lines):
        kind, attempt, run, task, fence = line.split()
        if kind == "start":
            starts[attempt] += 1
            fences[run, task, fence] += 1
            problems += [f"{run}/{task} started before {up} ended" for up in TASKS[task] if (run, up) not in done]
        else:
            done.add((run, task))
    problems += [f"attempt {attempt} started {times} times" for attempt, times in starts.items() if times > 1]
    problems += [f"{key} has {times} starts under one fence" for key, times in fences.items() if times > 1]
    problems += [f"{run}/{task} never ran to its end" for run in states for task in TASKS if (run, task) not in done]
    return Result(cycles, kills, len(log.accepted), log.repeated, sum(starts.values()), problems)
