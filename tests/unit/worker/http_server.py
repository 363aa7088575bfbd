"""Real servers on loopback that answer what a test says, byte by byte."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Talk = Callable[[socket.socket], object]

#: A key and its certificate for localhost, which nobody trusts.
CERTIFICATE = Path(__file__).with_name("localhost.pem")


def answer(body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = None) -> bytes:
    """Return an answer as it stands on the wire."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


class Server:
    """Takes each request whole, keeps it, and has *talk* answer it."""

    def __init__(self, talk: Talk, *, tls: bool, host: str) -> None:
        self._talk = talk
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(CERTIFICATE)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family)
        self._socket.settimeout(0.05)
        self.port: int = self._socket.getsockname()[1]
        self.requests: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    def close(self) -> None:
        self._over.set()
        self._thread.join(20)
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            with suppress(OSError), connection:
                connection.settimeout(20)
                self._serve_one(connection)

    def _serve_one(self, connection: socket.socket) -> None:
        if self._tls is None:
            self.requests.append(_request(connection))
            self._talk(connection)
            return
        with self._tls.wrap_socket(connection, server_side=True) as secured:
            self.requests.append(_request(secured))
            self._talk(secured)


def slowly(first: bytes, each: bytes = b"", pause: float = 0.05) -> Talk:
    """Send *first* at once, then *each* again and again for as long as somebody listens."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(first)
        connection.settimeout(pause)
        while True:
            with suppress(TimeoutError, ssl.SSLWantReadError):
                if not connection.recv(1):
                    return
            connection.sendall(each)

    return talk


@contextmanager
def serving(said: bytes | Talk, *, tls: bool = False, host: str = "127.0.0.1") -> Iterator[Server]:
    """Have a server that gives the answer *said*, or does what *said* does."""
    talk: Talk = said if callable(said) else lambda connection: connection.sendall(said)
    server = Server(talk, tls=tls, host=host)
    try:
        yield server
    finally:
        server.close()


def _request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return data
        data += more
        if data.startswith(b"\x16"):
            return data  # the first words of TLS
    head, _, body = data.partition(b"\r\n\r\n")
    wanted = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            wanted = int(line.partition(b":")[2])
    while len(body) < wanted and (more := connection.recv(65536)):
        body += more
    return head + b"\r\n\r\n" + body
