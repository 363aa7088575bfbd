"""Where the product's own code meets the simulated world: the few names that are another thing in here.

Agents, their supervisors, the service's side of them, and the executors of queues are the real ones.  What they ask
the system for (clocks, randomness, pipes, locks, forks, threads that make HTTP requests) is asked of the process in
whose name the code runs at that moment.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.agents import PIPES, SimFence, SimSpool, connect, has_ended, home_of, is_alive, spawn, terminate
from tests.simulation.hosts import here
from tests.simulation.lane import SimLane
from tests.simulation.medium import SimCourier
from tests.simulation.zygote import SimZygote
from worker import output

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Os:
    """The system calls that agents make."""

    environ: Final[dict[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def urandom(self, size: int) -> bytes:
        return here().entropy.token(size)

    def getpid(self) -> int:
        return here().pid

    def pipe(self) -> tuple[int, int]:
        return PIPES.open()

    def read(self, fd: int, size: int) -> bytes:
        return PIPES.read(fd) if fd in PIPES else os.read(fd, size)

    def close(self, fd: int) -> None:
        if fd in PIPES:
            PIPES.close(fd)
        else:
            os.close(fd)

    def set_blocking(self, fd: int, is_blocking: bool) -> None:  # noqa: FBT001  # as the system has it
        if fd not in PIPES:
            os.set_blocking(fd, is_blocking)


class _Time:
    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    def time(self) -> float:
        return here().clock.now().timestamp()

    def monotonic(self) -> float:
        return here().clock.monotonic()


class _Random:
    def uniform(self, low: float, high: float) -> float:
        return here().dice.uniform(low, high)


class _Output:
    OutputInvalid = output.OutputInvalid

    def read(self, path: str) -> str | None:
        return SimSpool.output_at(path)


def _say(_text: str) -> None:
    """An agent's own log is not looked at here."""


def _boottime() -> float:
    return here().clock.monotonic()


def _prepare(home: Any, entropy: Any) -> str:
    del entropy
    return home_of(str(home)).agent_id


_PATCHES: Final[dict[str, Any]] = {
    "worker.linux.boottime": _boottime,
    "worker.linux.peer_uid": lambda _socket: os.getuid(),
    "worker.supervise.Fence": SimFence,
    "worker.supervise.Zygote": SimZygote,
    "worker.supervise.os": _Os(),
    "worker.supervise.time": _Time(),
    "worker.attempt.time": _Time(),
    "worker.attempt.output": _Output(),
    "worker.asking.time": _Time(),
    "worker.delivery.time": _Time(),
    "worker.shipper.time": _Time(),
    "worker.remote.os": _Os(),
    "worker.remote.Lane": SimLane,
    "worker.offers.os": _Os(),
    "worker.pulse.random": _Random(),
    "worker.calls.random": _Random(),
    "executors.spawn.prepare": _prepare,
    "executors.spawn.is_alive": lambda home: is_alive(str(home)),
    "executors.spawn.connect": lambda home: connect(str(home)),
    "executors.spawn.spawn": spawn,
    "executors.spawn.has_ended": has_ended,
    "executors.spawn.terminate": terminate,
    "executors.queues.executor.Courier": SimCourier,
}
_SAYING: Final = ("agent", "supervise", "remote", "offers", "delivery", "shipper")


@contextmanager
def seams() -> Iterator[None]:
    """Have the product's code ask the simulated world, until the block ends."""
    wanted = _PATCHES | {f"worker.{module}.say": _say for module in _SAYING}
    before = []
    try:
        for place, instead in wanted.items():
            path, _, name = place.rpartition(".")
            module = import_module(path)
            before.append((module, name, getattr(module, name)))
            setattr(module, name, instead)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
