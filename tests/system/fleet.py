"""An installation of several processes, as operators run it: an API, schedulers, one Postgres, workers and a broker.

Or without these two, where the schedulers have agents of their own (``local``).  Every process has a home of its own,
as on a host of its own; only database, broker and log store are shared.
"""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.processes import free_port
from tests.proxy import Proxy
from tests.system import hosts
from tests.system.service import PLAIN, RUNYARD, wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: How long a part may take to be there again on a busy machine.
_WITHIN = 60.0


class Part:
    """One process of an installation, with a home; it can be killed and started again."""

    def __init__(self, name: str, command: list[str], home: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.home = home
        self._command = command
        self._environ = {**PLAIN, **environ, "RUNYARD_HOME": str(home)}
        self._log = home.parent / f"{home.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._said = 0

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        """Start it, and do not wait for it."""
        self._said = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [RUNYARD, *self._command], env=self._environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def start(self) -> None:
        """Start it, and return once it says that it is ready."""
        self.spawn()
        wait_for(lambda: b'"event": "ready"' in self.said(), _WITHIN)

    def said(self) -> bytes:
        """Return what it has logged since its last start."""
        with self._log.open("rb") as file:
            file.seek(self._said)
            return file.read()

    def last_words(self) -> str | None:
        """Return what it said last if it has ended by itself, None while it runs."""
        if self._process is None or self._process.poll() is None:
            return None
        return f"{self.name} ended with {self._process.returncode}: {self.said()[-300:].decode(errors='replace')}"

    def kill(self) -> None:
        """End the process alone, in the middle of whatever it does; what it started lives on."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Ask it to end, and return when it has."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(60)
        self.kill()

    def agents(self) -> list[int]:
        """Return the agents below its home."""
        return hosts.agents(self.home)

    def zygotes(self) -> list[int]:
        """Return what forks the tasks of its agents."""
        return hosts.zygotes(self.home)

    def host(self) -> list[int]:
        """Return everything on this host: the process first, then its agents and all below them."""
        return [self.pid, *sorted((hosts.below([self.pid]) | hosts.everything(self.home)) - {self.pid})]

    def kill_agent(self) -> int:
        """Kill its agents alone: what they run dies with them; return how many there were."""
        return hosts.send(self.agents(), signal.SIGKILL)

    def kill_zygote(self) -> int:
        """Kill what forks the tasks: they die with it, and the agent has to find out; return how many there were."""
        return hosts.send(self.zygotes(), signal.SIGKILL)

    def die(self) -> None:
        """Go without a word, with everything on this host, as one that loses its power."""
        agents = self.agents()
        self.kill()
        hosts.send(agents, signal.SIGKILL)

    def go_on(self) -> None:
        """Let everything on this host go on that was stopped."""
        hosts.send(self.host(), signal.SIGCONT)


class Fleet:
    """The parts, by name: ``api``, ``scheduler1``…, ``worker1``…; these only where there is a broker."""

    def __init__(
        self,
        folder: Path,
        *,
        database_url: str,
        broker_url: str | None = None,
        schedulers: int = 2,
        workers: int = 2,
        slots: int = 4,
        lease: int = 15,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        #: Between all workers and the API.
        self.wire = Proxy(self.url)
        self._slots = slots
        self._workers = workers if broker_url else 0
        self._broker = {"RUNYARD_BROKER_URL": broker_url} if broker_url else {}
        #: Of those that have the database.
        self.environ = {
            **self._broker,
            "RUNYARD_DATABASE_URL": database_url,
            "RUNYARD_EXECUTORS": "dramatiq" if broker_url else "local",
            "RUNYARD_LOCAL_PARALLELISM": str(slots),
            "RUNYARD_WORKER_LEASE": str(lease),
            "RUNYARD_LOG_STORE": str(folder / "logs"),
        }
        self._folder = folder
        self.home = folder / "api"
        self.parts: dict[str, Part] = {
            "api": Part("api", ["api", "--port", str(self.port)], folder / "api", self.environ)
        }
        for n in range(1, schedulers + 1):
            name = f"scheduler{n}"
            self.parts[name] = Part(name, ["scheduler"], folder / name, self.environ)

    @property
    def key(self) -> str:
        return (self.parts["api"].home / "admin.key").read_text()

    @property
    def workers(self) -> list[Part]:
        return self.parts_of("worker")

    @property
    def hosts(self) -> list[Part]:
        """Those that run tasks."""
        return self.parts_of("worker" if self._broker else "scheduler")

    @property
    def homes(self) -> list[Path]:
        return [part.home for part in self.parts.values()]

    def parts_of(self, kind: str) -> list[Part]:
        """Return the parts that are an ``api``, a ``scheduler`` or a ``worker``."""
        return [part for name, part in self.parts.items() if name.startswith(kind)]

    def start(self) -> Fleet:
        """Make the tables, then start everything; return once all workers serve."""
        self.wire.__enter__()
        done = subprocess.run(
            [RUNYARD, "db", "upgrade"],
            env={**PLAIN, **self.environ, "RUNYARD_HOME": str(self._folder / "api")},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        for name in [name for name in self.parts if name != "api"]:
            self.parts[name].start()
        self.parts["api"].start()
        secret = self.work_key() if self._workers else ""
        for n in range(1, self._workers + 1):
            self.add_worker(f"worker{n}", secret)
        return self

    def work_key(self) -> str:
        """Return a new key for workers."""
        import json  # noqa: PLC0415  # beside its only use

        done = subprocess.run(
            [RUNYARD, "keys", "create", "workers", "--scope", "work", "--json"],
            env={**PLAIN, "RUNYARD_HOME": str(self._folder / "api"), "RUNYARD_API_URL": self.url},
            check=True,
            capture_output=True,
        )
        key: str = json.loads(done.stdout)["key"]
        return key

    def add_worker(self, name: str, secret: str) -> Part:
        """Start one more worker, on a host of its own that has no database."""
        environ = {**self._broker, "RUNYARD_API_URL": self.wire.url, "RUNYARD_API_KEY": secret}
        part = Part(name, ["worker", "--concurrency", str(self._slots)], self._folder / name, environ)
        self.parts[name] = part
        part.spawn()
        wait_for(lambda: b'"state": "serving"' in part.said(), _WITHIN)
        return part

    def go_on(self) -> None:
        """Let everything go on that was stopped."""
        for part in list(self.parts.values()):
            with suppress(AssertionError):  # it was never started
                part.go_on()

    def end(self) -> None:
        """Leave nothing behind."""
        self.go_on()
        for part in self.workers:
            part.stop()
        for part in self.parts.values():
            part.stop()
            part.kill_agent()
        self.wire.__exit__(None, None, None)


def seconds_until(condition: Any, within: float) -> float:
    """Return how long it took until *condition* held."""
    began = time.monotonic()
    wait_for(condition, within)
    return time.monotonic() - began
