"""One exchange over real sockets, with a server that says exactly what a test wants, byte by byte."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from worker import http_door
from worker.http_door import Answer, Lane, Outage, Request, Site, UrlInvalid, Wire, is_fit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}'
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'4\r\n{"a"\r\n4\r\n: 1}\r\n0\r\n\r\n'
)
LAST = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
OLD = b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"a": 1}'


class Server:
    """Answers every request with what *say* sends; a connection is closed when *say* returns False."""

    def __init__(self, say: Callable[[socket.socket, int], bool], context: ssl.SSLContext | None = None) -> None:
        self._say = say
        self._context = context
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, end: socket.socket) -> None:
        if self._context is not None:
            with suppress(OSError), end, self._context.wrap_socket(end, server_side=True) as safe:
                self._answer(safe)
        else:
            with end:
                self._answer(end)

    def _answer(self, end: socket.socket) -> None:
        with suppress(OSError):
            while request := self._read(end):
                self.requests.append(request)
                if not self._say(end, len(self.requests)):
                    end.close()
                    return

    def _read(self, end: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = end.recv(65536)
            if not piece:
                return b""
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].split()[0])
        while len(body) < size:
            body += end.recv(65536)
        return head + b"\r\n\r\n" + body


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(say: Callable[[socket.socket, int], bool] | bytes, context: ssl.SSLContext | None = None) -> Server:
        def send(end: socket.socket, _number: int) -> bool:
            assert isinstance(say, bytes)
            end.sendall(say)
            return True

        servers.append(Server(send if isinstance(say, bytes) else say, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    wires: list[Wire] = []

    def make(server: Server, scheme: str = "http", host: str = "localhost") -> Wire:
        wires.append(Wire(Site.parse(f"{scheme}://{host}:{server.port}/base/")))
        return wires[-1]

    yield make
    for one in wires:
        one.close()


Serve = Callable[..., Server]
Dial = Callable[..., Wire]


def _has(results: list[Answer | Outage], count: int) -> bool:
    return len(results) == count


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  a fact, not an event
            await asyncio.sleep(0.01)


def request(**changes: object) -> Request:
    return Request(**{"method": "POST", "path": "/x", "secret": "s", "timeout": 5.0, **changes})  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("reply", [OK, CHUNKED, LAST], ids=["plain", "chunked", "the last one"])
def test_an_answer_is_taken_whatever_its_framing(serve: Serve, wire: Dial, reply: bytes) -> None:
    server = serve(reply)
    line = wire(server)
    for _ in range(3):
        assert line.exchange(request(body=lambda: b"[]")) == Answer(200, {"a": 1})
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[:3] == [
        b"POST /base/worker/v1/x HTTP/1.1", b"Host: localhost:%d" % server.port, b"Authorization: Bearer s",
    ]  # fmt: skip
    assert body == b"[]"
    assert server.connections == (3 if reply is LAST else 1)


def test_an_answer_without_a_length_ends_with_its_connection(serve: Serve, wire: Dial) -> None:
    def say(end: socket.socket, _: int) -> bool:
        end.sendall(OLD)
        return False

    line = wire(serve(say))
    assert [line.exchange(request()) for _ in range(2)] == [Answer(200, {"a": 1})] * 2


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(OK[:-3], id="a body that is cut off"),
        pytest.param(CHUNKED[:-12], id="chunks that are cut off"),
        pytest.param(OLD[:-3], id="a body without a length that is cut off"),
        pytest.param(OK[:30], id="a head that is cut off"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", id="a head without an end"),
        pytest.param(OK.replace(b"Content-Length: 8", b"Content-Length: 99999999999"), id="a length that is no length"),
    ],
)
def test_what_is_cut_off_or_no_http_is_an_outage(serve: Serve, wire: Dial, reply: bytes) -> None:
    def say(end: socket.socket, number: int) -> bool:
        end.sendall(reply if number == 1 else OK)
        return number > 1

    line = wire(serve(say))
    result = line.exchange(request())
    assert isinstance(result, Outage)
    assert result.is_sent
    assert line.exchange(request()) == Answer(200, {"a": 1})


def test_a_kept_connection_that_was_closed_is_no_outage(serve: Serve, wire: Dial) -> None:
    def say(end: socket.socket, _: int) -> bool:
        end.sendall(OK)
        return False

    server = serve(say)
    line = wire(server)
    assert [line.exchange(request()) for _ in range(4)] == [Answer(200, {"a": 1})] * 4
    time.sleep(http_door._FRESH_SECONDS + 0.1)
    assert line.exchange(request()) == Answer(200, {"a": 1})
    assert (len(server.requests), server.connections) == (5, 5)


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = Wire(Site("http", "127.0.0.1", port, "")).exchange(request())
    assert result == Outage(f"http://127.0.0.1:{port}: Connection refused", is_sent=False)


def test_a_name_that_nobody_has_is_an_outage() -> None:
    result = Wire(Site("http", "no-such-host.invalid", 80, "")).exchange(request())
    assert isinstance(result, Outage)
    assert not result.is_sent


def test_silence_is_an_outage_when_its_time_is_over(serve: Serve, wire: Dial) -> None:
    def say(_: socket.socket, number: int) -> bool:
        time.sleep(2)
        return number > 5

    server = serve(say)
    result = wire(server).exchange(request(timeout=0.3))
    assert result == Outage(f"http://localhost:{server.port}/base: no answer in time")


async def test_an_answer_that_drips_can_be_cut_off(serve: Serve) -> None:
    def say(end: socket.socket, _: int) -> bool:
        for byte in OK * 100:
            end.sendall(bytes([byte]))
            time.sleep(0.05)
        return False

    server = serve(say)
    loop = asyncio.get_running_loop()
    lane = Lane(loop, "test", 1)
    lane.aim(Site("http", "127.0.0.1", server.port, ""))
    done: asyncio.Future[Answer | Outage] = loop.create_future()
    lane.send(request(), done.set_result)
    await until(lambda: server.requests)
    await asyncio.sleep(0.2)
    lane.cancel_overdue()
    await asyncio.sleep(0.1)
    assert (done.done(), lane.is_busy) == (False, True)
    lane._wires[0].overdue_at = 0
    lane.cancel_overdue()
    assert isinstance(await asyncio.wait_for(done, 10), Outage)
    assert not lane.is_busy
    lane.close()


async def test_what_is_cancelled_before_it_is_sent_is_not_sent(serve: Serve) -> None:
    server = serve(OK)
    loop = asyncio.get_running_loop()
    lane = Lane(loop, "test", 1)
    lane.aim(Site("http", "127.0.0.1", server.port, ""))
    results: list[Answer | Outage] = []
    first, second, third = request(), request(path="/cancelled"), request()
    for one in (first, second, third):
        lane.send(one, results.append)
    lane.cancel(second)
    await until(lambda: len(results) == 3)
    assert results == [Answer(200, {"a": 1}), Outage("cancelled", is_sent=False), Answer(200, {"a": 1})]
    assert b"/cancelled" not in b"".join(server.requests)
    lane.close()


async def test_a_body_that_cannot_be_made_is_an_outage_and_the_thread_lives(serve: Serve) -> None:
    loop = asyncio.get_running_loop()
    lane = Lane(loop, "test", 1)
    lane.aim(Site("http", "127.0.0.1", serve(OK).port, ""))
    results: list[Answer | Outage] = []
    lane.send(request(body=lambda: 1 // 0), results.append)
    lane.send(request(), results.append)
    await until(lambda: len(results) == 2)
    assert isinstance(results[0], Outage)
    assert results[1] == Answer(200, {"a": 1})
    lane.close()


async def test_where_no_thread_can_be_started_those_that_are_there_do_it_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = Lane(asyncio.get_running_loop(), "test", 3)
    lane.aim(Site("http", "127.0.0.1", serve(OK).port, ""))
    results: list[Answer | Outage] = []

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        lane.send(request(), results.append)
        await until(lambda: results)
    (outage,) = results
    assert isinstance(outage, Outage)
    assert (outage.is_sent, lane.is_busy) == (False, False)
    lane.send(request(), results.append)
    await until(partial(_has, results, 2))
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        lane.send(request(), results.append)
        lane.send(request(), results.append)
        await until(partial(_has, results, 4))
    assert results[1:] == 3 * [Answer(200, {"a": 1})]
    assert not lane.is_busy
    lane.close()


async def test_a_lane_goes_where_it_is_aimed_last(serve: Serve) -> None:
    old, new = serve(OK), serve(OK)
    lane = Lane(asyncio.get_running_loop(), "test", 1)
    results: list[Answer | Outage] = []
    for count, server in enumerate((old, new), 1):
        lane.aim(Site("http", "127.0.0.1", server.port, ""))
        lane.send(request(), results.append)
        await until(partial(_has, results, count))
    assert (len(old.requests), len(new.requests)) == (1, 1)
    lane.close()


@pytest.mark.parametrize(("text", "seconds"), [("3", 3), ("0.5", 0.5), ("-1", 0), ("x", 0), ("99999", 600), ("nan", 0)])
def test_a_retry_after_is_bounded(serve: Serve, wire: Dial, text: str, seconds: float) -> None:
    reply = b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 0\r\n\r\n" % text.encode()
    result = wire(serve(reply)).exchange(request())
    assert isinstance(result, Outage)
    assert result.after == seconds


def test_a_problem_is_told_in_a_line() -> None:
    answer = Answer(409, {"code": "x", "title": "No", "detail": "a\nb", "hint": "Do c."})
    assert (answer.problem, answer.is_ok) == ("409 x: a b Do c.", False)


URLS = [
    ("http://127.0.0.1:8080", Site("http", "127.0.0.1", 8080, "")),
    ("https://runyard.example.com/", Site("https", "runyard.example.com", 443, "")),
    ("http://x/a/b/", Site("http", "x", 80, "/a/b")),
    ("HTTP://[::1]:90", Site("http", "::1", 90, "")),
]


@pytest.mark.parametrize(("url", "site"), URLS)
def test_a_url_is_read(url: str, site: Site) -> None:
    assert Site.parse(url) == site
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://x", "http://", "http://x y", "http://x/\r\nA: b", "http://x:y", "http://x:99999", "http://u@x",
     "http://u:p@x", "http://x?q", "http://x#f", "http://x/ü", "http://[x"],
)  # fmt: skip
def test_a_url_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(UrlInvalid):
        Site.parse(url)


@pytest.mark.parametrize("url", ["http://me:s3cret@h", "http://me:s3/cret@h", "http://h:s3cret", "http://[s3cret"])
def test_a_refused_url_is_not_repeated(url: str) -> None:
    with pytest.raises(UrlInvalid) as refused:
        Site.parse(url)
    assert "s3" not in str(refused.value)


@pytest.mark.parametrize("secret", ["", "a b", "a\r\nb", "ü", "x" * 1025, "a\n"])
def test_what_cannot_stand_in_a_header_is_no_secret(secret: str) -> None:
    assert not is_fit(secret)


def test_secrets_are_in_no_text() -> None:
    assert "hidden" not in repr(request(secret="hidden", body=lambda: b"hidden"))  # noqa: S106  # it is nobody's password


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server shows, and what the system trusts."""
    key, file = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", file],
        check=True,
        capture_output=True,
    )  # fmt: skip
    monkeypatch.setattr(http_door, "_tls_context", None)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    return context


def test_https_is_spoken_with_who_the_system_trusts(serve: Serve, wire: Dial, certificate: ssl.SSLContext) -> None:
    server = serve(OK, certificate)
    line = wire(server, "https")
    assert [line.exchange(request()) for _ in range(2)] == [Answer(200, {"a": 1})] * 2
    assert server.connections == 1
    result = wire(server, "https", "127.0.0.1").exchange(request())
    assert isinstance(result, Outage)
    assert "certificate" in result.why.lower()
    assert len(server.requests) == 2
