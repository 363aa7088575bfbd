"""A connection whose every wait ends with the time of its task, to an address that was judged before."""

from __future__ import annotations

import io
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv6Address

    from worker.guard import Target

#: How long one address may take to accept a connection before the next one is tried.
_CONNECT_SECONDS: Final = 15.0


class Wire:
    """A connected socket, as ``http.client`` uses one.

    A limit on each wait is not enough: a server that sends a byte now and then would be waited for without an end.
    """

    def __init__(self, sock: socket.socket, address: str, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline
        #: What it is connected to.
        self.address = address

    def sendall(self, data: Any) -> None:
        self._sock.settimeout(left(self._deadline))
        self._sock.sendall(data)

    def receive(self, buffer: Any) -> int:
        self._sock.settimeout(left(self._deadline))
        return self._sock.recv_into(buffer)

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  as a socket has it; there is but one mode
        return io.BufferedReader(_Reading(self))

    def close(self) -> None:
        """Do nothing: the client closes its end as soon as it has the headers, and the body is read after that."""

    def shut(self) -> None:
        """Close the connection."""
        self._sock.close()


class _Reading(io.RawIOBase):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._wire.receive(buffer)


def connect(to: Target, addresses: Sequence[IPv4Address | IPv6Address], deadline: float) -> Wire:
    """Connect to one of *addresses*, none of which is looked up again; raise OSError where none accepts."""
    failure: OSError | None = None
    for address in addresses:
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)  # noqa: PLR2004  that is IPv4
        try:
            sock.settimeout(min(_CONNECT_SECONDS, left(deadline)))
            sock.connect((str(address), to.port))
        except OSError as error:
            sock.close()
            failure = error
            continue
        return Wire(_secured(sock, to, deadline), str(address), deadline)
    raise failure or OSError("there is no address to connect to")


def left(deadline: float) -> float:
    """Return the seconds until *deadline*, or raise TimeoutError."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _secured(sock: socket.socket, to: Target, deadline: float) -> socket.socket:
    if to.scheme == "http":
        return sock
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    try:
        sock.settimeout(left(deadline))
        return context.wrap_socket(sock, server_hostname=to.host)
    except BaseException:
        sock.close()
        raise
