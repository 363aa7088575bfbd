"""HTTP of a remote agent: one exchange at a time on a connection that is kept, in threads the loop never waits for.

What comes back is an answer of ours or an outage, and only an answer says anything about an attempt.  The page of a
proxy, JSON that is not our API's, a redirect, 408, 425, 429 and every 5xx are outages: ask again later.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from worker import VERSION
from worker.spool import one_line

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

#: The largest answer that is read; a task's body with an output of 1 MiB in each of many arguments fits.
_LARGEST: Final = 64 * 1024 * 1024
#: A kept connection that idled for longer is looked at before it is used: its other end may have closed it.
_FRESH_SECONDS: Final = 0.5
#: The most that an answer can make us wait.
_LONGEST_AFTER: Final = 600.0
#: How much longer than its timeouts an exchange may take as a whole: they are of single reads.
_SLACK: Final = 60.0
#: Statuses that say nothing about what was asked; so does every 5xx.
_AGAIN: Final = frozenset({408, 425, 429})
_SECRET: Final = re.compile(r"[\x21-\x7e]{1,1024}\Z")


class UrlInvalid(Exception):
    """The URL of the API cannot be used; the text says why, and does not repeat it whole: it may hold a password."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where the API is."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Site:
        """Return the site of *url*; raise UrlInvalid."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:  # its text quotes what may be a part of a password
            raise UrlInvalid("RUNYARD_API_URL cannot be read: its host or its port is none") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UrlInvalid("RUNYARD_API_URL must be like https://runyard.example.com or http://127.0.0.1:8080")
        if parts.username is not None or parts.password is not None:
            raise UrlInvalid("RUNYARD_API_URL must hold no user and no password: the key is RUNYARD_API_KEY")
        if parts.query or parts.fragment or not _SECRET.match(parts.hostname + parts.path):
            raise UrlInvalid("RUNYARD_API_URL must end with its path: no query, no fragment, no blanks")
        default = http.client.HTTPS_PORT if parts.scheme == "https" else http.client.HTTP_PORT
        return cls(parts.scheme, parts.hostname, port or default, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One call."""

    method: str
    #: Below ``/worker/v1``.
    path: str
    secret: str = field(repr=False)
    #: What makes the body, in the thread that sends it.
    body: Callable[[], bytes] = field(default=bytes, repr=False)
    content_type: str = "application/json"
    timeout: float = 30.0
    #: How many bytes its body has at the most, where it may travel with others (:mod:`worker.bundles`); 0: it does not.
    weight: float = 0
    #: Nobody waits for the answer any more.
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API said."""

    status: int
    document: dict[str, Any]

    @property
    def is_ok(self) -> bool:
        return self.status < http.client.MULTIPLE_CHOICES

    @property
    def code(self) -> str:
        """Which problem it is."""
        return str(self.document.get("code", ""))

    @property
    def problem(self) -> str:
        """The problem in a line for people."""
        parts = [str(self.document.get(name) or "") for name in ("detail", "title")]
        return one_line(f"{self.status} {self.code}: {parts[0] or parts[1]} {self.document.get('hint') or ''}")


@dataclass(frozen=True, slots=True)
class Outage:
    """There was no answer of ours."""

    why: str
    #: Whether the API may have got the request.
    is_sent: bool = True
    #: How many seconds the other side asked us to wait, if it did.
    after: float = 0.0


def is_fit(secret: str) -> bool:
    """Whether *secret* can stand in a header; a forged ticket may hold anything."""
    return _SECRET.match(secret) is not None


class Wire:
    """One connection, used by one thread; another one may interrupt it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._connection: http.client.HTTPConnection | None = None
        self._used_at = 0.0
        #: What is under way, and when it has taken too long.
        self.request: Request | None = None
        self.overdue_at = 0.0

    def exchange(self, request: Request) -> Answer | Outage:
        """Send *request* and return what came back; once more where a kept connection turns out to be closed."""
        self.overdue_at = time.monotonic() + 2 * request.timeout + _SLACK
        self.request = request
        is_sent = False
        try:
            body = request.body()
            is_kept = self._is_alive()
            if not is_kept:
                self._connect(request.timeout)
            if request.is_cancelled:
                return Outage("cancelled", is_sent)
            is_sent = True
            try:
                return self._send(request, body)
            except (ConnectionError, http.client.BadStatusLine):
                if not is_kept or request.is_cancelled:
                    raise
            # All calls may be repeated, whatever became of the first one.
            self.close()
            self._connect(request.timeout)
            return self._send(request, body)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Outage(f"{self.site}: {_reason(error)}", is_sent)
        finally:
            self.request = None

    def interrupt(self) -> None:
        """From another thread: have the exchange that is under way end as an outage, as soon as it can."""
        end = self._connection.sock if self._connection is not None else None
        if end is not None:
            with suppress(OSError):
                # Not an SSLSocket's own, which would take the session from under the thread that reads.
                socket.socket.shutdown(end, socket.SHUT_RDWR)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _is_alive(self) -> bool:
        """Whether the connection that was kept can be used again."""
        if self._connection is None:
            return False
        if time.monotonic() - self._used_at > _FRESH_SECONDS:
            poll = select.poll()
            poll.register(self._connection.sock, select.POLLIN)
            if poll.poll(0):  # an end, or words that nobody asked for
                self.close()
                return False
        return True

    def _connect(self, timeout: float) -> None:
        site = self.site
        connection: http.client.HTTPConnection
        if site.scheme == "https":
            connection = http.client.HTTPSConnection(site.host, site.port, timeout=timeout, context=_tls())
        else:
            connection = http.client.HTTPConnection(site.host, site.port, timeout=timeout)
        self._connection = connection
        connection.connect()

    def _send(self, request: Request, body: bytes) -> Answer | Outage:
        assert self._connection is not None  # noqa: S101  it was made, or was there
        end: socket.socket = self._connection.sock
        if end.gettimeout() != request.timeout:
            end.settimeout(request.timeout)
        # One piece: http.client sends head and body one after the other, and the server reads twice.
        end.sendall(self._head(request, len(body)) + body)
        response = http.client.HTTPResponse(end, method=request.method)
        try:
            response.begin()
            if response.length is not None and response.length > _LARGEST:
                raise http.client.HTTPException(f"an answer of {response.length:,} bytes")
            data = response.read() if response.length is not None else response.read(_LARGEST)
            if response.will_close or not response.isclosed():
                self.close()
            self._used_at = time.monotonic()
            return _judge(self.site, response, data)
        finally:
            response.close()

    def _head(self, request: Request, size: int) -> bytes:
        return (
            f"{request.method} {self.site.prefix}/worker/v1{request.path} HTTP/1.1\r\n"
            f"Host: {self.site.authority}\r\n"
            f"Authorization: Bearer {request.secret}\r\n"
            f"User-Agent: runyard-worker/{VERSION}\r\n"
            "Accept: application/json\r\n"
            f"Content-Type: {request.content_type}\r\n"
            f"Content-Length: {size}\r\n\r\n"
        ).encode("ascii")


