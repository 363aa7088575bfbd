"""RFC 9457 problems: one table from the error tree to HTTP, and one writer of problem documents.

A new leaf of :mod:`dag.errors` costs nothing: it answers as the branch it hangs on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from dag import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem."""

    status: int
    #: Stable; clients branch on it.
    code: str
    title: str
    #: Whether the same request may work later, unchanged.
    retryable: bool = False
    #: The way out, where it does not depend on the case.
    hint: str = ""


#: What the layers below raise.
BY_ERROR: Final[dict[type[errors.RunyardError], Kind]] = {
    errors.NotFound: Kind(
        404, "not_found", "Nothing of that name", hint="Check the name, and that your key's DAG prefix covers it."
    ),
    errors.AlreadyExists: Kind(
        409,
        "already_exists",
        "The name is taken",
        hint="Choose another name. To repeat a request safely, send the same Idempotency-Key with every try.",
    ),
    errors.IllegalStep: Kind(
        409, "illegal_step", "Not possible in this state", hint="Look at its state: what has ended can only be cleared."
    ),
    errors.StillActive: Kind(
        409,
        "still_active",
        "Something of it is still running",
        retryable=True,
        hint="Wait for it to end, or cancel it.",
    ),
    errors.RevisionMismatch: Kind(
        412,
        "revision_mismatch",
        "It changed since you read it",
        hint="Read it again, apply your change to what is there now, and send the new ETag as If-Match.",
    ),
    errors.KeyReused: Kind(
        422,
        "idempotency_key_reused",
        "The Idempotency-Key belongs to another request",
        hint="Use a new key for a new request; repeat a request with exactly the same method, path, query and body.",
    ),
    errors.Conflict: Kind(409, "conflict", "It clashes with what is there now", hint="Look at what is there now."),
    errors.DocumentInvalid: Kind(
        422, "document_invalid", "The DAG document cannot be accepted", hint="Mend what `errors` lists; it is complete."
    ),
    errors.Invalid: Kind(
        422, "invalid", "The request is not acceptable", hint="Mend what `errors` lists; it is complete."
    ),
    errors.Forbidden: Kind(
        403, "forbidden", "Your key may not do this", hint="Use a key with the scope that this call needs: see /docs."
    ),
    errors.BadCredential: Kind(
        401,
        "bad_credential",
        "The credential is not the one that this call needs",
        hint="API keys open /api/v1 and the registration of workers; a ticket opens the start of its attempt, an "
        "attempt key what belongs to its attempt, a worker token what belongs to its worker.",
    ),
    errors.Gone: Kind(410, "gone", "It is over for good", hint="Do not ask again: nothing will change it."),
    errors.Unavailable: Kind(
        503, "unavailable", "Not possible at the moment", retryable=True, hint="Send the same request again soon."
    ),
}

