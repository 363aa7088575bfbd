"""How the services of a home are: each says it of itself, in a file that it holds a lock on for as long as it lives.

A scheduler and a worker listen nowhere, so that nobody could ask them; a container or an operator has to know all the
same.  What a file says is believed for a moment only: who hangs does not say so.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from dag.world import Clock

_FOLDER: Final = "health"
_EVERY: Final = 5.0
#: Longer than any pause that a busy host makes; a service that was stopped for so long is not well.
_BELIEVED: Final = 30.0
#: Everything is written over in place, so that a reader never meets half of it beside the rest of an older one.
_SIZE: Final = 2048
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Pulse:
    """Says how a service of *home* is, every few seconds until it ends; *look* returns what is wrong with it."""

    def __init__(self, home: Path, name: str, clock: Clock, look: Callable[[], Awaitable[Sequence[str]]]) -> None:
        self._mark = _Mark(home / _FOLDER, name, clock)
        self._look = look

    async def __aenter__(self) -> Self:
        self._mark.make()
        await self._say()
        self._task = asyncio.create_task(self._go_on(), name="pulse")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._mark.remove()

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self._say()

    async def _say(self) -> None:
        try:
            self._mark.say(await self._look())
        except Exception as error:  # noqa: BLE001  # whatever it is, that is what is wrong
            self._mark.say([f"{type(error).__name__}: {error}"])


class ThreadPulse:
    """The same for a service that is made of threads."""

    def __init__(self, home: Path, name: str, clock: Clock, look: Callable[[], Sequence[str]]) -> None:
        self._mark = _Mark(home / _FOLDER, name, clock)
        self._look = look
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="pulse", daemon=True)

    def start(self) -> None:
        """Say it now, and go on until :meth:`stop`."""
        self._mark.make()
        self._say()
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join()
        self._mark.remove()

    def _go_on(self) -> None:
        while not self._ends.wait(_EVERY):
            self._say()

    def _say(self) -> None:
        try:
            self._mark.say(self._look())
        except Exception as error:  # noqa: BLE001  # whatever it is, that is what is wrong
            self._mark.say([f"{type(error).__name__}: {error}"])


class _Mark:
    """The file of one living process."""

    def __init__(self, folder: Path, name: str, clock: Clock) -> None:
        self._folder = folder
        self._name = name
        self._clock = clock

    def make(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, file in _files(self._folder):
            if not _is_held(file):
                path.unlink(missing_ok=True)  # of a service that crashed
        # Containers may share a home, and the pid of each of them is 1.
        for number in itertools.count(1):
            self._path = self._folder / f"{self._name}-{os.getpid()}{f'.{number}' if number > 1 else ''}"
            with suppress(FileExistsError):
                self._file = os.open(self._path, _NEW, 0o600)
                break
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def say(self, wrong: Sequence[str]) -> None:
        said = {"at": self._clock.monotonic(), "wrong": [one[:200] for one in wrong[:5]]}
        os.pwrite(self._file, json.dumps(said).ljust(_SIZE).encode(), 0)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._file)


class Wellness(NamedTuple):
    """One living service of a home, and what is wrong with it."""

    service: str
    wrong: tuple[str, ...]


def of(home: Path, clock: Clock) -> list[Wellness]:
    """Return how each living service of *home* is."""
    found = []
    for path, file in _files(home / _FOLDER):
        if not _is_held(file):
            continue
        name, _, pid = path.name.rpartition("-")
        wrong: list[str] = ["it has not said yet how it is"]
        with suppress(ValueError, KeyError):
            said: dict[str, Any] = json.loads(os.pread(file, _SIZE, 0))
            silent = clock.monotonic() - said["at"]
            wrong = [*said["wrong"], *([f"silent for {silent:.0f} s"] if silent > _BELIEVED else [])]
        found.append(Wellness(f"{name} (pid {pid})", tuple(wrong)))
    return found


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Give every file of *folder*, opened as long as it is looked at."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            yield path, file
        finally:
            os.close(file)


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False
