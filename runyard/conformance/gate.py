"""A gate between a client and its server on this host: open, shut, or holding back all that passes."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

State = Literal["open", "refuses", "hangs"]

_CHUNK: Final = 65536
_HOST: Final = "127.0.0.1"


class Gate:
    """Passes bytes between whoever connects to :attr:`port` and a server on the port that *target* returns."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._state: State = "open"
        self._flows = asyncio.Event()
        self._server: asyncio.Server | None = None
        #: The connections that there are, by the port that the server sees them come from.
        self._passages: dict[int, list[asyncio.StreamWriter]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_server(self._accept, _HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.state = "refuses"
        while tasks := list(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def state(self) -> State:
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        """``refuses`` resets what is connected and whoever comes; ``hangs`` holds all bytes until it is open again."""
        self._state = state
        if state == "hangs":
            self._flows.clear()
        else:
            self._flows.set()
        if state == "refuses":
            self.cut()

    def cut(self) -> None:
        """Reset every connection that there is."""
        for port in list(self._passages):
            self.cut_from(port)

    def cut_from(self, port: int) -> None:
        """Reset the connection that the server sees come from *port*; what it answers there is lost."""
        for writer in self._passages.pop(port, ()):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._state == "refuses":
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._pass(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before its first step never comes to its `finally`.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        port = 0
        try:
            far_reader, far_writer = await asyncio.open_connection(_HOST, self._target())
            writers.append(far_writer)
            port = far_writer.get_extra_info("sockname")[1]
            self._passages[port] = writers
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (OSError, RuntimeError):  # uvloop says the second one of a transport that is closed
            pass  # the server is away, or somebody hung up: so does the other side
        finally:
            self._passages.pop(port, None)
            for end in writers:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        with suppress(OSError, RuntimeError):  # the other side may be gone already
            writer.write_eof()
