"""Scenarios: Python tasks in another interpreter run as the others do, and requests over HTTP are tasks like them."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from executors.conformance.bench import is_alive
from executors.conformance.scenario import scenario

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@scenario(21)
async def unknown_kind_fails_the_task(bench: Bench) -> None:
    """A task of a kind that the worker does not know fails at once and says so; it is no loss."""
    row = await bench.run(kind="of_tomorrow")
    bench.expect((row.state, row.ending["exit_code"]), ("failed", 126))
    bench.check("kind 'of_tomorrow'" in row.ending["error"], row.ending["error"])


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
        await bench.until(partial(bench.lines, name), "its child is there")
        await bench.cancel(attempt)
        row = await bench.end_of(attempt)
        number = {"SIGTERM": 15, "SIGKILL": 9}[end]
        bench.expect((name, row.state, row.ending["signal"]), (name, "cancelled", number))
        bench.expect((name, bench.log(attempt)), (name, b"heard\n" if deaf else b""))
        bench.check(not is_alive(int(bench.lines(name)[0])), "its child is dead")
    row = await bench.run(source=source, args=[str(bench.file("late")), False], interpreter=other, timeout=1.0)
    bench.expect(row.ending["outcome"], "timed_out")


@scenario(1, "http_port")
async def request_is_made_and_its_answer_is_the_output(bench: Bench) -> None:
    """A request is sent as it was asked for; status, headers and body are the output; no credential is in the log."""
    async with _Site.open(bench) as site:
        headers = {"Authorization": "Bearer hunter2", "X-Id": "7"}
        row = await bench.run(**site.get("/echo?a=b", method="POST", headers=headers, query={"c": "d e"}, json=[1]))
        bench.expect((row.state, row.ending["exit_code"], row.ending["error"]), ("success", 0, ""))
        output: Any = row.output()
        bench.expect((output["status"], output["headers"]["content-type"]), (200, "application/json"))
        bench.expect(output["body"]["first"], "POST /echo?a=b&c=d%20e HTTP/1.1")
        bench.expect(output["body"]["body"], "[1]")
        bench.check(
            set(output["body"]["headers"]) >= {"authorization: Bearer hunter2", "x-id: 7"}, "the headers are sent"
        )
        log = bench.log(row.attempt_id).decode()
        bench.check("POST http://127.0.0.1" in log and "200 OK" in log and "hunter2" not in log, log)
        row = await bench.run(**site.get("/text", env={"HTTP_PROXY": "http://127.0.0.1:1"}))
        bench.expect((row.state, row.output()), ("success", {**_TEXT, "body": "ü" * 1000}))


@scenario(21, "http_port")
async def request_that_fails_says_what_was_answered(bench: Bench) -> None:
    """An answer other than 2xx, a redirect and a refused address fail the task with a line that says so."""
    async with _Site.open(bench) as site:
        answers: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("/500", ("answered 500 Oops: it broke",)),
            ("/302", ("answered 302 Found", "http://169.254.169.254/latest", "not followed")),
            ("/silence", ("closed without an answer",)),
            ("/large", ("more than 1,048,576 bytes",)),
        )
        for path, words in answers:
            row = await bench.run(**site.get(path))
            bench.expect((path, row.state, row.ending["exit_code"], row.output()), (path, "failed", 1, None))
            for word in words:
                bench.check(word in row.ending["error"], f"{row.ending['error']!r} says {word!r}")
        asked = site.asked
        places: tuple[tuple[str, tuple[str, ...]], ...] = (
            (f"http://169.254.169.254:{site.port}/latest/meta-data/", ("metadata", "RUNYARD_HTTP_ALLOW")),
            (f"http://[::1]:{site.port}/text", ("loopback", "RUNYARD_HTTP_ALLOW")),
            (f"http://0177.0.0.2:{site.port}/text", ("loopback", "RUNYARD_HTTP_ALLOW")),
            ("http://127.0.0.1:1/", ("port 1", "RUNYARD_HTTP_PORTS")),
            ("http://user:pass@127.0.0.1/", ("password",)),
        )
        for url, words in places:
            row = await bench.run(kind="http", http={"method": "GET", "url": url, "headers": {}, "query": {}})
            bench.expect((url, row.state), (url, "failed"))
            for word in words:
                bench.check(word in row.ending["error"], f"{row.ending['error']!r} says {word!r}")
            bench.check(row.ending["error"].encode() in bench.log(row.attempt_id), "the log says it")
        bench.expect(site.asked, asked)


@scenario(32, "http_port")
async def request_is_stopped_like_a_task(bench: Bench) -> None:
    """A cancel ends a request that waits for its answer, and so does its timeout."""
    async with _Site.open(bench) as site:
        attempt = await bench.start(**site.get("/never", kill_grace=5.0))
        await bench.until(lambda: site.asked == 1, "the request is there")
        await bench.cancel(attempt)
        row = await bench.end_of(attempt)
        bench.expect((row.state, row.ending["signal"]), ("cancelled", 15))
        row = await bench.run(**site.get("/never", timeout=1.0))
        bench.expect(
            (row.ending["outcome"], row.ending["error"]), ("timed_out", "ran longer than its execution_timeout of 1 s")
        )


_TEXT = {"status": 200, "headers": {"content-type": "text/plain", "content-length": "2000"}}


class _Site:
    """A server on the port of this host that requests may reach."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked = 0
        self._open: set[asyncio.StreamWriter] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, bench: Bench) -> AsyncIterator[_Site]:
        site = cls(getattr(bench.harness, "http_port"))  # noqa: B009  a hook, no part of the protocol
        server = await asyncio.start_server(site.answer, "127.0.0.1", site.port)
        try:
            yield site
        finally:
            server.close()
            for writer in site._open:
                writer.transport.abort()

    def get(self, path: str, **more: Any) -> dict[str, Any]:
        """Return the body of a task that asks for *path*; the parts of its request are among *more*."""
        parts = {name: more.pop(name) for name in ("method", "headers", "query", "json") if name in more}
        url = f"http://127.0.0.1:{self.port}{path}"
        return {"kind": "http", "http": {"method": "GET", "url": url, "headers": {}, "query": {}, **parts}, **more}

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request by its path."""
        self.asked += 1
        self._open.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().strip()
            first, *headers = head.split("\r\n")
            fields = [f"{name.lower()}:{value}" for name, _, value in (line.partition(":") for line in headers)]
            length = next((int(line.split(":")[1]) for line in fields if line.startswith("content-length:")), 0)
            body = (await reader.readexactly(length)).decode()
            path = first.split()[1].partition("?")[0]
            if path == "/never":
                await reader.read()
            writer.write(_said(path, {"first": first, "headers": fields, "body": body}))
            await writer.drain()
        writer.close()
        self._open.discard(writer)


def _said(path: str, echo: dict[str, Any]) -> bytes:
    status, headers, body = {
        "/echo": ("200 OK", "Content-Type: application/json", json.dumps(echo).encode()),
        "/text": ("200 OK", "Content-Type: text/plain", "ü".encode() * 1000),
        "/500": ("500 Oops", "X: y", b"it\nbroke"),
        "/302": ("302 Found", "Location: http://169.254.169.254/latest", b""),
        "/large": ("200 OK", "X: y", b"x" * (1024 * 1024 + 1)),
    }.get(path, ("", "", b""))
    if not status:
        return b""
    return f"HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
