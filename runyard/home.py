"""The home folder of a service: private, on this host, for one service at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runyard.exits import Exit, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LOCK: Final = "lock"
_KEY: Final = "admin.key"
#: Made with the home, so that there is a place to put user code into.
_CODE: Final = "code"


def prepare(home: Path) -> None:
    """Make *home* a folder of ours that nobody else may enter, or Stop."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = home.stat()
    except FileExistsError:
        raise Stop(Exit.HOME, f"The home {home} is not a folder.", _WAY_OUT) from None
    except OSError as error:
        raise Stop(Exit.HOME, f"The home {home} cannot be made: {error.strerror}.", _WAY_OUT) from None
    if found.st_uid != os.geteuid():
        raise Stop(Exit.HOME, f"The home {home} belongs to another user (uid {found.st_uid}).", _WAY_OUT)
    try:
        if stat.S_IMODE(found.st_mode) & 0o077:
            home.chmod(0o700)
        (home / _CODE).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Stop(Exit.HOME, f"The home {home} cannot be written to: {error.strerror}.", _WAY_OUT) from None


def prepare_logs(folder: Path) -> None:
    """Make the folder of the attempts' logs where there is none, or Stop."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Stop(
            Exit.HOME,
            f"The log store {folder} cannot be made: {error.strerror}.",
            "choose a folder that this user can write to, with RUNYARD_LOG_STORE",
        ) from None


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the lock of *home*, or Stop and say who has it.  The kernel lets go of it when this process ends."""
    path = home / _LOCK
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Stop(Exit.HOME, f"The home {home} cannot be written to: {error.strerror}.", _WAY_OUT) from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Stop(
                Exit.IN_USE,
                f"The home {home} is in use by another service (pid {holder}).",
                "stop that one, or choose another folder with --home or RUNYARD_HOME",
            ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(lock)


def key_path(home: Path) -> Path:
    """Where the admin key is kept: the key and nothing else, for its owner's eyes only."""
    return home / _KEY


def read_key(home: Path) -> str | None:
    """Return what the admin key's file says, None where there is none."""
    return read_key_file(key_path(home))


def read_key_file(path: Path) -> str | None:
    """Return what a key file says, None where there is none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(Exit.HOME, f"The key file {path} cannot be read: {error}.", "check its owner and mode") from None


def write_key(home: Path, key: str) -> None:
    """Write the admin key's file, whole or not at all."""
    write_key_file(key_path(home), key)


def write_key_file(path: Path, key: str) -> None:
    """Write a new key file, whole or not at all."""
    draft = path.with_suffix(".new")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:  # noqa: PTH123  # pathlib cannot make a file that was private from its first moment
            file.write(key)  # and nothing else, not even a line end
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise Stop(Exit.HOME, f"The key file {path} cannot be written: {error.strerror}.", _WAY_OUT) from None


_WAY_OUT: Final = "choose a folder that this user can write to, with --home or RUNYARD_HOME"
