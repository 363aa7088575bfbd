"""The worker protocol: workers register, beat, and leave."""

from typing import Annotated, Any

import structlog
from fastapi import Path, Query, Request
from starlette.responses import Response

from api.auth import Scope
from api.credentials import Credential, hash_of
from api.dependencies import Asking, Service, Services
from api.heartbeats import WorkerBeat
from api.problems import WORKER_UNKNOWN, Refused
from api.reading import another_protocol, read, read_spoken
from api.responses import answer
from api.routing import Router
from api.schemas import worker as schemas
from api.schemas.base import instant
from dag.errors import NotFound, Unavailable
from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from metastore.commands.workers import Registration, leave_worker, register_worker
from worker.protocol import PROTOCOL

log = structlog.get_logger(__name__)

router = Router(prefix="/worker/v1", tags=["Worker protocol"])

WorkerId = Annotated[schemas.HexId, Path(description="The worker's id.")]
Wait = Annotated[
    float,
    Query(
        ge=0,
        le=20,
        allow_inf_nan=False,
        description="Answer when there is something new to do, or after so many seconds; cut at `heartbeat`.",
    ),
]


@router.call(
    "POST",
    "/workers",
    needs=Scope.WORK,
    gives=(200, schemas.WorkerRegistered),
    reads=schemas.WorkerRegister,
    summary="Register a worker",
    fails=(409, 410),
    example=schemas.EXAMPLE_REGISTERED,
)
async def register(request: Request, service: Service, caller: Asking) -> Response:
    """Register a worker, or a new process of a known one. The same request again changes nothing.

    A new `boot_id` says that every earlier process of this worker is dead, with its tasks: what they ran is given up at
    once and runs elsewhere. So it is sent only by who holds the lock of the worker's home. With a `boot_number` a
    registration that was held up on its way, and comes after one of a later process, is refused with a 410.
    """
    caller.everywhere("Registering workers")
    body = await read_spoken(request, schemas.WorkerRegister)
    require_protocol(body.protocol)
    caller.serves(body.queues)
    registration = Registration(
        worker_id=body.worker_id,
        boot_id=body.boot_id,
        boot_number=body.boot_number,
        token_hash=hash_of(body.token),
        key_id=caller.key_id,
        name=body.name,
        host=body.host,
        pid=body.pid,
        version=body.version,
        executor=body.executor,
        queues=tuple(dict.fromkeys(body.queues)),
        slots=body.slots,
        held=tuple(one.attempt_id for one in body.attempts),
        allowed=caller.queues,
    )
    left = await service.store.write(register_worker, registration, service.settings.worker_lease)
    lost = [attempt_id for attempt_id in left if await _give_up(service, attempt_id, registration, caller.actor)]
    service.meters.registered(registration.executor, service.settings.executors)
    log.info("worker registered", worker=body.worker_id, name=body.name, queues=body.queues, lost=len(lost))
    return answer({"worker_id": body.worker_id, "protocol": PROTOCOL} | leased(service) | {"lost": lost})


async def _give_up(service: Services, attempt_id: str, worker: Registration, actor: str) -> bool:
    """End an attempt of a dead process; whether it was one."""
    end = End(
        attempt_id=attempt_id,
        ended=Ended.LOST,
        cause="worker_lost",
        error=f"the process of worker {worker.name} that ran it is gone: a new one has registered",
    )
    earlier = (worker.worker_id, worker.boot_id)
    try:
        noted = await service.store.write(end_attempt, end, actor=actor, earlier_boot_of=earlier)
    except Unavailable:
        raise
    except Exception:
        # One broken run must not keep a worker out; the scheduler finds what is left.
        log.exception("attempt of a dead worker not ended", attempt=attempt_id)
        return False
    return noted.accepted


@router.call(
    "POST",
    "/workers/{worker_id}/heartbeat",
    needs=Credential.TOKEN,
    gives=(200, schemas.WorkerBeaten),
    reads=schemas.WorkerHeartbeat,
    summary="Say that a worker lives",
    fails=(404, 410),
    example=schemas.EXAMPLE_BEATEN,
)
async def beat_worker(request: Request, worker_id: WorkerId, service: Service, wait: Wait = 0) -> Response:
    """Renew the lease of everything that a worker holds, when the request arrives.

    With `wait` the answer comes as soon as there is a directive that `stopping` does not say already, else when the
    time is over: send the next one at once, and a cancel arrives in milliseconds. A second heartbeat of the same worker
    ends the wait of the first. After a 404 register again; after a 410 kill every task and end.
    """
    body = await read(request, schemas.WorkerHeartbeat)
    beat = WorkerBeat(worker_id, request.state.shown, body.boot_id, body.draining)
    stopping = {one.attempt_id: one.stopping for one in body.attempts}
    try:
        beaten = await service.heartbeats.beat(beat, stopping, wait)
    except NotFound as error:
        raise unknown(error) from error
    directives = [
        {"attempt_id": attempt_id, "directive": "cancel", "reason": reason, "grace": None}
        for attempt_id, reason in beaten.asked.items()
    ]
    return answer(leased(service) | {"drain": beaten.drain, "directives": directives})


@router.call(
    "DELETE",
    "/workers/{worker_id}",
    needs=Credential.TOKEN,
    gives=(204, None),
    summary="Leave",
    fails=(404, 410, 422),
)
async def leave(
    request: Request,
    worker_id: WorkerId,
    service: Service,
    boot_id: Annotated[schemas.HexId, Query(description="The process that leaves.")],
) -> Response:
    """Say that a worker takes nothing any more. What it still runs keeps its lease: end that first."""
    try:
        await service.store.write(leave_worker, worker_id, token_hash=request.state.shown, boot_id=boot_id)
    except NotFound as error:
        raise unknown(error) from error
    return Response(status_code=204)


def require_protocol(spoken: int) -> None:
    """Refuse who speaks another protocol."""
    if spoken != PROTOCOL:
        raise another_protocol(spoken)


def unknown(error: NotFound) -> Refused | NotFound:
    """Return what a worker is told that is not known here."""
    return Refused(WORKER_UNKNOWN, str(error)) if error.kind == "worker" else error


def leased(service: Services) -> dict[str, Any]:
    """Return what every answer to a sign of life says."""
    settings = service.settings
    return {
        "lease": settings.told_lease,
        "heartbeat": settings.told_heartbeat,
        "server_time": instant(service.clock.now()),
    }
