"""What a fork of the zygote does until it is the task.

The zygote executes this file by its path, on the interpreter of the tasks (Python 3.8 or later), so it imports the
standard library only, and no sibling.
"""

# ruff: noqa: PTH110, PTH112
# pathlib would be imported for nothing else, and every task is a fork of this memory.
from __future__ import annotations

import ctypes
import gc
import json
import os
import signal

TYPE_CHECKING = False  # typing itself is not imported: it costs 2 ms and a third of a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MFD_CLOEXEC = 1
_NO_PYTHON = "python.interpreter {}: it did not start the task; it must be Python 3.8 or newer (the log may say more)"
_NO_INTERPRETER = "python.interpreter {}: {}; install it where the worker runs, or name another Python"

_libc = ctypes.CDLL(None, use_errno=True)
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def become(job: dict[str, Any], log: int, zygote: int, run: Callable[[dict[str, Any]], int]) -> int:
    """Turn into the task, the child of *zygote*.  Return an exit code where it runs in this very process, by *run*."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != zygote:
        return 137
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if job["refused"]:
        return _fail(job, 126, job["refused"])
    try:
        os.chdir(job["cwd"])
    except (OSError, ValueError) as error:
        base = " (relative to {})".format(job["base"]) if job["base"] else ""
        why = getattr(error, "strerror", None) or error
        return _fail(job, 126, "the cwd {}{} cannot be entered: {}".format(job["cwd"], base, why))
    argv = job["argv"]
    if argv is not None:
        if job["stdin"] is not None:
            _feed(job["stdin"])
        if job["interpreter"]:
            _note(job, _NO_PYTHON.format(job["interpreter"]))  # it removes this when it gets so far
        _execute(job, argv)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # as every Python has it
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.closerange(3, 256)
    gc.enable()
    return run(job)


def _execute(job: dict[str, Any], argv: list[str]) -> NoReturn:
    try:
        os.execve(_find(argv[0], job["env"].get("PATH", "")), argv, job["env"])  # noqa: S606  the user's own command
    except FileNotFoundError:
        if "/" in argv[0] and os.path.exists(argv[0]):
            why = f"{argv[0]} exists, but the interpreter that its first line names does not"
        elif "/" in argv[0]:
            why = "command not found: {} (looked from {})".format(argv[0], job["cwd"])
        else:
            why = "command not found: {} (PATH is {})".format(argv[0], job["env"].get("PATH", "not set"))
        code = 127
    except (OSError, ValueError) as error:
        why = "{} cannot be executed: {}".format(argv[0], getattr(error, "strerror", None) or error)
        code = 126
    if job["interpreter"]:
        why = _NO_INTERPRETER.format(job["interpreter"], why)
    os._exit(_fail(job, code, why))


def _feed(value: Any) -> None:
    """Make *value*, as JSON, the standard input: what a program must not be told by arguments, for all to see."""
    fd = _libc.memfd_create(b"task", _MFD_CLOEXEC)  # Python has its own only where it was built on a newer system
    with open(fd, "wb", closefd=False) as file:
        file.write(json.dumps(value).encode())
    os.lseek(fd, 0, os.SEEK_SET)
    os.dup2(fd, 0)


def _find(name: str, path: str) -> str:
    """Return the file that *name* means; os.execvpe does the same in four times the time."""
    if "/" in name:
        return name
    for folder in path.split(":"):
        file = f"{folder}/{name}" if folder else name
        if os.access(file, os.X_OK) and not os.path.isdir(file):
            return file
    raise FileNotFoundError(name)


def _fail(job: dict[str, Any], code: int, why: str) -> int:
    """Leave a line for the agent that tells this from the task's own exit code, and one in the log."""
    _note(job, why)
    os.write(2, b"[runyard] " + why.encode("utf-8", "backslashreplace") + b"\n")
    return code


def _note(job: dict[str, Any], why: str) -> None:
    try:
        fd = os.open(job["error"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(fd, why.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # a full disk: the log still says it