class Lane:
    """Some threads that make calls, each on a connection of its own; the loop hands them over and gets the results."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str, threads: int) -> None:
        self._loop = loop
        self._name = name
        self._most = threads
        self._queue: SimpleQueue[tuple[Request, Callable[[Answer | Outage], None]] | None] = SimpleQueue()
        self._results: deque[tuple[Callable[[Answer | Outage], None], Answer | Outage]] = deque()
        self._wires: list[Wire] = []
        self._busy = 0
        self._site: Site | None = None

    def aim(self, site: Site) -> None:
        """Send what comes from now on to *site*."""
        self._site = site

    def send(self, request: Request, then: Callable[[Answer | Outage], None]) -> None:
        """Make a call; *then* gets its result, on the loop."""
        if self._busy >= len(self._wires) < self._most:
            try:
                self._add_wire()
            except RuntimeError as error:  # tasks have taken the last thread that this machine, or container, has
                if not self._wires:
                    self._loop.call_soon(then, Outage(f"no thread for it: {error}", is_sent=False))
                    return
        self._busy += 1
        self._queue.put((request, then))

    def _add_wire(self) -> None:
        assert self._site is not None  # noqa: S101  it is aimed before it is used
        wire = Wire(self._site)
        name = f"{self._name}-{len(self._wires) + 1}"
        threading.Thread(target=self._work, args=(wire,), name=name, daemon=True).start()
        self._wires.append(wire)

    @property
    def is_busy(self) -> bool:
        return self._busy > 0

    def cancel(self, request: Request) -> None:
        """Have an exchange end as an outage, soon."""
        request.is_cancelled = True
        for wire in self._wires:
            if wire.request is request:
                wire.interrupt()

    def cancel_overdue(self) -> None:
        """End what takes far too long, such as an answer that comes byte by byte."""
        now = time.monotonic()
        for wire in self._wires:
            request = wire.request
            if request is not None and wire.overdue_at < now:
                self.cancel(request)

    def close(self) -> None:
        """Have the threads end when they are done with what they do."""
        for _ in self._wires:
            self._queue.put(None)

    def _work(self, wire: Wire) -> None:
        while (item := self._queue.get()) is not None:
            request, then = item
            if self._site is not None and wire.site != self._site:
                wire.close()
                wire.site = self._site
            try:
                result = wire.exchange(request)
            except Exception as error:  # noqa: BLE001  a call without a result would hold its attempt for ever
                wire.close()
                result = Outage(f"{request.method} {request.path}: {error!r}")
            self._results.append((then, result))
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                break  # the loop is closed: nobody wants to know
        wire.close()

    def _deliver(self) -> None:
        then, result = self._results.popleft()
        self._busy -= 1
        then(result)


def _judge(site: Site, response: http.client.HTTPResponse, data: bytes) -> Answer | Outage:
    """Tell an answer of ours from everything else that can come over HTTP."""
    status = response.status
    where = f"{site} answered {status}"
    kind = (response.getheader("Content-Type") or "nothing").partition(";")[0].strip()
    if http.client.MULTIPLE_CHOICES <= status < http.client.BAD_REQUEST:
        return Outage(one_line(f"{where}, a redirect to {response.getheader('Location')}; is RUNYARD_API_URL right?"))
    document: Any = None
    with suppress(ValueError, RecursionError):
        document = json.loads(data) if data else {}
    if says_nothing(status):
        said = document.get("detail") or "" if isinstance(document, dict) else ""
        return Outage(one_line(f"{where} {said}"), after=retry_after(response.getheader("Retry-After")))
    if status == http.client.NO_CONTENT and not data:
        return Answer(status, {})
    if isinstance(document, dict) and kind == "application/json" and status == http.client.OK:
        return Answer(status, document)
    if isinstance(document, dict) and kind == "application/problem+json" and isinstance(document.get("code"), str):
        return Answer(status, document)
    return Outage(one_line(f"{where} with {kind}, which is none of ours; is RUNYARD_API_URL right?"))


def says_nothing(status: int) -> bool:
    """Whether an answer with *status* is an outage: it says nothing about what was asked, and that is asked again."""
    return status in _AGAIN or status >= http.client.INTERNAL_SERVER_ERROR


def retry_after(text: str | None) -> float:
    """Return the seconds of a Retry-After; a date, which compares two clocks, is not taken."""
    try:
        seconds = float(text or 0)
    except ValueError:
        return 0.0
    return min(seconds, _LONGEST_AFTER) if seconds > 0 else 0.0  # so that NaN is 0, too


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return one_line(getattr(error, "strerror", None) or str(error) or type(error).__name__)


_tls_context: ssl.SSLContext | None = None
_tls_lock: Final = threading.Lock()


def _tls() -> ssl.SSLContext:
    """Return the one context of this process: reading the system's certificates takes 20 ms."""
    global _tls_context  # noqa: PLW0603  made by whichever thread is first
    with _tls_lock:
        if _tls_context is None:
            import ssl  # noqa: PLC0415  4 MB and 20 ms that only an https URL needs

            _tls_context = ssl.create_default_context()
        return _tls_context
