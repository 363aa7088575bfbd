"""The runner: one Python task, in the process that was forked or executed for it.

It runs on the interpreter of the tasks (Python 3.8 or later): standard library only, no sibling, and nothing heavy is
imported before the user's own code needs it.  The zygote loads this file and calls :func:`run` in the child.  For a
task in another interpreter the child executes ``PYTHON .../runner.py`` instead, with the job as its standard input.
"""

# ruff: noqa: PTH123, SIM105
# pathlib and contextlib would be imported for nothing else, and every task is a fork of this memory.
from __future__ import annotations

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # our own folder: ``-P`` needs 3.11; nothing of Runyard may stand before the user's modules

import json
import os
from itertools import accumulate

TYPE_CHECKING = False  # typing itself is not imported: it costs 2 ms and a third of a megabyte
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType, TracebackType
    from typing import Any

MAX_OUTPUT = 1024 * 1024
MAX_DEPTH = 64
_SOURCE = "<python.source>"
#: What each bracket does to the depth, as signed bytes; all other bytes do nothing.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_TOO_DEEP = f"output nests deeper than {MAX_DEPTH} levels"


class _Refused(Exception):
    """The task cannot be run, or its result cannot be taken; the text says place and way out."""


def run(job: dict[str, Any]) -> int:
    """Run ``job["python"]`` and write its output; return the exit code, as a script would."""
    leader = os.getpid()
    _dress(job)
    code = 1
    try:
        value = _call(job)
        code = 0
        if os.getpid() == leader:
            _write_output(job["output"], value)
    except SystemExit as error:
        code = _exit_code(error)
    except _Refused as error:
        code = 1
        sys.stderr.write(f"[runyard] {error}\n")
        if os.getpid() == leader:
            _write_error(job["error"], str(error))
    except BaseException as error:  # noqa: BLE001  this is where a task's own failure ends, whatever it is
        code = 130 if isinstance(error, KeyboardInterrupt) else 1
        _print_traceback(error, job["python"].get("source"))
        if os.getpid() == leader:
            _write_error(job["error"], _one_line(error))
    return _leave(code)


def _dress(job: dict[str, Any]) -> None:
    """Make this process look like a fresh interpreter that was started for the task."""
    path = [job["python"]["code_dir"]]
    if __name__ != "__main__":  # an interpreter that was really started has its environment, and has read it
        env = job["env"]
        os.environ.clear()
        os.environ.update(env)
        if "TZ" in env:
            import time  # noqa: PLC0415  only a task with a TZ pays for it

            time.tzset()
        path += filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:0] = path
    sys.argv = [job["python"].get("call") or _SOURCE]
    sys.modules["__main__"] = type(sys)("__main__")
    for stream, fd in (("stdout", 1), ("stderr", 2)):
        # One write a line, as on a terminal: the log streams, and lines of several processes do not mix.
        file = open(fd, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115  lives on
        setattr(sys, stream, file)
        setattr(sys, f"__{stream}__", file)


def _call(job: dict[str, Any]) -> Any:
    task = job["python"]
    function = _from_source(task["source"]) if task.get("source") is not None else _from_module(job)
    value = function(*task.get("args") or (), **task.get("kwargs") or {})
    if hasattr(value, "__await__"):
        import asyncio  # noqa: PLC0415  only an awaitable pays for it

        async def wait() -> Any:
            return await value

        return asyncio.run(wait())
    return value


def _from_module(job: dict[str, Any]) -> Callable[..., Any]:
    call = job["python"]["call"]
    code_dir = job["python"]["code_dir"]
    name, _, path = call.partition(":")
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name + ".").startswith(error.name + "."):
            raise
        raise _Refused(
            f"python.call {call!r}: there is no module {error.name!r}; put it into the code folder {code_dir} "
            f"or install it for {sys.executable}"
        ) from None
    module = sys.modules[name]
    target: Any = module
    for part in path.split("."):
        try:
            target = getattr(target, part)
        except AttributeError:
            place = getattr(module, "__file__", None) or "no file"
            raise _Refused(
                f"python.call {call!r}: the module {name!r} ({place}) has no {path!r}; define it there or name another"
            ) from None
    if not callable(target):
        raise _Refused(f"python.call {call!r}: {path!r} is a {type(target).__name__}, which cannot be called")
    function: Callable[..., Any] = target
    return function


def _from_source(source: str) -> Callable[..., Any]:
    name = "runyard_source"
    module: ModuleType = type(sys)(name)
    module.__file__ = _SOURCE
    sys.modules[name] = module
    exec(compile(source, _SOURCE, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  this is the task
    main = getattr(module, "main", None)
    if not callable(main):
        raise _Refused("python.source defines no function 'main'; it is what gets called")
    function: Callable[..., Any] = main
    return function


def _write_output(path: str, value: Any) -> None:
    if value is None:
        return
    try:
        data = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise _Refused("the return value holds a lone surrogate, which is no text") from None
    except RecursionError:
        raise _Refused(_TOO_DEEP) from None
    except (TypeError, ValueError) as error:
        raise _Refused(f"the return value ({type(value).__name__}) is not JSON: {error}") from None
    if len(data) > MAX_OUTPUT:
        raise _Refused(f"output of {len(data):,} bytes; at most {MAX_OUTPUT:,} are taken")
    if depth(data) > MAX_DEPTH:
        raise _Refused(_TOO_DEEP)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)


def depth(data: bytes) -> int:
    """Return how deep the lists and objects of a JSON text nest; the brackets in its strings do not count.

    It parses nothing and does not call itself: no text is too deep for it.  A mebibyte takes 30 ms at the worst.
    """
    plain = data.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(plain.split(b'"')[::2])  # every second quote ends a string
    steps = memoryview(outside.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps), default=0)


def _write_error(path: str, text: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # a full disk: the log has it, and the exit code says that it failed


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1


def _print_traceback(error: BaseException, source: str | None = None) -> None:
    import linecache  # noqa: PLC0415  4 ms that only a failure pays
    import traceback  # noqa: PLC0415

    if source is not None:
        linecache.cache[_SOURCE] = (len(source), None, source.splitlines(keepends=True), _SOURCE)

    trace: TracebackType | None = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


def _one_line(error: BaseException) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # noqa: BLE001  a user's own __str__ may raise anything
        lines = ["(its text cannot be shown)"]
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "." + kind.__qualname__
    )
    return f"{name}: {lines[0][:1000]}" if lines else name


def _leave(code: int) -> int:
    """Do what an interpreter does at its end, without the cost of tearing down its modules."""
    threading = sys.modules.get("threading")
    try:
        if threading is not None:
            threading._shutdown()  # noqa: SLF001  waits for the user's threads, as a script does
        atexit = sys.modules.get("atexit")
        if atexit is not None:
            atexit._run_exitfuncs()  # noqa: SLF001  as multiprocessing does in its forked children
    except BaseException as error:  # noqa: BLE001  the task's result stands; its clean-up is reported
        _print_traceback(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # closed by the task
    return code


def main() -> int:
    """Be the task whose job is on the standard input; its standard input is empty then, like that of any task."""
    with open(0, "rb", closefd=False) as file:
        job: dict[str, Any] = json.loads(file.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if sys.version_info < (3, 8):  # noqa: UP036  this file runs on interpreters that we do not choose
        return 1
    os.unlink(job["error"])  # noqa: PTH108  it says that the interpreter did not get here
    return run(job)


if __name__ == "__main__":
    os._exit(main())
