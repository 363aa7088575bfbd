"""The worker protocol: one attempt from its start to its end."""

import asyncio
import base64
from typing import Annotated, Final

from fastapi import Path, Query, Request
from starlette.responses import Response

from api.credentials import Credential, hash_of
from api.dependencies import Service, Services, TaskId
from api.heartbeats import AttemptBeat
from api.logwriter import MAX_PIECE, Written
from api.problems import ATTEMPT_CONFLICT, ATTEMPT_GONE, INVALID, LOG_GAP, Refused
from api.reading import read, read_spoken
from api.responses import answer
from api.routers.worker import Wait, leased, require_protocol, unknown
from api.routing import Router
from api.schemas import worker_attempts as schemas
from api.schemas.worker import AttemptId as AttemptIdText
from dag.errors import NotFound, Problem, Unavailable
from executors.base import Door
from metastore.commands.staging import read_input, stage_output
from metastore.queries.workers import attempt_of
from worker import output
from worker.protocol import MAX_OUTPUT, Finish, Refusal

router = Router(prefix="/worker/v1", tags=["Worker protocol"])

AttemptId = Annotated[AttemptIdText, Path(description="The attempt's id, as it came with the offer.")]

Offset = Annotated[int, Query(ge=0, le=2**53, description="Where in the log these bytes begin.")]

#: An output of 1 MiB as a text inside JSON, where each character may be written with an escape, and the tail of a log.
_MAX_FINISH: Final = 4 * MAX_OUTPUT
#: How long an end may wait for its log, in seconds, and with it what came in the same request.
_MOMENT: Final = 1.0
_OCTETS: Final = "application/octet-stream"


@router.call(
    "POST",
    "/attempts/{attempt_id}/start",
    needs=Credential.TICKET,
    gives=(200, schemas.AttemptStarted),
    reads=schemas.AttemptStart,
    summary="Start an attempt",
    fails=(404, 409, 410),
    example=schemas.EXAMPLE_STARTED,
)
async def start(request: Request, attempt_id: AttemptId, service: Service) -> Response:
    """Ask whether this supervisor may run the attempt; one asks and gets it, before any of the user's code runs.

    The same `boot_id` with the same `key` gets the same answer again, so a lost answer costs nothing; but start what it
    says at most once. After a 409 or a 410 acknowledge the message and run nothing. A `worker_id` must be the one of a
    live, registered worker that serves the queue.
    """
    body = await read_spoken(request, schemas.AttemptStart)
    return await start_attempt(service, attempt_id, body)


async def start_attempt(service: Services, attempt_id: str, body: schemas.AttemptStart) -> Response:
    """Answer a start whose ticket is checked."""
    require_protocol(body.protocol)
    key_hash = hash_of(body.key)
    try:
        answers = await door_of(service).start(
            {"type": "start", "attempt_id": attempt_id, "boot_id": body.boot_id}, body.worker_id, key_hash=key_hash
        )
    except NotFound as error:
        raise unknown(error) from error
    stop = None
    for message in answers:
        if message["type"] == "cancel":
            stop = {"reason": message["reason"], "grace": message["grace"]}
        elif message["type"] == "refused":
            raise await _refused(service, attempt_id, message["code"], message["detail"])
        elif message["type"] == "task":
            service.attempts.started(attempt_id, key_hash)
            return answer({"task": message["body"]} | leased(service) | {"stop": stop})
    raise TypeError(answers)


async def _refused(service: Services, attempt_id: str, code: Refusal, detail: str) -> Exception:
    if code == "conflict":
        return Refused(ATTEMPT_CONFLICT, f"The attempt {attempt_id} is not for you: {detail}.")
    if code == "gone" and await service.store.read(attempt_of, attempt_id) is None:
        return NotFound("attempt", attempt_id)
    return Refused(ATTEMPT_GONE, f"The attempt {attempt_id} will not run: {detail}.")


@router.call(
    "POST",
    "/attempts/{attempt_id}/heartbeat",
    needs=Credential.KEY,
    gives=(200, schemas.AttemptBeaten),
    reads=schemas.AttemptHeartbeat,
    summary="Say that a supervisor lives",
    fails=(404, 410),
    example=schemas.EXAMPLE_BEATEN,
)
async def beat_attempt(request: Request, attempt_id: AttemptId, service: Service, wait: Wait = 0) -> Response:
    """Renew the lease of an attempt whose supervisor is no registered worker.

    With `wait` the answer comes as soon as there is a directive that `stopping` does not say already, else when the
    time is over. After a 410 kill the task, send what is left of its log, and do not finish it.
    """
    body = await read(request, schemas.AttemptHeartbeat)
    beat = AttemptBeat(attempt_id, request.state.shown, body.boot_id)
    beaten = await service.heartbeats.beat(beat, {attempt_id: body.stopping}, wait)
    reason = beaten.asked.get(attempt_id)
    directive = "continue" if reason is None else "cancel"
    return answer(leased(service) | {"directive": directive, "reason": reason, "grace": None})


@router.call(
    "PUT",
    "/attempts/{attempt_id}/logs",
    needs=Credential.KEY,
    gives=(200, schemas.LogWritten),
    summary="Send a piece of the log",
    fails=(404, 409, 410),
    media=(_OCTETS,),
    most=MAX_PIECE,
    body={
        "required": True,
        "content": {_OCTETS: {"schema": {"type": "string", "format": "binary", "maxLength": MAX_PIECE}}},
    },
    example={"next_offset": 15},
)
async def put_log(request: Request, attempt_id: AttemptId, service: Service, offset: Offset) -> Response:
    """Send bytes of the log, raw and in order, at most 1 MiB at once.

    What is there already is ignored, so a piece may be sent again. Where bytes before it are missing the answer is a
    409 with `next_offset`: go on from there. It is taken up to 24 hours after the end, also of an attempt that was
    given up. A 503 is the log store's: keep the bytes, come again.
    """
    await service.attempts.authorise(attempt_id, request.state.shown)
    written = await service.logs.write(attempt_id, offset, await request.body())
    if written.refused is not None:
        raise written.refused
    return answer({"next_offset": written.size})


