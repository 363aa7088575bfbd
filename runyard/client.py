"""A small HTTP client of the API: what the command line is made of.

Every mutation carries an ``Idempotency-Key`` and is sent again with it when the connection is lost, so that a command
has one effect however bad the moment.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

import httpx

from dag.ids import new_id
from runyard import home
from runyard.exits import Exit, Stop
from runyard.settings import LOOPBACK, ClientSettings
from runyard.world import SystemClock, SystemEntropy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dag.world import Clock, Entropy

#: How long a service that never answered is asked again, and one that did: it is restarting.
_PATIENCE_AT_FIRST: Final = 1.0
PATIENCE: Final = 30.0
_PAUSE: Final = 0.25
_TIMEOUT: Final = httpx.Timeout(30, connect=5)
#: Streams say at least every 15 s that they are alive.
_SILENCE: Final = 60.0
_SILENT: Final = httpx.Timeout(_SILENCE, connect=5)
_PAGE: Final = 200
_SERVER_ERROR: Final = 500

_EXITS: Final = {
    400: Exit.INVALID,
    401: Exit.REFUSED,
    403: Exit.REFUSED,
    404: Exit.NOT_FOUND,
    409: Exit.CONFLICT,
    412: Exit.CONFLICT,
    413: Exit.INVALID,
    415: Exit.INVALID,
    421: Exit.REFUSED,
    422: Exit.INVALID,
    429: Exit.UNAVAILABLE,
}
_LATER: Final = frozenset({429, 503})


class Refusal(Stop):
    """The service answered with a problem; *problem* is its document (RFC 9457)."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        code = _EXITS.get(status, Exit.UNAVAILABLE if status >= _SERVER_ERROR else Exit.INVALID)
        super().__init__(code, _sentence(status, problem), str(problem.get("hint", "")))
        self.status = status
        listed = problem.get("errors")
        self.problems = listed if isinstance(listed, list) else ()


@dataclass(frozen=True, slots=True)
class Event:
    """One message of an event stream."""

    id: str
    kind: str
    data: Mapping[str, Any]


class Api:
    """The API of one service, with one key.  Safe to use from several threads."""

    def __init__(self, url: str, key: str, *, clock: Clock, entropy: Entropy) -> None:
        self.url = url.rstrip("/")
        self._clock = clock
        self._entropy = entropy
        self._met = False
        # A proxy is for other hosts; the key is for this one.
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "runyard-cli"},
            timeout=_TIMEOUT,
            trust_env=urlsplit(url).hostname not in LOOPBACK,
        )

    def get(self, path: str, **query: object) -> Any:
        """Return what a GET answers."""
        return self.call("GET", path, query=query).json()

    def send(self, method: str, path: str, body: object = None, *, key: str | None = None, **query: object) -> Any:
        """Return what a mutation answers, None where it answers nothing; *key* is its idempotency key."""
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        answer = self.call(method, path, json.dumps({} if body is None else body).encode(), headers, query)
        return answer.json() if answer.content else None

    def items(self, path: str, limit: int, **query: object) -> list[Any]:
        """Return the first *limit* items of a collection, over as many pages as that takes."""
        items: list[Any] = []
        cursor: str | None = None
        while len(items) < limit:
            page = self.get(path, limit=min(_PAGE, limit - len(items)), cursor=cursor, **query)
            items += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return items

    def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, object] | None = None,
    ) -> httpx.Response:
        """Send one request until it is answered, or Stop.  A mutation has one effect however often it is sent."""
        sent = dict(headers or {})
        if method != "GET":
            sent.setdefault("Idempotency-Key", new_id(self._clock, self._entropy))
        request = self._http.build_request(method, path, content=body, headers=sent, params=_given(query))
        since = self._clock.monotonic()
        while True:
            pause = _PAUSE
            try:
                answer = self._http.send(request)
            except httpx.TransportError as error:
                if self._clock.monotonic() - since > (PATIENCE if self._met else _PATIENCE_AT_FIRST):
                    raise self.unreachable(error) from None
            else:
                self._met = True
                if answer.status_code not in _LATER or self._clock.monotonic() - since > PATIENCE:
                    return _accepted(answer)
                pause = _wait_of(answer)
            time.sleep(pause)

    def events(self, path: str, after: str | None, patience: float = _SILENCE) -> Iterator[Event]:
        """Yield the messages of an event stream after the one with id *after*, until it ends or breaks.

        It breaks, with an :exc:`httpx.TransportError`, also when nothing came for *patience* seconds.
        """
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        timeout = httpx.Timeout(min(patience, _SILENCE), connect=5)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as answer:
            self._check_stream(answer)
            kind, name, data = "message", "", []
            for line in answer.iter_lines():
                field, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if field == "id":
                    name = value
                elif field == "event":
                    kind = value
                elif field == "data":
                    data.append(value)
                elif not line:
                    if data:
                        yield Event(name, kind, json.loads("\n".join(data)))
                    kind, data = "message", []

    def text(self, path: str, **query: object) -> Iterator[str]:
        """Yield a text in pieces as they come; after a lost connection go on where it broke off."""
        had, heard = 0, self._clock.monotonic()
        while True:
            skip = had
            try:
                with self._http.stream("GET", path, params=_given(query), timeout=_SILENT) as answer:
                    self._check_stream(answer)
                    for piece in answer.iter_text():
                        heard = self._clock.monotonic()
                        new, skip = piece[skip:], max(0, skip - len(piece))
                        had += len(new)
                        yield new
                    return
            except httpx.TransportError as error:
                if self._clock.monotonic() - heard > (PATIENCE if self._met else _PATIENCE_AT_FIRST):
                    raise self.unreachable(error) from None
            time.sleep(_PAUSE)

    def unreachable(self, error: Exception) -> Stop:
        """Return the Stop for a service that does not answer."""
        return Stop(
            Exit.UNREACHABLE,
            f"No answer from {self.url}: {error or type(error).__name__}.",
            "is it running (runyard standalone)? RUNYARD_API_URL says where it is looked for",
        )

    def close(self) -> None:
        self._http.close()

    def _check_stream(self, answer: httpx.Response) -> None:
        self._met = True
        if not answer.is_success:
            answer.read()
            _accepted(answer)


