"""UNIX sockets between two processes of one host: bytes in order, and an end that each side hears of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from tests.simulation.hosts import SimProcess

_LATENCY = 0.0005


class Listener:
    """A process that accepts connections."""

    def __init__(self, process: SimProcess, factory: Callable[[], asyncio.Protocol]) -> None:
        self.process = process
        self.factory = factory


class Socket:
    """A connection that was made; both ends speak as soon as this one is handed to its loop."""

    def __init__(self, process: SimProcess, listener: Listener) -> None:
        self._process = process
        self._listener = listener

    def close(self) -> None:
        """Nobody has heard of it."""

    def adopt(self, factory: Callable[[], asyncio.Protocol]) -> tuple[Transport, asyncio.Protocol]:
        """Give the near end its protocol, and have the far end accept."""
        near, far = Transport(self._process), Transport(self._listener.process)
        near.other, far.other = far, near
        near.is_closed = far.is_closed = not self._listener.process.is_alive
        protocol = factory()
        self._process.machine.links.append(near)
        near.open(protocol, 0.0)
        if near.is_closed:
            self._process.later(_LATENCY, near.lose)
        else:
            far.process.later(_LATENCY, lambda: far.open(self._listener.factory(), 0.0))
        return near, protocol


class Transport:
    """One end of a connection, as asyncio's streams have it."""

    def __init__(self, process: SimProcess) -> None:
        self.process = process
        self.other: Transport
        self.is_closed = False
        self._protocol: asyncio.Protocol | None = None
        self._last = 0.0
        self._dice = process.dice
        process.on_death.append(self._died)

    def open(self, protocol: asyncio.Protocol, _at: float) -> None:
        self._protocol = protocol
        protocol.connection_made(self)  # type: ignore[arg-type]  # what of a transport is used here it has

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default

    def write(self, data: bytes) -> None:
        """Send *data*; it arrives after what was sent before, if both live that long."""
        if not self.is_closed:
            self._at_other(self.other.receive, bytes(data))

    def close(self) -> None:
        """Send what waits, and end."""
        if not self.is_closed:
            self.is_closed = True
            self._at_other(self.other.lose)
            self.process.later(0, self.lose)

    abort = close

    def receive(self, data: bytes) -> None:
        if self._protocol is not None and not self.is_closed:
            self._protocol.data_received(data)

    def lose(self) -> None:
        """Hear that the connection is over."""
        self.is_closed = True
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(None)

    def sever(self) -> None:
        """Break the connection under both ends."""
        for end in (self, self.other):
            end.is_closed = True
            end.process.later(0, end.lose)
        if self in self.process.machine.links:
            self.process.machine.links.remove(self)

    def _died(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._at_other(self.other.lose)

    def _at_other(self, callback: Callable[..., None], *args: Any) -> None:
        loop = self.process.loop
        self._last = max(self._last, loop.time() + _LATENCY * (0.2 + self._dice.random()))
        loop.call_at(self._last, callback, *args, context=self.other.process.context).is_io = True
