"""One connection between an agent and a service: messages in order, batched into frames as they come up.

Both sides use it; it knows no message.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Protocol, cast

from worker import linux, protocol

if TYPE_CHECKING:
    from worker.protocol import Message


class Peer(Protocol):
    """Who hears what comes over a link."""

    def connected(self, link: Link) -> None: ...

    def received(self, link: Link, message: Message) -> None: ...

    def unsent(self, link: Link, message: Message, why: str) -> None: ...

    def lost(self, link: Link, why: str) -> None: ...


class Link(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._buffer = bytearray()
        self._out: list[Message] = []
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._why = "the other side closed the connection"

    def send(self, message: Message) -> None:
        """Send *message* with all others of this turn of the loop; the peer hears of one that fits into no frame."""
        if self._transport is None:
            return
        self._out.append(message)
        if len(self._out) == 1:
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        """Send what waits, then close."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def abort(self, why: str) -> None:
        """Close at once; what waits is lost."""
        if self._transport is not None:
            self._why = why
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, so that there is nothing to check here.
        self._transport = cast("asyncio.WriteTransport", transport)
        owner = linux.peer_uid(transport.get_extra_info("socket"))
        if owner != os.getuid():
            self.abort(f"the other side is of uid {owner}")
        else:
            self._peer.connected(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            for message in protocol.decode(self._buffer):
                self._peer.received(self, message)
        except protocol.FrameInvalid as error:
            self.abort(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._peer.lost(self, str(exc) if exc else self._why)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._write(out)

    def _write(self, messages: list[Message]) -> None:
        try:
            frame = protocol.encode(messages)
        except protocol.FrameInvalid as error:
            if len(messages) == 1:
                self._peer.unsent(self, messages[0], str(error))
                return
            middle = len(messages) // 2
            self._write(messages[:middle])
            self._write(messages[middle:])
        else:
            if self._transport is not None:
                self._transport.write(frame)
