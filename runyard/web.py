"""The HTTP server: uvicorn on a socket that was opened first, so that a port in use is known before all else."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from typing import TYPE_CHECKING, Final

import uvicorn

from runyard.exits import Exit, Stop
from runyard.settings import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

_BACKLOG: Final = 2048
#: How long answers that are on their way may take when the service stops.
_LAST_ANSWERS: Final = 5


def listen(host: str, port: int, allowed_hosts: tuple[str, ...]) -> socket.socket:
    """Return a listening socket, or Stop."""
    if not _is_loopback(host) and not allowed_hosts:
        raise Stop(
            Exit.USAGE,
            f"{host} is not a loopback address: others could reach this service.",
            "name the hosts it may be called by in RUNYARD_ALLOWED_HOSTS, and put TLS in front of it",
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise Stop(Exit.PORT, f"{host} is no address of this host: {error.strerror}.") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        raise Stop(
            Exit.PORT,
            f"Port {port} of {host} cannot be listened on: {error.strerror}.",
            "stop what uses it, or choose another one with --port",
        ) from None
    made.setblocking(False)  # noqa: FBT003  # the standard library's signature
    return made


def url_of(bound: socket.socket) -> str:
    """Return how the service on *bound* is called from this host."""
    host, port = bound.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server(uvicorn.Server):
    """uvicorn without signal handlers of its own: the service has them."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                interface="asgi3",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=_LAST_ANSWERS,
            )
        )
        #: Set once it is clear whether requests are answered; ``started`` says whether.
        self.settled = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


def _is_loopback(host: str) -> bool:
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
