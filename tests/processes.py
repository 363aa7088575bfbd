"""Servers that tests start: in a process group of their own, and gone when the test run is, however that ends."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

#: Below the ports that the kernel gives to those who connect: a server that was stopped finds its own again.
_PORTS = range(20000, 32000)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    while True:
        port = random.choice(_PORTS)  # noqa: S311  # chance, not a secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Daemon:
    """A server process with its children."""

    def __init__(self, args: Sequence[str], log: Path, environ: Mapping[str, str]) -> None:
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                args, env=environ, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        self.pid = self._process.pid
        # A test run that is killed stops nothing any more; its end of this pipe closes all the same.
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", f"cat; kill -9 -{self.pid}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def code(self) -> int:
        """The exit code of what has ended."""
        code = self._process.poll()
        assert code is not None
        return code

    def send(self, sent: signal.Signals) -> None:
        """Send *sent* to all of its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, sent)

    def stop(self, sent: signal.Signals = signal.SIGTERM, within: float = 30.0) -> None:
        """Have it end; what is not gone *within* is killed."""
        # Before the group is gone: its number may soon be another's.
        self._leash.kill()
        self._leash.communicate()
        self.send(sent)
        self.send(signal.SIGCONT)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
        self.send(signal.SIGKILL)  # what a wrapper left behind


def wait_until(ready: Callable[[], object], within: float, what: Callable[[], str]) -> None:
    """Return once *ready* answers with something true; fail with *what* to say when that takes too long."""
    deadline = time.monotonic() + within
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(what())
        time.sleep(0.02)
