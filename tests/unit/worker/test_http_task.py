"""Requests to real servers on loopback, friendly and hostile ones."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

import worker
from tests.unit.worker.http_server import CERTIFICATE, Server, answer, serving, slowly
from worker.guard import Rules
from worker.http_task import Failed, perform, run

if TYPE_CHECKING:
    import socket as sockets

    from worker.guard import Resolve
    from worker.protocol import HttpBody

MIB = 1024 * 1024
LONG = 30.0


def request(server: Server | str, method: str = "GET", path: str = "/", **parts: Any) -> HttpBody:
    url = server if isinstance(server, str) else server.url(path)
    return cast("HttpBody", {"method": method, "url": url, "headers": {}, "query": {}, **parts})


def rules(server: Server, *allow: str) -> Rules:
    return Rules.read(allow or ["127.0.0.0/8"], [server.port])


def ask(server: Server, *, limit: float = LONG, resolve: Resolve | None = None, **parts: Any) -> dict[str, Any]:
    return perform(request(server, **parts), rules(server), limit=limit, resolve=resolve)


def failure(server: Server, *, limit: float = LONG, resolve: Resolve | None = None, **parts: Any) -> str:
    with pytest.raises(Failed) as failed:
        ask(server, limit=limit, resolve=resolve, **parts)
    return str(failed.value)


JSON = "Content-Type: application/json"


def test_a_request_is_plain_http_and_its_answer_the_output() -> None:
    said = answer(b'{"a": [1, 2.5, "\xc3\xbc"]}', "201 Created", JSON, "X-Id: 7", "Set-Cookie: a=1", "set-cookie: b=2")
    with serving(said) as server:
        found = ask(server, path="/a?x=1", query={"day": "2026-01-31", "q r": "a&b=\u00fc/+"})
        assert found == {
            "status": 201,
            "headers": {
                "content-type": "application/json",
                "x-id": "7",
                "set-cookie": "a=1, b=2",
                "content-length": "21",
            },
            "body": {"a": [1, 2.5, "\u00fc"]},
        }
        assert server.requests == [
            (
                "GET /a?x=1&day=2026-01-31&q%20r=a%26b%3D%C3%BC%2F%2B HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{server.port}\r\nUser-Agent: Runyard/{worker.VERSION}\r\nAccept: */*\r\n"
                "Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
            ).encode()
        ]


def test_json_and_text_are_sent_as_what_they_are_unless_headers_say_otherwise() -> None:
    with serving(answer()) as server:
        ask(server, method="POST", json={"n": [None, "\u00fc"]})
        ask(server, method="PUT", body="a\u00fc\n", headers={"content-type": "text/csv", "X-Empty": ""})
        ask(server, method="POST")
        ask(server, method="DELETE")
    first, second, third, fourth = (one.split(b"\r\n") for one in server.requests)
    assert (first[0], first[-1]) == (b"POST / HTTP/1.1", b'{"n":[null,"\xc3\xbc"]}')
    assert {b"Content-Type: application/json", b"Content-Length: 17"} <= set(first)
    assert (second[0], second[-1]) == (b"PUT / HTTP/1.1", b"a\xc3\xbc\n")
    assert {b"content-type: text/csv", b"Content-Length: 4", b"X-Empty: "} <= set(second)
    assert not any(line.startswith(b"Content-Type") for line in second)
    assert b"Content-Length: 0" in third
    assert not any(line.startswith(b"Content-Length") for line in fourth)


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (answer(b"plain", "200 OK", "Content-Type: text/plain"), "plain"),
        (answer(b"\xe9", "200 OK", "Content-Type: text/plain; charset=ISO-8859-1"), "\u00e9"),
        (answer(b"\xe9", "200 OK", "Content-Type: text/plain; charset=zlib"), "\ufffd"),
        (answer(b"\x00\xff", "200 OK", "Content-Type: image/png"), "\0\ufffd"),
        (answer(b"{}", "200 OK"), "{}"),
        (answer(b"", "204 No Content"), ""),
        (answer(b"", "202 Accepted", JSON), None),
        (answer(b" [1] ", "200 OK", "Content-Type: application/problem+json; charset=utf-8"), [1]),
        (answer(b"[2]", "200 OK", "content-type: TEXT/JSON"), [2]),
        (answer("\u00fc".encode("utf-16"), "200 OK", "Content-Type: application/jsonp"), "\ufffd\ufffd\ufffd\0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX: y\r\n\r\n", "abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil it closes", "until it closes"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"late"), "late"),
    ],
)
def test_a_body_is_json_where_it_says_so_and_text_elsewhere(said: bytes, body: Any) -> None:
    with serving(said) as server:
        assert ask(server)["body"] == body


def test_the_answer_to_head_has_no_body() -> None:
    with serving(answer(b"", "200 OK", JSON, "Content-Encoding: gzip", length=5 * MIB)) as server:
        assert ask(server, method="HEAD")["headers"]["content-length"] == str(5 * MIB)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (
            answer(b'{"detail": "no\n such"}', "404 Not Found", JSON),
            'was answered 404 Not Found: {"detail": "no such"}',
        ),
        (answer(b"", "500 Internal Server Error"), "was answered 500 Internal Server Error, without a body"),
        (answer(b"\x1b[31m\x00" + b"x" * 5000, "400 Bad"), f"was answered 400 Bad: [31m {'x' * 295}…"),
        (answer(b"nope", "304 Not Modified"), "was answered 304 Not Modified, without a body"),
        (answer(b"", "300 Multiple Choices"), "was answered 300 Multiple Choices, without a body"),
        (b"HTTP/1.1 199\r\n\r\nearly", "was answered 199, without a body"),
        (b"HTTP/1.1 999 Odd\r\n\r\nlate", "was answered 999 Odd: late"),
        (answer(b"{", "200 OK", JSON), "was answered 200 OK as application/json, and the body is not JSON: Expecting"),
        (answer(b"[NaN]", "200 OK", JSON), "the body is not JSON: NaN is no number of JSON"),
        (answer(b"\xff", "200 OK", JSON), "the body is not JSON: "),
        (answer(b"[" * 64 + b"]" * 64, "200 OK", JSON), "nests too deeply; an output has at most 64 levels"),
        (answer(b"[" * 500_000, "200 OK", JSON), "nests too deeply"),
        (answer(b"1" * 5000, "200 OK", JSON), "the body is not JSON: Exceeds the limit"),
        (answer(b"x", "200 OK", "Content-Encoding: gzip"), "encoded as gzip although that was not accepted"),
        (answer(b"x" * (MIB + 1)), "with more than 1,048,576 bytes, which no output holds"),
        (answer(b"short", length=9), "broke off: 4 bytes of the body are missing"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab", "the answer broke off in its body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab", "the answer "),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer is not HTTP: BadStatusLine"),
        (b"", "the connection was closed without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "the answer is not HTTP: LineTooLong"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "the answer is not HTTP: HTTPException: got more than"),
    ],
)
def test_an_answer_that_is_no_success_fails_with_what_it_was(said: bytes, error: str) -> None:
    with serving(said) as server:
        told = failure(server, path="/a")
    assert told.startswith(f"GET {server.url('/a')}")
    assert error in told
    assert told.isprintable()


def test_a_redirect_is_told_and_not_followed() -> None:
    place = "Location: http://user:hunter2@169.254.169.254/latest/meta-data/?token=hunter2#x"
    for status in ("301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent"):
        with serving(answer(b"elsewhere", status, place)) as server:
            told = failure(server, method="POST", json=1)
            assert len(server.requests) == 1
        assert f"was answered {status}, which leads to http://…@169.254.169.254/latest/meta-data/?…" in told
        assert "redirects are not followed" in told
        assert "hunter2" not in told
    with serving(answer(b"", "302 Found", "Location: /else?a=b")) as server:
        assert "which leads to /else?…; redirects" in failure(server)


def test_a_body_without_an_end_is_read_as_far_as_an_output_goes() -> None:
    for first, each in (
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
    ):
        with serving(slowly(first, each, pause=0.001)) as server:
            assert "more than 1,048,576 bytes" in failure(server)


@pytest.mark.parametrize(
    ("first", "each"),
    [
        pytest.param(b"", b"", id="nothing at all"),
        pytest.param(b"", b"H", id="the status line, byte by byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\n", b"X", id="a header, byte by byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", b"x", id="a body, byte by byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", b"", id="a body that stops"),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", id="promises"),
    ],
)
def test_a_slow_answer_ends_with_the_time_of_the_task(first: bytes, each: bytes) -> None:
    with serving(slowly(first, each)) as server:
        began = time.monotonic()
        told = failure(server, limit=0.7)
        assert time.monotonic() - began < 15
    assert "took longer than 0.7 s; execution_timeout says how long" in told


def test_a_failure_is_told_at_once_even_where_its_body_never_ends() -> None:
    with serving(slowly(b"HTTP/1.1 503 Busy\r\n\r\ncome back")) as server:
        assert failure(server).endswith("was answered 503 Busy: come back")


def test_what_cannot_be_reached_is_told() -> None:
    with serving(b"") as server:
        closed = server.port
    with pytest.raises(Failed, match=rf"GET http://127\.0\.0\.1:{closed}/: Connection refused"):
        perform(request(f"http://127.0.0.1:{closed}/"), Rules.read(["127.0.0.1"], [closed]), limit=LONG)


def test_an_address_of_ipv6_is_reached() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(answer(b"six"), host="::1") as server:
        allowed = Rules.read(["::1"], [server.port])
        assert perform(request(server.url("/", "[::1]")), allowed, limit=LONG)["body"] == "six"
        assert f"\r\nHost: [::1]:{server.port}\r\n".encode() in server.requests[0]


class Names:
    """A resolver that gives other answers every time, as in DNS rebinding."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    def __call__(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        assert host == "rebind.example"
        found = self.answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in found]


