"""A load generator in a process of its own: raw HTTP/1.1 over kept connections, open or closed loop.

Open loop: each request has an intended moment and its latency counts from there, so a slow answer cannot hold back the
requests after it and make them look fast (coordinated omission).  What this process itself is late by (timers of 1 ms,
a busy machine) counts as latency too, and is reported, so that a figure cannot be better than the truth.

    python -m bench.load < job.json
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from itertools import cycle
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from bench.figures import ROOT

#: How long the last answers may take.
_PATIENCE = 60.0
_MOST_CONNECTIONS = 256
#: An open loop begins a little later, so that its first request is not late.
_HEAD_START = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to send, when."""

    url: str
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = "{}"
    #: Instead of these: path, value of ``Authorization`` and body of requests that come in turns.
    turns: list[tuple[str, str, str]] = field(default_factory=list)
    expected: int = 201
    #: Open loop: the moments, in seconds from the start.  Empty: closed loop.
    moments: list[float] = field(default_factory=list)
    #: Connections that are open before the clock runs; an open loop opens more when it needs them.
    connections: int = 0
    #: Closed loop: so many requests in all, on each connection the next one as soon as it was answered.
    count: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    latencies_ms: list[float]
    #: How late this process was by itself.
    late_ms: list[float]
    errors: dict[str, int]
    seconds: float
    #: Time of the day at which the first request was meant to leave.
    began: float
    cpu_seconds: float


def steady(rate: float, seconds: float) -> list[float]:
    """Return the moments of an open loop of *rate* requests a second."""
    return [number / rate for number in range(round(rate * seconds))]


def drive(job: Job) -> Outcome:
    """Run *job* in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        cwd=ROOT,
        input=json.dumps(asdict(job)),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    outcome = Outcome(**json.loads(done.stdout))
    if not outcome.latencies_ms:
        raise RuntimeError(f"{job.url}: nothing was answered as it should be: {outcome.errors}")
    return outcome


class _Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self, generator: _Generator) -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._intended: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by what it does, not by its class

    def send(self, request: bytes, intended: float) -> None:
        assert self._transport is not None
        self._intended = intended
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(rest) < _content_length(head):
            return
        self._buffer = b""
        intended, self._intended = self._intended, None
        assert intended is not None
        self._generator.answered(self, int(head[9:12]), intended)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._intended is not None:
            self._generator.broken(exc)
            self._intended = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Generator:
    def __init__(self, job: Job) -> None:
        parts = urlsplit(job.url)
        assert parts.hostname == "127.0.0.1"
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._job = job
        self._loop = asyncio.get_running_loop()
        path = f"{parts.path}{'?' + parts.query if parts.query else ''}"
        turns = [
            self._written(f"{parts.path}{path}", {**job.headers, "Authorization": credential}, body)
            for path, credential, body in job.turns
        ]
        self._requests = cycle(turns or [self._written(path, job.headers, job.body)])
        self._free: list[_Connection] = []
        self._connections = 0
        self._backlog: deque[float] = deque()
        self._left = 0
        self._unsent = 0  # of a closed loop: it sends when it is answered
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.latencies: list[float] = []
        self.late: list[float] = []
        self.errors: Counter[str] = Counter()

    def _written(self, path: str, headers: dict[str, str], body: str) -> bytes:
        lines = [f"{self._job.method} {path} HTTP/1.1", f"Host: {self._host}:{self._port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if self._job.method != "GET":
            lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
        return "\r\n".join([*lines, "", body if self._job.method != "GET" else ""]).encode()

    async def open_loop(self, start: float) -> None:
        """Send each request at its moment, whatever the ones before it do."""
        moments = self._job.moments
        self._left = len(moments)
        for moment in moments:
            delay = start + moment - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            self.late.append(max(0.0, time.monotonic() - start - moment))
            self._send(start + moment)
        await self._finish()

    async def closed_loop(self) -> None:
        """Keep every connection busy."""
        self._left = self._job.count
        self._unsent = max(0, self._job.count - self._job.connections)
        for _ in range(self._job.count - self._unsent):
            self._send(time.monotonic())
        await self._finish()

    async def connect(self, count: int) -> None:
        """Open *count* connections before the clock runs."""
        for _ in range(count):
            self._connections += 1
            self._free.append(await self._open())

    def answered(self, connection: _Connection, status: int, intended: float) -> None:
        if status == self._job.expected:
            self.latencies.append(time.monotonic() - intended)
        else:
            self.errors[str(status)] += 1
        self._count()
        if self._backlog:
            connection.send(next(self._requests), self._backlog.popleft())
        elif self._unsent:
            self._unsent -= 1
            connection.send(next(self._requests), time.monotonic())
        else:
            self._free.append(connection)

    def broken(self, why: Exception | None) -> None:
        self._connections -= 1
        self.errors[f"lost: {why}"] += 1
        self._count()

    def close(self) -> None:
        for connection in self._free:
            connection.close()

    def _send(self, intended: float) -> None:
        if self._free:
            self._free.pop().send(next(self._requests), intended)
        elif self._connections < _MOST_CONNECTIONS:
            self._connections += 1
            task = self._loop.create_task(self._open_and_send(intended))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._backlog.append(intended)

    async def _open(self) -> _Connection:
        _, connection = await self._loop.create_connection(lambda: _Connection(self), self._host, self._port)
        return connection

    async def _open_and_send(self, intended: float) -> None:
        try:
            connection = await self._open()
        except OSError as error:
            self.broken(error)
        else:
            connection.send(next(self._requests), intended)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._over.set()

    async def _finish(self) -> None:
        try:
            await asyncio.wait_for(self._over.wait(), _PATIENCE)
        except TimeoutError:
            self.errors["no answer in time"] += self._left


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0])


async def _run(job: Job) -> Outcome:
    generator = _Generator(job)
    await generator.connect(job.connections)
    gc.collect()
    gc.disable()
    before = time.process_time()
    # Not the loop's clock: uvloop's moves in steps of a millisecond.
    start, began = time.monotonic(), time.time()
    if job.moments:
        start, began = start + _HEAD_START, began + _HEAD_START
        await generator.open_loop(start)
    else:
        await generator.closed_loop()
    seconds = time.monotonic() - start
    generator.close()
    return Outcome(
        [1000 * each for each in generator.latencies],
        [1000 * each for each in generator.late],
        dict(generator.errors),
        seconds,
        began,
        time.process_time() - before,
    )


def main() -> None:
    """Do the job on standard input; write the outcome to standard output."""
    job: dict[str, Any] = json.load(sys.stdin)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(asdict(runner.run(_run(Job(**job)))), sys.stdout)


if __name__ == "__main__":
    main()
