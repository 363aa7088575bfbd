"""Scenarios: Python tasks in another interpreter run as the others do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from executors.conformance.bench import is_alive
from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from executors.conformance.bench import Bench

_WHERE = "import os, sys\ndef main(*args):\n    return [sys.executable, os.environ.get('OTHER'), *map(len, args)]\n"


def _other(bench: Bench, name: str = "python-other") -> str:
    """Make an interpreter that is not the one of all tasks: it sets a variable."""
    folder = bench.file("bin")
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f'#!/bin/sh\nOTHER=yes exec {sys.executable} "$@"\n')
    file.chmod(0o755)
    return str(file)


@scenario(1)
async def python_runs_in_the_interpreter_it_names(bench: Bench) -> None:
    """A path, or a name on the PATH, is the interpreter of a Python task; whatever it gives and gets is the same."""
    other = _other(bench)
    row = await bench.run(source=_WHERE, interpreter=other)
    bench.expect((row.state, row.output()), ("success", [sys.executable, "yes"]))
    path = {"PATH": f"{bench.file('bin')}:/usr/bin:/bin"}
    row = await bench.run(source=_WHERE, interpreter="python-other", env=path, args=["ü" * 1_000_000])
    bench.expect((row.state, row.output()), ("success", [sys.executable, "yes", 1_000_000]))
    for name in ("python", "python3"):
        row = await bench.run(source=_WHERE, interpreter=name)
        bench.expect((row.state, row.output()), ("success", [sys.executable, None]))
    for name in ("worker", "logs", "runner"):
        text = f"import sys\ndef run(n):\n    print(sys.argv)\n    return [n, {name!r}]\n"
        (bench.harness.code_dir / f"{name}.py").write_text(text)
        row = await bench.run(call=f"{name}:run", kwargs={"n": 4}, interpreter=other)
        bench.expect((row.state, row.output()), ("success", [4, name]))
        bench.expect(bench.log(row.attempt_id), f"['{name}:run']\n".encode())


@scenario(21)
async def python_in_another_interpreter_fails_as_elsewhere(bench: Bench) -> None:
    """Exit code, error and log of a failure, and how a script ends, do not depend on the interpreter."""
    other = _other(bench)
    for source in (
        "def main():\n    raise ValueError('no way')\n",
        "def main():\n    return {1, 2}\n",
        "def main():\n    return 'z' * 1048575\n",
        "import sys\ndef main():\n    print('now')\n    sys.exit(3)\n",
        "import atexit, sys\ndef main():\n    atexit.register(print, 'hook')\n    print('a', file=sys.stderr)\n",
        "import sys\ndef main():\n    print(repr(sys.stdin.read()), sys.modules['__main__'].__dict__.keys())\n",
        "import os\ndef main():\n    print(sorted(os.listdir('/proc/self/fd')))\n",
        "import os, signal\ndef main():\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
        "x = 1\n",
        "def main(:\n",
    ):
        usual, here = await bench.run(source=source), await bench.run(source=source, interpreter=other)
        facts = [
            (row.state, row.ending["exit_code"], row.ending["signal"], row.ending["error"], row.output())
            for row in (usual, here)
        ]
        bench.expect((source, facts[1]), (source, facts[0]))
        bench.expect((source, bench.log(here.attempt_id)), (source, bench.log(usual.attempt_id)))


@scenario(21)
async def interpreter_that_cannot_run_the_task_is_named(bench: Bench) -> None:
    """An interpreter that is missing, is none, or ends without a word fails the task with a line that names it."""
    for name, text in (("no-python", "echo 'no Python here'; exit 1"), ("ends-at-once", "exit 0")):
        file = bench.file(name)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    for interpreter, words in (
        ("/no/such/python", ("/no/such/python", "not found", "install it")),
        ("python2.99", ("python2.99", "not found", "PATH")),
        (str(bench.harness.code_dir), ("Permission denied",)),
        (str(bench.file("no-python")), ("no-python", "did not start the task", "3.8")),
        (str(bench.file("ends-at-once")), ("ends-at-once", "did not start the task", "3.8")),
    ):
        row = await bench.run(source="def main():\n    return 1\n", interpreter=interpreter)
        bench.expect((interpreter, row.state, row.ending["output"]), (interpreter, "failed", None))
        for word in ("python.interpreter", *words):
            bench.check(word in row.ending["error"], f"{interpreter}: {row.ending['error']!r} says {word!r}")


@scenario(32)
async def python_in_another_interpreter_is_stopped_with_its_tree(bench: Bench) -> None:
    """A cancel gives it SIGTERM and its grace, a timeout ends it, and what it started is dead too."""
    other = _other(bench)
    source = (
        "import os, signal, subprocess, sys, time\ndef main(file, deaf):\n"
        "    if deaf:\n        signal.signal(signal.SIGTERM, lambda *_: print('heard'))\n"
        "    child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "    with open(file, 'a') as f:\n        f.write(f'{child.pid}\\n')\n"
        "    end = time.monotonic() + 60\n    while time.monotonic() < end:\n        time.sleep(0.05)\n"
    )
    for name, deaf, grace, end in (("polite", False, 5.0, "SIGTERM"), ("deaf", True, 0.3, "SIGKILL")):
        attempt = await bench.start(
            source=source, args=[str(bench.file(name)), deaf], interpreter=other, kill_grace=grace
        )
        await bench.until(lambda name=name: bench.lines(name), "its child is there")  # type: ignore[misc]
        await bench.cancel(attempt)
        row = await bench.end_of(attempt)
        number = {"SIGTERM": 15, "SIGKILL": 9}[end]
        bench.expect((name, row.state, row.ending["signal"]), (name, "cancelled", number))
        bench.expect((name, bench.log(attempt)), (name, b"heard\n" if deaf else b""))
        bench.check(not is_alive(int(bench.lines(name)[0])), "its child is dead")
    row = await bench.run(source=source, args=[str(bench.file("late")), False], interpreter=other, timeout=1.0)
    bench.expect(row.ending["outcome"], "timed_out")