def test_a_name_is_resolved_once_and_only_what_was_judged_is_connected_to() -> None:
    with serving(answer(b"inside")) as inside:
        allowed = Rules.read(["127.0.0.1"], [inside.port])
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        url = f"http://rebind.example:{inside.port}/"
        assert perform(request(url), allowed, limit=LONG, resolve=names)["body"] == "inside"
        assert len(names.answers) == 1
        assert b"\r\nHost: rebind.example:%d\r\n" % inside.port in inside.requests[0]
        names = Names(["127.0.0.1", "127.0.0.2"], ["127.0.0.1"])
        with pytest.raises(Failed, match=r"rebind\.example is 127\.0\.0\.2, which is a loopback address"):
            perform(request(url), allowed, limit=LONG, resolve=names)
        assert (len(names.answers), len(inside.requests)) == (1, 1)


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    with serving(answer(b"second")) as server:
        names = Names(["127.0.0.3", "127.0.0.1"])
        url = f"http://rebind.example:{server.port}/"
        assert perform(request(url), rules(server), limit=LONG, resolve=names)["body"] == "second"


def test_nothing_is_sent_where_the_guard_says_no() -> None:
    with serving(answer(b"inside")) as server:
        for allow in ([], ["10.0.0.0/8"], ["example.com"]):
            with pytest.raises(Failed, match=r"is a loopback address; .* RUNYARD_HTTP_ALLOW that lists it"):
                perform(request(server), Rules.read(allow, [server.port]), limit=LONG)
        with pytest.raises(Failed, match="RUNYARD_HTTP_PORTS"):
            perform(request(server), Rules.read(["127.0.0.1"]), limit=LONG)
        assert server.requests == []
    with pytest.raises(Failed, match="metadata"):
        perform(request("http://169.254.169.254/latest/meta-data/"), Rules(), limit=LONG)


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answer(b"proxy")) as proxy, serving(answer(b"direct")) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
            monkeypatch.setenv(name, proxy.url())
        assert ask(server)["body"] == "direct"
        assert proxy.requests == []


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\r\n b", "a\rb", "a\0b", "\u00fc", "a\x7f"])
def test_a_header_cannot_become_two(value: str) -> None:
    with serving(answer()) as server:
        assert "http.headers: X-Id has a value with a line break" in failure(server, headers={"X-Id": value})
        assert server.requests == []