@router.call(
    "PUT",
    "/attempts/{attempt_id}/output",
    needs=Credential.KEY,
    gives=(204, None),
    summary="Stage the output",
    fails=(404, 410),
    most=MAX_OUTPUT,
    body={"required": True, "content": {"application/json": {"schema": {}, "example": {"total": 7}}}},
)
async def put_output(request: Request, attempt_id: AttemptId, service: Service) -> Response:
    """Send the output ahead of the end: any JSON value of at most 1 MiB and 64 levels.

    It becomes the task's output with an accepted `finish` whose own `output` is null, and is dropped with any other
    end. A later one replaces it.
    """
    await service.attempts.authorise(attempt_id, request.state.shown)
    value = await checked_output(await request.body(), "")
    await service.store.write(stage_output, attempt_id, key_hash=request.state.shown, value=value)
    return Response(status_code=204)


@router.call(
    "GET",
    "/attempts/{attempt_id}/inputs/{task_id}",
    needs=Credential.KEY,
    gives=(200, schemas.Input),
    summary="Get the output of an upstream task",
    fails=(404, 410, 422),
    example=7,
)
async def get_input(request: Request, attempt_id: AttemptId, task_id: TaskId, service: Service) -> Response:
    """Get the output of a task of the same run that the attempt's own task depends on, directly or not.

    It is null where that task has none.
    """
    value = await service.store.write(read_input, attempt_id, key_hash=request.state.shown, task_id=task_id)
    return Response(value or "null", media_type="application/json")


@router.call(
    "POST",
    "/attempts/{attempt_id}/finish",
    needs=Credential.KEY,
    gives=(200, schemas.AttemptFinished),
    reads=schemas.AttemptFinish,
    most=_MAX_FINISH,
    summary="Finish an attempt",
    fails=(404, 410),
    example=schemas.EXAMPLE_FINISHED,
)
async def finish(request: Request, attempt_id: AttemptId, service: Service) -> Response:
    """Tell how the attempt ended. Write it down first, then send it until it is answered; the first end counts.

    The same end again is accepted again; `accepted: false` says that the attempt was given up before, and nothing was
    changed. The bytes in `log` are kept before the end is noted; what does not fit or cannot be kept at the moment does
    not hold up the end: send it afterwards, from `next_offset` on.
    """
    shown: str = request.state.shown
    await service.attempts.authorise(attempt_id, shown)
    body = await read(request, schemas.AttemptFinish)
    return await finish_attempt(service, attempt_id, shown, body)


async def finish_attempt(service: Services, attempt_id: str, shown: str, body: schemas.AttemptFinish) -> Response:
    """Answer an end whose key is the attempt's; *shown* is its hash."""
    value = None if body.output is None else await checked_output(body.output.encode(), "/output")
    tail = None if body.log is None else await _keep_tail(service, attempt_id, body.log)
    now = service.clock.now().timestamp()
    ended_at = min(now, max(0.0, body.ended_at + now - body.sent_at))
    message: Finish = {
        "type": "finish",
        "attempt_id": attempt_id,
        "boot_id": body.boot_id,
        "outcome": body.outcome,
        "exit_code": body.exit_code,
        "signal": body.signal,
        "error": body.error,
        "output": value,
        "log_size": body.log_size,
        "log_dropped": body.log_dropped,
        "started_at": min(ended_at, max(0.0, body.started_at + now - body.sent_at)),
        "ended_at": ended_at,
        "more": False,
    }
    accepted = False
    for told in await door_of(service).finish(message, None, key_hash=shown):
        accepted = accepted or (told["type"] == "finished" and told["accepted"])
    return answer({"accepted": accepted, "next_offset": None if tail is None else tail.size})


async def _keep_tail(service: Services, attempt_id: str, tail: schemas.LogTail) -> Written:
    """Keep the last bytes of a log, as far as that goes: an end is not held up by a log."""
    data = base64.b64decode(tail.data, validate=True)  # the schema has let nothing else in
    if len(data) > schemas.MAX_TAIL:
        raise invalid("/log/data", "too_long", f"log.data has more than {schemas.MAX_TAIL:,} bytes.")
    written = await service.logs.write(attempt_id, tail.offset, data, patience=_MOMENT)
    if written.refused is not None and written.refused.kind is not LOG_GAP:
        return Written(tail.offset)
    return written


async def checked_output(raw: bytes, pointer: str) -> str:
    """Return an output as text, if it is one JSON value that every reader understands the same way."""
    try:
        if len(raw) > _LONG:
            return await asyncio.to_thread(output.check, raw)
        return output.check(raw)
    except output.OutputInvalid as error:
        raise invalid(
            pointer, "bad_output", f"The {error}.", "Send one JSON value: at most 1 MiB, 64 levels."
        ) from None


_LONG: Final = 16 * 1024


def door_of(service: Services) -> Door:
    """Return where starts and ends go through."""
    if service.door is None:
        raise Unavailable("This API takes no workers: it was started without a way to the scheduler's metastore.")
    return service.door


def invalid(pointer: str, code: str, message: str, hint: str = "") -> Refused:
    return Refused(INVALID, message, problems=[Problem(pointer=pointer, code=code, message=message, hint=hint)])
