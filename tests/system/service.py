"""A real service in processes of its own, and the real command line that talks to it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.system import hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[2]
RUNYARD = Path(sys.executable).with_name("runyard")
READY_WITHIN = 30.0
#: What a process needs of this machine; nothing of the developer's own settings.
PLAIN = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}


class Service:
    """``runyard`` as a service, started and ended as an operator does."""

    def __init__(self, home: Path, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.environ = {**PLAIN, "RUNYARD_HOME": str(home), "RUNYARD_EXECUTORS": "local", **(environ or {})}
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.greeting = ""

    def start(self, *args: str, command: str = "standalone") -> Service:
        """Start it, and return once it has said that it is ready."""
        self._spawn(command, *(args or ("--port", "0")))
        self.greeting = self._read_until("Ctrl-C stops it.\n")
        (self.url,) = (
            line.split()[1].removesuffix("/api/v1") for line in self.greeting.splitlines() if "  API " in line
        )
        return self

    def start_silent(self, command: str) -> Service:
        """Start a service that listens nowhere, and return once its log says that it is ready."""
        self._spawn(command)
        wait_for(lambda: '"event": "ready"' in self.log.read_text(), READY_WITHIN)
        return self

    def watch(self, *args: str) -> subprocess.Popen[str]:
        """Start the command line and do not wait for it."""
        environ = {**self.environ, "RUNYARD_API_URL": self.url}
        return subprocess.Popen([RUNYARD, *args], env=environ, stdout=subprocess.PIPE, text=True)

    @property
    def log(self) -> Path:
        self.home.parent.mkdir(parents=True, exist_ok=True)
        return self.home.parent / f"{self.home.name}.log"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def homes(self) -> list[Path]:
        return [self.home]

    @property
    def key(self) -> str:
        return (self.home / "admin.key").read_text()

    def cli(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as somebody who knows where the service is."""
        return subprocess.run(
            [RUNYARD, *args],
            env={**self.environ, "RUNYARD_API_URL": self.url, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, *args: str) -> Any:
        """Return what a command that must succeed answers as JSON."""
        done = self.cli(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def stop(self, sent: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop, and return its exit code."""
        assert self.process is not None
        self.process.send_signal(sent)
        return self.wait()

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        assert self.process is not None
        self.process.kill()
        self.wait()

    def wait(self) -> int:
        """Return its exit code once it has ended."""
        assert self.process is not None
        code = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def end(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self.process is not None:
            self.stop() if self.process.poll() is None else self.wait()
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)  # its tasks die with it

    def agents(self) -> list[int]:
        """Return the agents of this home."""
        return hosts.agents(self.home)

    def _spawn(self, *args: str) -> None:
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [RUNYARD, *args], env=self.environ, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def _read_until(self, end: str) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + READY_WITHIN
        said = ""
        while not said.endswith(end):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, left))
            line = os.read(self.process.stdout.fileno(), 65536).decode() if ready else ""
            assert line, f"not ready: {said}{self.log.read_text()}"
            said += line
        return said


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what *condition* returns once that is true; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
    return found
