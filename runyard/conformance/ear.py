"""Listens at the API: counts what workers say, and loses answers on command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from runyard.conformance.service import Service

_CALLS: Final = re.compile(
    r"/worker/v1/(?:attempts/[^/]+/(?P<attempt>start|finish|logs|output|heartbeat)|"
    r"(?P<register>workers)|workers/(?P<worker>[^/]+)/(?P<beat>heartbeat))"
)


class Ear:
    """An ASGI application around the API."""

    def __init__(self, app: ASGIApp | None, service: Service) -> None:
        assert app is not None  # noqa: S101  # it is made just before
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind, worker_id = self._kind(scope)
        tenant = self._service.tenant
        if kind is None or tenant is None:
            await self._app(scope, receive, send)
            return
        tenant.heard[kind] += 1
        if worker_id is not None:
            tenant.beats[worker_id] += 1
        status: list[int] = []

        async def lose(message: Message) -> None:
            if message["type"] == "http.response.start":
                status.append(message["status"])
            if not (status and status[0] < 300 and tenant.lose_answers[kind] > 0):  # noqa: PLR2004  # what HTTP calls a success
                await send(message)

        await self._app(scope, receive, lose)
        if status and status[0] < 300 and tenant.lose_answers[kind] > 0:  # noqa: PLR2004  as above
            tenant.lose_answers[kind] -= 1
            # What it said is done; the connection ends before it hears so.
            self._service.gate.cut_from(scope["client"][1])
            await _shrug(send)

    def _kind(self, scope: Any) -> tuple[str | None, str | None]:
        """Return what is called, and the worker whose heartbeat it is."""
        found = _CALLS.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if found is None or (found["register"] and scope["method"] != "POST"):
            return None, None
        if found["register"]:
            return "register", None
        return found["attempt"] or found["beat"], found["worker"]


async def _shrug(send: Send) -> None:
    """Answer into a connection that is gone: the server wants one."""
    await send({"type": "http.response.start", "status": 500, "headers": []})
    await send({"type": "http.response.body", "body": b""})
