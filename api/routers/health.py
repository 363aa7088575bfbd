"""Whether the service lives and is ready, and its measurements."""

from datetime import datetime
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import Asking, Service
from api.metrics import CONTENT_TYPE, Counted, exposition
from api.responses import answer
from api.routing import PUBLIC, Router
from api.schemas import health as schemas
from metastore.queries import stats, workers

router = Router(tags=["Operation"])


@router.call(
    "GET",
    "/health/live",
    needs=PUBLIC,
    gives=(200, schemas.Health),
    summary="Is the process alive?",
    example={"status": "ok"},
)
async def live() -> Response:
    """Answer as long as the process serves requests at all. Restart the service when it does not."""
    return answer({"status": "ok"})


@router.call(
    "GET",
    "/health/ready",
    needs=PUBLIC,
    gives=(200, schemas.Health),
    summary="Is the service ready?",
    example={"status": "ok"},
)
async def ready(request: Request) -> Response:
    """Answer 200 when the metastore answers and the parts of the service are well, else 503. Send work only then."""
    if await request.app.state.readiness.ready():
        return answer({"status": "ok"})
    return answer({"status": "unavailable"}, 503, {"Retry-After": "1"})


@router.call(
    "GET",
    "/metrics",
    needs=Scope.READ,
    gives=(200, "text/plain"),
    summary="Read measurements",
    example='runyard_queued_attempts{executor="local"} 3.0\n',
)
async def metrics(service: Service, caller: Asking) -> Response:
    """Read measurements in the text format of Prometheus.

    Depth and age of queues, runs and tasks by state, workers and their slots, requests, heartbeats, and the times of
    the scheduler's loop.
    """
    caller.everywhere("Reading metrics")
    counted = await service.store.read(_count, service.clock.now())
    return Response(exposition(service.registry, counted), media_type=CONTENT_TYPE)


#: There are never more workers in a measure.
_MOST_WORKERS: Final = 10_000


def _count(conn: Any, now: datetime) -> Counted:
    queues = workers.queues(conn, now, sorted(workers.executors_by_queue(conn)))
    return Counted(stats.count(conn), queues, workers.workers(conn, now, "", _MOST_WORKERS), now)
