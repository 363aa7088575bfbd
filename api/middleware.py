"""What surrounds every request: its id, who it is addressed to, where it comes from, its measure, and the last resort.

One pure ASGI middleware: anything that wraps requests in tasks of its own costs more than the rest of the path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import structlog
from starlette.datastructures import Headers, MutableHeaders

from api.problems import CROSS_ORIGIN, HOST_MALFORMED, HOST_NOT_ALLOWED, INTERNAL, Refused, respond
from dag.ids import new_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Send
    from starlette.types import Scope as Asgi

    from api.metrics import Meters
    from api.settings import ApiSettings
    from dag.world import Clock, Entropy

log = structlog.get_logger(__name__)

#: On every answer; an answer that needs less strict ones sets its own.
SECURITY_HEADERS: Final = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_AUTHORITY: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?", re.ASCII)


class Envelope:
    """The outermost part that is ours."""

    def __init__(self, app: ASGIApp, *, settings: ApiSettings, clock: Clock, entropy: Entropy, meters: Meters) -> None:
        self._app = app
        self._allowed = frozenset(name.lower() for name in settings.allowed_hosts)
        self._clock = clock
        self._entropy = entropy
        self._meters = meters

    async def __call__(self, scope: Asgi, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id(self._clock, self._entropy)
        scope.setdefault("state", {})["request_id"] = request_id
        began = self._clock.monotonic()
        status = 0

        async def dress(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers["request-id"] = request_id
            await send(message)

        try:
            try:
                self._admit(Headers(scope=scope))
                await self._app(scope, receive, dress)
            except Refused as refused:
                answer = respond(request_id, refused.kind, refused.detail, hint=refused.hint)
                await answer(scope, receive, dress)
            except Exception:
                log.exception("request failed", request_id=request_id, route=_template(scope))
                if status:
                    raise  # too late for another answer; the server cuts the connection, so nobody takes it for whole
                answer = respond(request_id, INTERNAL, "The failure was logged under this answer's instance.")
                await answer(scope, receive, dress)
        finally:
            self._meters.count(scope["method"], _template(scope), status, self._clock.monotonic() - began)

    def _admit(self, headers: Headers) -> None:
        """Refuse what is addressed to somebody else (DNS rebinding) and what another website sends."""
        hosts = headers.getlist("host")
        found = _AUTHORITY.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            raise Refused(HOST_MALFORMED, "A request has exactly one Host header: a name or an address, and a port.")
        host = hosts[0].lower()
        if host not in self._allowed and found[1].lower() not in self._allowed:
            raise Refused(HOST_NOT_ALLOWED, "The Host header names another service.")
        origins = headers.getlist("origin")
        if any(origin.lower() not in (f"http://{host}", f"https://{host}") for origin in origins):
            raise Refused(CROSS_ORIGIN, "The Origin header names another website.")
        if headers.get("sec-fetch-site") == "cross-site" and not _is_visit(headers):
            raise Refused(CROSS_ORIGIN, "The browser says that another website sends this.")


def _is_visit(headers: Headers) -> bool:
    """Whether a person follows a link: a top-level navigation carries no key and its answer is shown to nobody else."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"


def _template(scope: Asgi) -> str:
    """Return the template of the matched route: what metrics and logs may know of a path."""
    route = scope.get("route")
    return "none" if route is None else route.path
