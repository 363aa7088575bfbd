"""A wire that breaks on command, between a client and its server: a broker, a database, the API."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK = 65536


class Wire:
    """Passes bytes on, in the event loop that it is entered in.

    What a client says passes through *up*, what the server says through *down*: each gives the bytes to pass on, or
    None where the connection is to end.
    """

    def __init__(self, connect: Callable[[], Awaitable[Ends]]) -> None:
        self._connect = connect
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self.port = 0
        self.delay = 0.0
        self.silent = False
        self.listening = False
        self.closed = False
        self.connections = 0

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self.closed = True
        while self._tasks:  # what is accepted while the others end is new
            self.cut()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.listening = True

    def refuse(self) -> None:
        """Take no more connections: nobody listens on that port."""
        self._server.close()
        self.listening = False

    def cut(self) -> None:
        """Reset every connection that there is."""
        for task in self._tasks:
            task.cancel()

    def hold(self, *, held: bool = True) -> None:
        """Keep all bytes back: a network that is away, and that brings everything once it is there again."""
        if held:
            self._flows.clear()
        else:
            self._flows.set()

    def up(self, data: bytes, notes: list[str]) -> bytes | None:  # noqa: ARG002  # for those who look inside
        """Pass on what a client says; *notes* belong to this connection, and *down* sees them too."""
        return data

    def down(self, data: bytes, notes: list[str]) -> bytes | None:  # noqa: ARG002  # for those who look inside
        """Pass on what the server says."""
        return data

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step never comes to its `finally`.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        pumps: list[asyncio.Task[bool]] = []
        try:
            far_reader, far_writer = await self._connect()
            ends.append(far_writer)
            notes: list[str] = []
            pumps = [
                asyncio.create_task(self._pump(reader, far_writer, notes, self.up)),
                asyncio.create_task(self._pump(far_reader, writer, notes, self.down)),
            ]
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if all(pump.result() for pump in done):
                for end in ends:
                    end.close()  # who hangs up has said everything; it still arrives
                    await end.wait_closed()
        except OSError:
            pass  # the server is not there, or one side was reset: so is the other
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        notes: list[str],
        passes: Callable[[bytes, list[str]], bytes | None],
    ) -> bool:
        """Return whether the one who spoke has hung up; otherwise the wire broke here."""
        while data := await reader.read(_CHUNK):
            await asyncio.sleep(self.delay)
            await self._flows.wait()
            passed = passes(data, notes)
            if passed is None:
                return False
            if passed and not self.silent:
                writer.write(passed)
                await writer.drain()
        return True


class Proxy:
    """The same wire for tests that block, and for other processes: it has a thread of its own.

    ``with Proxy("redis://127.0.0.1:6379/0") as wire: client(wire.url)``
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._wire: Wire = self._run(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._wire.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        """The URL it was made for, through this wire; who is asked for stays as it was."""
        who, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{who}{at}127.0.0.1:{self._wire.port}"))

    @property
    def connections(self) -> int:
        """How many there have been."""
        return self._wire.connections

    def cut(self) -> None:
        """Reset every connection that there is; new ones work."""
        self._call(self._wire.cut)

    def refuse(self) -> None:
        """Reset every connection, and take no new ones: the server is not there."""
        self._call(self._wire.refuse)
        self.cut()

    def hold(self) -> None:
        """Keep all bytes back until :meth:`heal`: the network is away. New connections are made, and stay silent."""
        self._call(self._wire.hold)

    def swallow(self) -> None:
        """Lose all bytes from now on: a black hole. The connections of that time are of no use afterwards."""
        self._wire.silent = True

    def slow(self, seconds: float) -> None:
        """Have every piece of bytes take that much longer, in each direction."""
        self._wire.delay = seconds

    def heal(self) -> None:
        """Undo all of it: what was held arrives, what was swallowed never does and its connections end."""
        self._wire.delay = 0.0
        if self._wire.silent:
            self.cut()
        self._wire.silent = False
        self._call(lambda: self._wire.hold(held=False))
        if not self._wire.listening:
            self._run(self._wire.listen())

    async def _open(self) -> Wire:
        host, port = self._parts.hostname, self._parts.port
        wire = Wire(lambda: asyncio.open_connection(host, port))
        await wire.listen()
        return wire

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, action: Callable[[], None]) -> None:
        async def call() -> None:
            action()

        self._run(call())
