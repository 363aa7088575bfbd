"""Starting an agent, and telling whether one is alive: all of this before there is a connection."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dag.world import Entropy
    from worker.settings import AgentSettings

_ENTRY: Final = Path(worker.__file__).parent / "__main__.py"


def prepare(home: Path, entropy: Entropy) -> str:
    """Make the agent's folder and its lasting id; return the id."""
    folder = home / "agent"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} must be a folder of ours with mode 0700: chmod 700 {folder}")
    file = folder / "id"
    with suppress(FileExistsError):
        new = folder / f"id.{os.getpid()}"
        new.touch(0o600)
        new.write_text(entropy.token(16).hex())
        try:
            os.link(new, file)  # whole or not at all, and the first one wins
        finally:
            new.unlink()
    return file.read_text().strip()


def known_id(home: Path) -> str | None:
    """Return the lasting id of the agent of *home*; None where there never was one."""
    try:
        return (home / "agent" / "id").read_text().strip()
    except FileNotFoundError:
        return None


def is_alive(home: Path) -> bool:
    """Whether an agent or its zygote holds the lock of *home*."""
    try:
        lock = os.open(home / "agent" / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def connect(home: Path) -> socket.socket:
    """Return a connection to the agent of *home*; raise OSError where nobody listens."""
    directory = os.open(home / "agent", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        end.setblocking(False)  # noqa: FBT003  the only parameter it has
        # A UNIX address holds 107 bytes; a home may be longer than that.
        end.connect(f"/proc/self/fd/{directory}/socket")
    except OSError:
        end.close()
        raise
    finally:
        os.close(directory)
    return end


def spawn(settings: AgentSettings, environ: Mapping[str, str]) -> int:
    """Start an agent in a session of its own; return its pid.

    posix_spawn and not asyncio's subprocess: the event loop stands still for a millisecond, not for thirty, and no
    child watcher holds on to a process that is meant to outlive this one.
    """
    folder = Path(settings.home) / "agent"
    log = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", str(_ENTRY), settings.text()],
        dict(environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(folder / "agent.log"), log, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=[n for n in signal.valid_signals() if n not in (signal.SIGKILL, signal.SIGSTOP)],
    )


def has_ended(pid: int) -> bool:
    """Whether the agent that this process started has ended; reaps it."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def terminate(pid: int) -> None:
    """Ask the agent that this process started to end."""
    if not has_ended(pid):
        os.kill(pid, signal.SIGTERM)
