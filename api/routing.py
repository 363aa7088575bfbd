"""Routes that declare who may call them; a route without a declaration cannot be made.

The declaration sits on the route object and is looked at before anything of the request is read.  No decision is ever
made from the text of a path: what the router matched decides, and where it matches nothing a key is still asked for.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args, get_origin

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.websockets import WebSocketClose

from api.auth import Scope
from api.credentials import Credential, hash_of, shown
from api.problems import BODY_MALFORMED, BODY_TOO_LARGE, INVALID, UNSUPPORTED_MEDIA, Refused
from dag import document
from dag.errors import DocumentInvalid, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from pydantic import BaseModel
    from starlette.responses import Response
    from starlette.types import Receive, Send
    from starlette.types import Scope as Asgi

    from api.auth import Authenticator, Caller
    from api.credentials import Tickets

#: Anybody may call it; the test of the route table has the literal list.
PUBLIC: Final = "public"

_JSON: Final = ("application/json",)
_SAFE: Final = frozenset({"GET", "HEAD"})
_UTF_8: Final = frozenset({"utf-8", "utf8"})
_CALL: Final = "x-call"
#: The codes of :func:`dag.document.read` for what is not even the language it says it is.
_MALFORMED: Final = frozenset({"not_json", "not_yaml", "not_utf8", "empty_document"})
#: Longer bodies are parsed beside the event loop.
_LONG: Final = 16 * 1024

#: What a call asks of its caller: an API key with a scope, a credential of a worker, or nothing.
Need = Scope | Credential | Literal["public"]
Endpoint = TypeVar("Endpoint", bound="Callable[..., Awaitable[Response]]")


class BoundedRequest(Request):
    """A request whose body has an end, and whose JSON is what :func:`dag.document.read` takes for JSON."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            most = self.scope["route"].call.most
            whole = bytearray()
            async for chunk in self.stream():
                whole += chunk
                if len(whole) > most:
                    raise too_large(most)
            self._body = bytes(whole)
        return self._body

    async def json(self) -> Any:
        raw = await self.body()
        return await asyncio.to_thread(parse, raw, "json") if len(raw) > _LONG else parse(raw, "json")


def too_large(most: int) -> Refused:
    return Refused(BODY_TOO_LARGE, f"A body may have {most:,} bytes.")


def parse(raw: bytes, media: Literal["json", "yaml"]) -> dict[str, Any]:
    """Return the object in *raw*; refuse what is not one."""
    try:
        return document.read(raw, media=media)
    except DocumentInvalid as error:
        first = error.problems[0]
        kind = BODY_MALFORMED if first.code in _MALFORMED else INVALID
        raise Refused(kind, first.message, problems=error.problems) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What a call declares: who may make it, what it reads, what it answers."""

    needs: Need
    #: The media types of its body.
    media: tuple[str, ...] = _JSON
    #: The most bytes that its body may have.
    most: int = document.MAX_BYTES
    #: The model of a JSON body that the endpoint reads itself (:func:`api.reading.read`).
    reads: type[BaseModel] | None = None
    #: The status and the model of its answer; a text is the media type of an answer without a model.
    gives: tuple[int, type[BaseModel] | str | None]
    #: The media type of the stream it can answer instead.
    streams: str | None = None
    #: An answer, ready to be pasted.
    example: Any = None
    #: Other answers that are no problems, by status: what they mean.
    also: dict[int, str] = field(default_factory=dict)
    #: The headers of its answer: what they mean.
    headers: dict[str, str] = field(default_factory=dict)
    #: The statuses of its problems.
    fails: tuple[int, ...] = ()
    #: The body, where FastAPI cannot know it.
    body: dict[str, Any] | None = None


class Route(APIRoute):
    """A route with a declared need, a declared body type and known query parameters."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        call = (self.openapi_extra or {}).pop(_CALL, None)
        if not isinstance(call, Call) or not (call.needs == PUBLIC or isinstance(call.needs, Scope | Credential)):
            msg = f"{sorted(self.methods or ())} {path} does not declare who may call it"
            raise TypeError(msg)
        self.call: Final = call
        self.answers: Final = frozenset(self.methods or ())
        self.needs: Final = None if call.needs == PUBLIC else call.needs
        self.media: Final = call.media
        #: The names of its query parameters, and whether each may be given several times.
        self._query: Final = _query_parameters(self)

    async def handle(self, scope: Asgi, receive: Receive, send: Send) -> None:
        """Authenticate, authorise, and refuse what the route cannot read; only then go on."""
        request = Request(scope)
        method = scope["method"]
        if method not in self.answers:
            await authenticate(request)
            raise HTTPException(status_code=405)
        if isinstance(self.needs, Credential):
            await _recognise(request, self.needs)
        elif self.needs is not None:
            caller = await authenticate(request)
            caller.require(self.needs)
        if method not in _SAFE:
            self._check_media(request)
        self._check_query(request)
        await self.app(scope, receive, send)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            return await handle(BoundedRequest(request.scope, request.receive))

        return bounded

    def _check_media(self, request: Request) -> None:
        headers = request.headers
        given = headers.get("content-type")
        if given is None and request.method == "DELETE":
            return
        if given is None or given.partition(";")[0].strip().lower() not in self.media:
            raise Refused(
                UNSUPPORTED_MEDIA,
                f"This call reads {' or '.join(self.media)}, not {given or 'a body without a Content-Type'}.",
                headers={"Accept": ", ".join(self.media)},
                hint=f"Send Content-Type: {self.media[0]}; an empty body is {{}}.",
            )
        if (charset := _charset(given or "")) not in _UTF_8:
            raise Refused(UNSUPPORTED_MEDIA, f"A body is read as UTF-8, not as {charset[:40]!r}.")
        if headers.get("content-encoding", "identity") != "identity":
            raise Refused(UNSUPPORTED_MEDIA, "A body is read as it is: no Content-Encoding.")

    def _check_query(self, request: Request) -> None:
        if not request.scope["query_string"]:
            return
        unknown = [name for name in request.query_params if name not in self._query]
        if unknown:
            known = ", ".join(sorted(self._query))
            raise Refused(
                INVALID,
                f"There is no query parameter {unknown[0]!r} here.",
                problems=[
                    Problem(
                        pointer=f"/query/{name}",
                        code="unknown_parameter",
                        message=f"There is no query parameter {name!r} here.",
                        hint=f"Known here: {known}." if known else "This call takes none.",
                    )
                    for name in unknown
                ],
            )
        counts = Counter(name for name, _ in request.query_params.multi_items())
        repeated = [name for name, count in counts.items() if count > 1 and not self._query[name]]
        if repeated:
            problems = [
                Problem(
                    pointer=f"/query/{name}",
                    code="repeated_parameter",
                    message=f"The query parameter {name!r} is given {counts[name]} times, and has one value.",
                    hint="Give it once.",
                )
                for name in repeated
            ]
            raise Refused(INVALID, problems[0].message, problems=problems)