UNAUTHENTICATED: Final = Kind(
    401, "unauthenticated", "A valid API key is needed", hint="Send the header Authorization: Bearer runyard_…."
)
BODY_MALFORMED: Final = Kind(
    400, "body_malformed", "The body cannot be read", hint="Send what the Content-Type says, in UTF-8."
)
HOST_NOT_ALLOWED: Final = Kind(
    421,
    "host_not_allowed",
    "This service is not known by that name",
    hint="Add the name to RUNYARD_ALLOWED_HOSTS if this service is meant to be reached by it.",
)
HOST_MALFORMED: Final = Kind(
    400, "host_malformed", "The Host header cannot be read", hint="Send exactly one: a name or an address, and a port."
)
CROSS_ORIGIN: Final = Kind(
    403, "cross_origin", "Requests from other websites are refused", hint="Call the API from a server or a program."
)
ROUTE_NOT_FOUND: Final = Kind(404, "route_not_found", "There is no such path", hint="The paths are listed at /docs.")
METHOD_NOT_ALLOWED: Final = Kind(
    405, "method_not_allowed", "Not a method of this path", hint="The header Allow has its methods."
)
PRECONDITION_FAILED: Final = Kind(
    412, "precondition_failed", "The precondition does not hold", hint="Look at If-Match and If-None-Match."
)
BODY_TOO_LARGE: Final = Kind(
    413,
    "body_too_large",
    "The body is too large",
    hint="Keep large data out of requests: tasks read files and databases, params carry names.",
)
UNSUPPORTED_MEDIA: Final = Kind(
    415,
    "unsupported_media_type",
    "The body's type is not accepted here",
    hint="Send Content-Type: application/json; an empty body is {}.",
)
INVALID: Final = BY_ERROR[errors.Invalid]
BAD_CURSOR: Final = Kind(
    422,
    "bad_cursor",
    "The cursor is not of this listing",
    hint="Start again without a cursor; pass next_cursor back as it came, with the same filters and the same key.",
)
TOO_MANY_STREAMS: Final = Kind(
    429, "too_many_streams", "Too many open streams", retryable=True, hint="Close some, or try again later."
)
NO_ATTEMPT: Final = Kind(
    404, "no_attempt", "The task has no such attempt", hint="An attempt has a log once it was queued."
)
LOG_NOT_HERE: Final = Kind(
    404,
    "log_not_here",
    "The log is not in this API's log store",
    hint="RUNYARD_LOG_STORE must be one folder that the API and all schedulers share; or somebody removed the log.",
)
BAD_CREDENTIAL: Final = BY_ERROR[errors.BadCredential]
WORKER_UNKNOWN: Final = Kind(
    404, "worker_unknown", "There is no such worker", hint="Register: POST /worker/v1/workers, with a fresh boot_id."
)
WORKER_PROTOCOL: Final = Kind(
    409,
    "worker_protocol",
    "Worker and service speak different protocols",
    hint="Run the same release of Runyard on both sides; the service goes first.",
)
WORKER_SUPERSEDED: Final = Kind(
    410,
    "worker_superseded",
    "A newer process of this worker has registered",
    hint="Kill every task of this process and end it: its attempts were given up.",
)
ATTEMPT_CONFLICT: Final = Kind(
    409,
    "attempt_conflict",
    "Another supervisor has started the attempt",
    hint="Leave the attempt alone: acknowledge its message, run nothing.",
)
ATTEMPT_GONE: Final = Kind(
    410,
    "attempt_gone",
    "The attempt is over for you",
    hint="Kill what runs of it, acknowledge its message, run nothing of it again; its log may still be sent.",
)
LOG_GAP: Final = Kind(
    409,
    "log_gap",
    "Bytes of the log are missing before these",
    hint="Send the log from next_offset on; what is there already is ignored when it comes again.",
)
LOG_TOO_LONG: Final = Kind(
    413, "log_too_long", "The log is longer than a log may be", hint="Drop what is beyond, and count it in log_dropped."
)
LOG_STORE_AWAY: Final = Kind(
    503,
    "log_store_away",
    "The log cannot be written at the moment",
    retryable=True,
    hint="Keep the bytes and send them again later; whoever runs the service finds the cause in its log.",
)
BUSY: Final = BY_ERROR[errors.Unavailable]
INTERNAL: Final = Kind(
    500,
    "internal_error",
    "Something went wrong on our side",
    retryable=True,
    hint="Repeat a change with its Idempotency-Key; whoever runs the service finds the cause in its log.",
)

#: Every kind, for the documentation.
ALL: Final = (
    BODY_MALFORMED,
    HOST_MALFORMED,
    UNAUTHENTICATED,
    CROSS_ORIGIN,
    *BY_ERROR.values(),
    ROUTE_NOT_FOUND,
    NO_ATTEMPT,
    LOG_NOT_HERE,
    WORKER_UNKNOWN,
    WORKER_PROTOCOL,
    WORKER_SUPERSEDED,
    ATTEMPT_CONFLICT,
    ATTEMPT_GONE,
    LOG_GAP,
    LOG_TOO_LONG,
    LOG_STORE_AWAY,
    METHOD_NOT_ALLOWED,
    PRECONDITION_FAILED,
    BODY_TOO_LARGE,
    UNSUPPORTED_MEDIA,
    HOST_NOT_ALLOWED,
    BAD_CURSOR,
    TOO_MANY_STREAMS,
    INTERNAL,
)


