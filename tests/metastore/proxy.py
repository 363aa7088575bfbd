"""A wire that breaks on command, between a store and its Postgres."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

#: What happens at a COMMIT: its reply is lost, it never arrives, or both wait in silence.
Fault = Literal["lose the reply", "lose the commit", "hold the reply"]

_COMMIT = re.compile(rb"Q.{4}COMMIT", re.DOTALL)


class Proxy:
    """Passes bytes on; breaks the wire at the next COMMITs as often as it is told to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._database = parts.path
        self._faults: list[Fault] = []
        self._silent = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.commits = 0
        self.held = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"postgresql://postgres@127.0.0.1:{port}{self._database}?sslmode=disable"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def break_at_commit(self, *faults: Fault) -> None:
        """Meet the next COMMITs with one fault each."""
        self._faults = list(faults)

    def fall_silent(self, *, silent: bool = True) -> None:
        """Swallow everything in both directions, and answer nobody: a cable that was cut."""
        self._silent = silent

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket)
        reply: list[Fault] = []
        down = asyncio.create_task(self._down(up_reader, writer, reply))
        up = asyncio.create_task(self._up(reader, up_writer, reply))
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            for end in (writer, up_writer):
                end.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: list[Fault]) -> None:
        while data := await reader.read(65536):
            if _COMMIT.search(data):
                self.commits += 1
                if self._faults:
                    fault = self._faults.pop(0)
                    if fault == "lose the commit":
                        return
                    reply.append(fault)
            if not self._silent:
                writer.write(data)
                await writer.drain()

    async def _down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: list[Fault]) -> None:
        while data := await reader.read(65536):
            if "lose the reply" in reply:
                return
            if "hold the reply" in reply:
                self.held.set()
                continue
            if not self._silent:
                writer.write(data)
                await writer.drain()
