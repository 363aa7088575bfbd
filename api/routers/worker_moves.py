"""The worker protocol: starts and ends of a busy worker, several in one request."""

import asyncio
from typing import TYPE_CHECKING

import structlog
from fastapi import Request
from starlette.responses import Response

from api.auth import Scope
from api.credentials import hash_of, is_attempt_id
from api.dependencies import Service, Services
from api.problems import INTERNAL, Refused, on_error, on_refused, respond
from api.reading import read
from api.routers.worker_attempts import finish_attempt, start_attempt
from api.routing import Router
from api.schemas import worker_attempts as schemas
from dag.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from api.credentials import Tickets

log = structlog.get_logger(__name__)

router = Router(prefix="/worker/v1", tags=["Worker protocol"])


@router.call(
    "POST",
    "/attempts",
    needs=Scope.WORK,
    gives=(200, schemas.AttemptsMoved),
    reads=schemas.AttemptMoves,
    most=schemas.MAX_MOVES,
    summary="Start and finish attempts",
    example=schemas.EXAMPLE_MOVED,
)
async def move_attempts(request: Request, service: Service) -> Response:
    """Send several starts and ends in one request: each is judged as if it came by itself, and has its own answer.

    It costs a busy worker and the service a fraction of what as many requests cost, and nothing else is different. A
    request that does not fit as a whole has moved nothing; then send each by itself.
    """
    body = await read(request, schemas.AttemptMoves)
    starts = [_answered(request, _start(request, service, one)) for one in body.starts]
    finishes = [_answered(request, _finish(service, one)) for one in body.finishes]
    answers = await asyncio.gather(*starts, *finishes)
    told = (b",".join(answers[: len(starts)]), b",".join(answers[len(starts) :]))
    return Response(b'{"starts":[%b],"finishes":[%b]}' % told, media_type="application/json")


async def _start(request: Request, service: Services, one: schemas.AttemptToStart) -> Response:
    tickets: Tickets = request.app.state.tickets
    await tickets.check(one.attempt_id, one.ticket)
    return await start_attempt(service, one.attempt_id, one)


async def _finish(service: Services, one: schemas.AttemptToFinish) -> Response:
    if not is_attempt_id(one.attempt_id):
        raise NotFound("attempt", one.attempt_id)
    shown = hash_of(one.key)
    await service.attempts.authorise(one.attempt_id, shown)
    return await finish_attempt(service, one.attempt_id, shown, one)


async def _answered(request: Request, call: "Awaitable[Response]") -> bytes:
    """Return what became of one of them; whatever that is, it is nobody else's."""
    try:
        response = await call
    except Exception as error:  # noqa: BLE001  # the others have their answers
        response = await _problem(request, error)
    after = response.headers.get("retry-after", "null").encode()
    return b'{"status":%d,"answer":%b,"retry_after":%b}' % (response.status_code, bytes(response.body), after)


async def _problem(request: Request, error: Exception) -> Response:
    try:
        return await (on_refused if isinstance(error, Refused) else on_error)(request, error)
    except Exception:
        request_id: str = request.state.request_id
        log.exception("move failed", request_id=request_id)
        return respond(request_id, INTERNAL, "The failure was logged under this answer's instance.")
