"""Whether the service lives and is ready, and its measurements."""

from fastapi import Request
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import Asking, Service
from api.metrics import CONTENT_TYPE, exposition
from api.responses import answer
from api.routing import PUBLIC, Router
from api.schemas import health as schemas
from metastore.queries import stats

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

    Queue depth and age, runs and tasks by state, requests, and the times of the scheduler's loop.
    """
    caller.everywhere("Reading metrics")
    counts = await service.store.read(stats.count)
    return Response(exposition(service.registry, counts, service.clock.now()), media_type=CONTENT_TYPE)