SECRETS: dict[str, Any] = {
    "headers": {
        "Authorization": "Bearer hunter2-a",
        "X-Api-Key": "hunter2-b",
        "Cookie": "sid=hunter2-c",
        "X-Id": "plain",
    },
    "query": {"access_token": "hunter2-d", "day": "hunter2-e"},
}


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
def test_no_credential_is_in_the_log_or_the_error(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    def talk(connection: sockets.socket) -> None:
        connection.sendall(answer(server.requests[-1], status, "Content-Type: text/plain"))

    path = "/services/T0001/aGVsbG8td29ybGQtdGhpcy1pcy1sb25n/8e0d1b8e-2f6a-4d57-9d47-0b1c2d3e4f50?x=hunter2-f"
    with serving(talk) as server:
        told = (
            failure(server, path=path, **SECRETS)
            if status[0] == "4"
            else str(ask(server, path=path, **SECRETS)["status"])
        )
        assert server.requests[0].count(b"hunter2") == 6
    log = capsys.readouterr().out
    shown = f"GET {server.url('/services/T0001/…/8e0d1b8e-2f6a-4d57-9d47-0b1c2d3e4f50?…')}"
    assert log.splitlines()[0] == f"[runyard] {shown} at 127.0.0.1 port {server.port}, 0 bytes"
    assert log.splitlines()[1].startswith(f"[runyard] {status}, text/plain, after 0.")
    assert "hunter2" not in log
    if status[0] == "4":
        assert told.startswith(f"{shown} was answered 401 Unauthorized: ")
        assert not [secret for secret in "abcd" if f"hunter2-{secret}" in told]


def test_tls_is_checked_against_the_name_and_who_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with serving(answer(b"safe"), tls=True) as server:
        allowed = Rules.read(["localhost", "127.0.0.0/8", "::1"], [server.port])

        def told(host: str) -> str:
            try:
                return str(perform(request(server.url("/", host)), allowed, limit=LONG)["body"])
            except Failed as error:
                return str(error)

        assert "the certificate is not trusted: self-signed certificate" in told("localhost")
        assert "SSL_CERT_FILE in env" in told("localhost")
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        assert told("localhost") == "safe"
        assert told("LOCALHOST.") == "safe"
        assert "IP address mismatch" in told("127.0.0.1")
        assert len(server.requests) == 2
    with serving(b"HTTP/1.1 400 Bad\r\n\r\n") as plain:
        allowed = Rules.read(["127.0.0.1"], [plain.port])
        with pytest.raises(Failed, match=rf"GET https://127\.0\.0\.1:{plain.port}/: TLS failed: "):
            perform(request(f"https://127.0.0.1:{plain.port}/"), allowed, limit=LONG)


def test_a_server_that_does_not_shake_hands_is_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(Failed, match=r"took longer than 0\.5 s"):
            perform(request(f"https://127.0.0.1:{port}/"), Rules.read(["127.0.0.1"], [port]), limit=0.5)


def job(server: Server, folder: Path, **parts: Any) -> dict[str, Any]:
    return {
        "http": request(server, **parts),
        "allow": ["127.0.0.1"],
        "ports": [server.port],
        "limit": LONG,
        "output": str(folder / "output"),
        "error": str(folder / "error"),
    }


def test_the_program_leaves_an_output_or_an_error(tmp_path: Path) -> None:
    def start(server: Server) -> tuple[int, str]:
        program = Path(worker.__file__).parent / "http_task.py"
        ended = subprocess.run(
            [sys.executable, "-I", "-S", str(program)],
            input=json.dumps(job(server, tmp_path)).encode(),
            capture_output=True,
            env={"LANG": "C", "PATH": os.environ["PATH"]},
            cwd=tmp_path,
            check=False,
            timeout=60,
        )
        assert ended.stderr == b""
        return ended.returncode, ended.stdout.decode()

    with serving(answer("\u00fc".encode())) as server:
        code, log = start(server)
    assert (code, len(log.splitlines())) == (0, 2)
    assert json.loads((tmp_path / "output").read_bytes())["body"] == "\u00fc"
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o600
    (tmp_path / "output").unlink()
    with serving(answer("\u00fc".encode(), "500 Oops")) as server:
        code, log = start(server)
    assert (code, (tmp_path / "output").exists()) == (1, False)
    assert (tmp_path / "error").read_text() == f"GET {server.url()} was answered 500 Oops: \u00fc"
    assert log.splitlines()[-1] == f"[runyard] {(tmp_path / 'error').read_text()}"


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (answer(b'["\\ud800"]', "200 OK", JSON), "the answer holds a lone surrogate"),
        (answer(b"[1e999]", "200 OK", JSON), "the answer makes no output: "),
        (answer(b"\x01" * 300_000), "the answer makes no output: output of 1,800,0"),
        (answer(b'"' * MIB), "the answer makes no output: output of 2,097,"),
    ],
)
def test_an_answer_that_makes_no_output_fails(said: bytes, error: str, tmp_path: Path) -> None:
    with serving(said) as server:
        assert run(job(server, tmp_path)) == 1
    assert error in (tmp_path / "error").read_text()
    assert not (tmp_path / "output").exists()
