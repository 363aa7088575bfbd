"""An ``http`` task: one request, made by a process of its own below the zygote, so that a cancel and a timeout end it.

The zygote executes ``python -I -S .../http_task.py`` with the job as the standard input: a request holds credentials,
and arguments are for all to see.  The interpreter is Runyard's own, isolated from everything the tasks have installed.

What is said in the log and in the error names the request without its credentials: no header, no value of the query, no
part of the path that looks like a secret, and no secret that the answer repeats.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # At the end: the standard library comes first, whatever lies beside this package.
    sys.path.append(__file__.rpartition("/worker/")[0])

import contextlib
import http.client
import json
import os
import re
import ssl
import time
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote

from worker import VERSION, guard, output, runner
from worker.http_wire import Wire, connect
from worker.protocol import MAX_DEPTH, MAX_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.guard import Resolve, Rules, Target
    from worker.protocol import HttpBody

#: Of an answer that failed, in bytes read and in characters told.
_GLANCE: Final = 4096
_TOLD: Final = 300
#: A wait that ends so shortly before its deadline has ended with it.
_CLOSE: Final = 0.1
_ODD: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_VALUE: Final = re.compile("[\t\x20-\x7e]*")
_SENSITIVE: Final = re.compile("auth|cookie|credential|key|pass|secret|session|sign|token", re.IGNORECASE)
#: The shortest value that is masked where an answer repeats it; a shorter one would mask half of the text.
_SHORTEST_SECRET: Final = 4
#: A long part of a path that is no UUID: the address of a webhook is its password.
_SECRET_PART: Final = re.compile(
    r"(?:(?<=[^/]/)|(?<=^/))(?![0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?:[/?#]|$))[^/?#]{20,}"
)
#: Charsets that a body may say it has; codecs of Python that decode no text, or slowly, are not among them.
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1", "latin-1", "iso-8859-15", "windows-1252"})


class Failed(Exception):
    """The task fails; the text is its error."""


def perform(request: HttpBody, rules: Rules, *, limit: float, resolve: Resolve | None = None) -> dict[str, Any]:
    """Make *request* within *limit* seconds; return the output, or raise :exc:`Failed`."""
    deadline = time.monotonic() + limit
    try:
        return _perform(request, rules, deadline, resolve)
    except guard.Refused as error:
        raise Failed(str(error)) from None
    except TimeoutError:
        if time.monotonic() < deadline - _CLOSE:
            raise Failed(f"{_shown(request)}: no connection in time; is a firewall between?") from None
        raise Failed(
            f"{_shown(request)} took longer than {limit:g} s; execution_timeout says how long it may take"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise Failed(
            f"{_shown(request)}: the certificate is not trusted: {error.verify_message.rstrip('.')}; "
            "where it is right, name its authority by SSL_CERT_FILE in env"
        ) from None
    except ssl.SSLError as error:
        raise Failed(f"{_shown(request)}: TLS failed: {error.reason or error}") from None
    except http.client.RemoteDisconnected:
        raise Failed(f"{_shown(request)}: the connection was closed without an answer") from None
    except http.client.IncompleteRead:
        raise Failed(f"{_shown(request)}: the answer broke off in its body") from None
    except http.client.HTTPException as error:
        raise Failed(
            f"{_shown(request)}: the answer is not HTTP: {type(error).__name__}: {_plain(str(error), _TOLD)}"
        ) from None
    except OSError as error:
        raise Failed(f"{_shown(request)}: {error.strerror or error}") from None


def _perform(request: HttpBody, rules: Rules, deadline: float, resolve: Resolve | None) -> dict[str, Any]:
    to = guard.target(_whole(request), rules)
    headers, body = _prepare(request, to)
    found = guard.addresses(to, rules, *([resolve] if resolve else ()))
    began = time.monotonic()
    wire = connect(to, found, deadline)
    try:
        _say(f"{_shown(request)} at {wire.address} port {to.port}, {len(body or b''):,} bytes")
        answer = _exchange(wire, request["method"], to, headers, body)
        try:
            return _read(answer, request)
        finally:
            took = time.monotonic() - began
            _say(f"{_status(answer)}, {_type(answer) or 'no type'}, after {took:.3f} s")
    finally:
        wire.shut()


def _whole(request: HttpBody) -> str:
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in request["query"].items())
    if not query:
        return request["url"]
    return f"{request['url']}{'&' if '?' in request['url'] else '?'}{query}"


def _prepare(request: HttpBody, to: Target) -> tuple[dict[str, str], bytes | None]:
    """Return the headers and the body to send."""
    headers = {
        "Host": to.authority,
        "User-Agent": f"Runyard/{VERSION}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    body: bytes | None = None
    if "json" in request:
        body = json.dumps(request["json"], ensure_ascii=False, separators=(",", ":")).encode()
        headers["Content-Type"] = "application/json"
    elif "body" in request:
        body = request["body"].encode()
        headers["Content-Type"] = "text/plain; charset=utf-8"
    if body is not None or request["method"] in ("POST", "PUT", "PATCH"):
        headers["Content-Length"] = str(len(body or b""))
    usual = {name.lower(): name for name in headers}
    for name, value in request["headers"].items():
        if not _VALUE.fullmatch(value):
            raise Failed(f"http.headers: {name} has a value with a line break or a character that is not ASCII")
        headers.pop(usual.get(name.lower(), ""), None)
        headers[name] = value.strip()
    return headers, body


def _exchange(
    wire: Wire, method: str, to: Target, headers: Mapping[str, str], body: bytes | None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("")
    connection.sock = wire  # it is connected: the class opens nothing, and knows no proxy
    connection.putrequest(method, to.resource, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it had all
        connection.endheaders(body)
    return connection.getresponse()


def _read(answer: http.client.HTTPResponse, request: HttpBody) -> dict[str, Any]:
    """Return the output that *answer* makes, or raise :exc:`Failed`."""
    status, place = answer.status, answer.headers.get("Location")
    said = f"{_shown(request)} was answered {_status(answer)}"
    if 300 <= status < 400 and place is not None:  # noqa: PLR2004  the class of redirects
        where = _plain(_masked(_without_secrets(place), request), _TOLD)
        raise Failed(f"{said}, which leads to {where}; redirects are not followed: request the last address itself")
    if not 200 <= status < 300:  # noqa: PLR2004  the class of success
        told = _plain(_masked(_glance(answer), request), _TOLD)
        raise Failed(f"{said}: {told}" if told else f"{said}, without a body")
    data = answer.read(MAX_OUTPUT + 1)
    if len(data) > MAX_OUTPUT:
        raise Failed(f"{said} with more than {MAX_OUTPUT:,} bytes, which no output holds; ask for less")
    if answer.length:
        raise Failed(f"{said} and broke off: {answer.length:,} bytes of the body are missing")
    coding = answer.headers.get("Content-Encoding", "identity")
    if data and coding.strip().lower() not in ("", "identity"):
        raise Failed(f"{said}, encoded as {_plain(coding, 40)} although that was not accepted")
    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else str(value)
    return {"status": status, "headers": headers, "body": _body(answer, data, said)}


def _glance(answer: http.client.HTTPResponse) -> str:
    try:
        return answer.read1(_GLANCE).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""  # the status is what counts


def _body(answer: http.client.HTTPResponse, data: bytes, said: str) -> Any:
    media = _type(answer)
    if not re.fullmatch(r"(?:application|text)/(?:[^;\s]+\+)?json", media):
        charset = (answer.headers.get_content_charset() or "utf-8").lower()
        return data.decode(charset if charset in _CHARSETS else "utf-8", "replace")
    if not data.strip():
        return None
    if runner.depth(data) >= MAX_DEPTH:
        raise Failed(f"{said} with JSON that nests too deeply; an output has at most {MAX_DEPTH} levels")
    try:
        return json.loads(data, parse_constant=_no_constant)
    except ValueError as error:
        raise Failed(f"{said} as {media}, and the body is not JSON: {_plain(str(error), _TOLD)}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _status(answer: http.client.HTTPResponse) -> str:
    return f"{answer.status} {_plain(answer.reason, 80)}".rstrip()


def _type(answer: http.client.HTTPResponse) -> str:
    return _plain(answer.headers.get("Content-Type", "").partition(";")[0].strip().lower(), 80)


def _shown(request: HttpBody) -> str:
    return f"{request['method']} {_masked(_without_secrets(_whole(request)), request)}"


def _without_secrets(url: str) -> str:
    """Return *url* without what is usually secret in one: user, query, long parts of the path."""
    bare, query, _ = url.partition("#")[0].partition("?")
    bare = re.sub("//[^/]*@", "//…@", bare)
    return _SECRET_PART.sub("…", bare) + ("?…" if query else "")


def _masked(text: str, request: HttpBody) -> str:
    """Return *text* with the credentials of *request* replaced: some servers repeat what they were sent."""
    given = [*request["headers"].items(), *request["query"].items()]
    secrets = {value.strip() for name, value in given if _SENSITIVE.search(name)}
    secrets |= {secret.partition(" ")[2].strip() for secret in secrets}  # ``Bearer …``
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def _plain(text: str, most: int) -> str:
    """Return *text* as one short line that no terminal obeys."""
    line = " ".join(_ODD.sub(" ", text).split())
    return line if len(line) <= most else f"{line[:most]}…"


def _say(text: str) -> None:
    sys.stdout.write(f"[runyard] {text}\n")
    sys.stdout.flush()


def run(job: Mapping[str, Any]) -> int:
    """Run the job; leave an output or an error where the agent looks for them, and return the exit code."""
    try:
        rules = guard.Rules.read(job["allow"], job["ports"])
        value = perform(job["http"], rules, limit=job["limit"])
        data = _encoded(value, job["http"])
        _leave(job["output"], data)
    except Failed as error:
        _say(str(error))
        _leave(job["error"], str(error).encode("utf-8", "backslashreplace"))
        return 1
    return 0


def _encoded(value: Any, request: HttpBody) -> bytes:
    try:
        data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        output.check(data)
    except UnicodeEncodeError:
        raise Failed(f"{_shown(request)}: the answer holds a lone surrogate, which is no text") from None
    except (output.OutputInvalid, ValueError) as error:
        raise Failed(f"{_shown(request)}: the answer makes no output: {error}") from None
    return data


def _leave(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123  a descriptor has no path
        file.write(data)


def main() -> int:
    """Be the task whose job is on the standard input."""
    with open(0, "rb", closefd=False) as file:
        job = json.loads(file.read())
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]  # both are files
    return run(job)


if __name__ == "__main__":
    sys.exit(main())