def _is_readable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and "@" not in url
    except ValueError:  # its text quotes what may be a part of a password
        return False


def connect(clock: Clock | None = None, entropy: Entropy | None = None) -> Api:
    """Return the API that the environment names, with the key that it names or that lies in the home folder."""
    settings = ClientSettings.read()
    key = settings.api_key.get_secret_value() if settings.api_key else home.read_key(settings.home)
    if key is None:
        raise Stop(
            Exit.REFUSED,
            f"There is no API key: RUNYARD_API_KEY is not set and {home.key_path(settings.home)} does not exist.",
            "set RUNYARD_API_KEY, or RUNYARD_HOME to the home folder of the service",
        )
    if not key.isascii() or not key.isprintable() or not key.strip():
        raise Stop(Exit.REFUSED, "The API key has characters that no key has.", "check RUNYARD_API_KEY or admin.key")
    if not _is_readable(settings.api_url):
        raise Stop(
            Exit.USAGE,
            "RUNYARD_API_URL cannot be used: it must be like http://127.0.0.1:8080, without a user and a password.",
            "the key is RUNYARD_API_KEY",
        )
    return Api(settings.api_url, key.strip(), clock=clock or SystemClock(), entropy=entropy or SystemEntropy())


def path_of(*parts: str) -> str:
    """Return the API path of *parts*, each one segment whatever it contains."""
    return "/api/v1/" + "/".join(_segment(part) for part in parts)


def _segment(part: str) -> str:
    # "." and ".." would be taken for steps on the way, by us or by what lies between.
    return quote(part, safe="~:+") if part.strip(".") else part.replace(".", "%2E")


def _given(query: Mapping[str, object] | None) -> httpx.QueryParams:
    """Return *query* as httpx wants it, without what was not given."""
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in (query or {}).items():
        if isinstance(value, list | tuple):
            pairs += [(name, str(one)) for one in value]
        elif value is not None:
            pairs.append((name, str(value).lower() if isinstance(value, bool) else str(value)))
    return httpx.QueryParams(pairs)


def _accepted(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    raise Refusal(answer.status_code, problem if isinstance(problem, dict) else {})


def _sentence(status: int, problem: Mapping[str, Any]) -> str:
    said = problem.get("detail") or problem.get("title")
    return str(said) if said else f"The service answered with status {status}; is it Runyard?"


def _wait_of(answer: httpx.Response) -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), PATIENCE) if asked.isdigit() else _PAUSE