#: Ends that have a name of their own, by :attr:`dag.errors.Gone.code`.
_GONE: Final = {kind.code: kind for kind in (WORKER_SUPERSEDED, ATTEMPT_GONE)}


class Refused(HTTPException):
    """A refusal that only HTTP knows: of a header, a media type, a cursor.

    It is an ``HTTPException`` because FastAPI turns any other error met while a body is read into a bare 400.
    """

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        problems: Sequence[errors.Problem] = (),
        hint: str = "",
        next_offset: int | None = None,
    ) -> None:
        super().__init__(kind.status, detail, dict(headers) if headers else None)
        self.kind = kind
        self.problems = tuple(problems)
        self.hint = hint
        self.next_offset = next_offset


def kind_of(error: type[errors.RunyardError]) -> Kind:
    """Return how an error is answered: by its class, else by the nearest branch above it."""
    for cls in error.__mro__:
        if (kind := BY_ERROR.get(cls)) is not None:
            return kind
    return INTERNAL


def respond(
    request_id: str,
    kind: Kind,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    problems: Sequence[errors.Problem] = (),
    hint: str = "",
    next_offset: int | None = None,
) -> Response:
    """Return a problem document."""
    document: dict[str, Any] = {
        "type": f"/docs#problem-{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": kind.code,
        "retryable": kind.retryable,
        "instance": f"urn:uuid:{request_id}",
    }
    if way_out := hint or kind.hint:
        document["hint"] = way_out
    if problems:
        document["errors"] = [
            {"pointer": p.pointer, "code": p.code, "message": p.message, **({"hint": p.hint} if p.hint else {})}
            for p in problems
        ]
    if next_offset is not None:
        document["next_offset"] = next_offset
    return Response(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")),
        kind.status,
        headers,
        media_type="application/problem+json",
    )


async def on_refused(request: Request, refused: Exception) -> Response:
    """Answer what HTTP refuses: our own refusals, and the framework's 404, 405 and 400."""
    request_id = request.state.request_id
    match refused:
        case Refused():
            return respond(
                request_id,
                refused.kind,
                refused.detail,
                headers=refused.headers,
                problems=refused.problems,
                hint=refused.hint,
                next_offset=refused.next_offset,
            )
        case HTTPException(status_code=404):
            return respond(request_id, ROUTE_NOT_FOUND, "There is nothing at this path.")
        case HTTPException(status_code=405):
            allowed = allowed_methods(request)
            return respond(
                request_id,
                METHOD_NOT_ALLOWED,
                f"This path answers {allowed}.",
                headers={"Allow": allowed},
            )
        case HTTPException(status_code=400):
            return respond(request_id, BODY_MALFORMED, "The body could not be read.")
        case _:
            raise refused


def allowed_methods(request: Request) -> str:
    """Return the methods of the matched path over all of its routes, as the value of ``Allow``."""
    template = request.scope["route"].path
    methods: set[str] = set()
    for route in request.app.routes:
        if route.path == template:
            methods |= route.methods
    return ", ".join(sorted(methods))


async def on_error(request: Request, error: Exception) -> Response:
    """Answer what the layers below raise."""
    if not isinstance(error, errors.RunyardError):
        raise error
    kind = kind_of(type(error))
    if kind is INTERNAL:
        raise error
    if isinstance(error, errors.Gone):
        kind = _GONE.get(error.code, kind)
    return respond(
        request.state.request_id,
        kind,
        _detail(error),
        headers=_HEADERS.get(kind.status),
        problems=error.problems if isinstance(error, errors.Invalid) else (),
    )


_HEADERS: Final = {
    BUSY.status: {"Retry-After": "1"},
    BAD_CREDENTIAL.status: {"WWW-Authenticate": 'Bearer realm="runyard worker"'},
}


def _detail(error: errors.RunyardError) -> str:
    if not isinstance(error, errors.Invalid):
        return str(error)
    number = len(error.problems)
    if number == 1:
        return error.problems[0].message
    return f"{number} things are wrong; each is listed in errors with its place and its way out."