class Router(APIRouter):
    """A router of :class:`Route` objects."""

    def __init__(self, *, tags: list[str] | None = None, prefix: str = "") -> None:
        super().__init__(prefix=prefix, tags=[*(tags or [])], route_class=Route, redirect_slashes=False)

    def call(  # noqa: PLR0913  # one argument a fact about the call
        self,
        method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"],
        path: str,
        *,
        needs: Need,
        gives: tuple[int, type[BaseModel] | str | None],
        summary: str,
        reads: type[BaseModel] | None = None,
        most: int = document.MAX_BYTES,
        fails: tuple[int, ...] = (),
        also: dict[int, str] | None = None,
        example: Any = None,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        media: tuple[str, ...] = _JSON,
        streams: str | None = None,
    ) -> Callable[[Endpoint], Endpoint]:
        """Register a call.  Its docstring is its description.

        Answers are written by the schemas and not validated again; the models of *gives* become components of the
        document when somebody first asks for it (:mod:`api.docs`), so that a start does not pay for them.
        """
        call = Call(
            needs=needs,
            media=media,
            most=most,
            reads=reads,
            gives=gives,
            example=example,
            also=also or {},
            headers=headers or {},
            fails=tuple(_failures(method, needs, fails)),
            body=body,
            streams=streams,
        )

        def register(endpoint: Endpoint) -> Endpoint:
            self.add_api_route(
                path,
                endpoint,
                methods=[method],
                summary=summary,
                status_code=gives[0],
                response_model=None,
                operation_id=endpoint.__name__,
                openapi_extra={_CALL: call},
            )
            return endpoint

        return register


def _failures(method: str, needs: str, fails: tuple[int, ...]) -> list[int]:
    always = {500, 503} if needs == PUBLIC else {401, 403, 500, 503}
    mutation = {400, 413, 415, 422} if method in {"POST", "PUT", "PATCH"} else set()
    return sorted(always | mutation | set(fails))


def _charset(media: str) -> str:
    """Return the charset of a media type, lower case; ``utf-8`` where it names none."""
    for parameter in media.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower()
    return "utf-8"


def _query_parameters(route: APIRoute) -> dict[str, bool]:
    names: dict[str, bool] = {}
    waiting = [route.dependant]
    while waiting:
        dependant = waiting.pop()
        names |= {field.alias: _is_list(field.field_info.annotation) for field in dependant.query_params}
        waiting += dependant.dependencies
    return names


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(get_origin(one) is list for one in get_args(annotation))


async def authenticate(request: Request) -> Caller:
    """Return the caller, found once a request."""
    state = request.state
    if (caller := getattr(state, "caller", None)) is None:
        authenticator: Authenticator = request.app.state.authenticator
        caller = state.caller = await authenticator.caller(request.headers)
    return caller


async def _recognise(request: Request, wanted: Credential) -> None:
    """Keep the hash of the credential that was shown; a ticket is checked at once, it says all by itself."""
    text = shown(request.headers, wanted)
    if wanted is Credential.TICKET:
        tickets: Tickets = request.app.state.tickets
        await tickets.check(request.path_params["attempt_id"], text)
    else:
        request.state.shown = hash_of(text)


async def nowhere(scope: Asgi, receive: Receive, send: Send) -> None:
    """Answer what no route matches: to a caller with a key a 404, to everybody else a 401."""
    if scope["type"] == "websocket":
        await WebSocketClose()(scope, receive, send)
        return
    await authenticate(Request(scope))
    raise HTTPException(status_code=404)
