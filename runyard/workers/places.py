"""A home for each worker process of a host: what runs there outlives the process, and the next one takes it over."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from runyard import home as homes
from runyard.exits import Exit, Stop

if TYPE_CHECKING:
    from pathlib import Path

_MOST: Final = 1000


class Place(NamedTuple):
    """A worker process's own home."""

    folder: Path
    number: int
    lock: int


def claim(home: Path) -> Place:
    """Return the first place in *home* that no process has; it is ours until this process ends, or Stop."""
    homes.prepare(home)
    try:
        for number in range(1, _MOST + 1):
            folder = home / "workers" / str(number)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Not flock(): with that, a process that was forked from this one would keep the place.
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                os.close(lock)
            else:
                return Place(folder, number, lock)
    except OSError as error:
        raise Stop(
            Exit.HOME,
            f"The home {home} cannot be written to: {error.strerror}.",
            "choose a folder that this user can write to, with RUNYARD_HOME",
        ) from None
    raise Stop(Exit.IN_USE, f"There are {_MOST} workers in {home} already.", "choose another folder with RUNYARD_HOME")
