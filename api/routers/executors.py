"""The executors that are configured, and how they are."""

from datetime import datetime
from typing import Any

from starlette.responses import Response

from api.auth import Scope
from api.dependencies import Asking, Service
from api.responses import answer
from api.routing import Router
from api.schemas import executors as schemas
from metastore.queries import executors as queries
from metastore.queries import workers
from metastore.queries.workers import QueueRecord
from metastore.records import ExecutorRecord

router = Router(prefix="/api/v1", tags=["Executors"])


@router.call(
    "GET",
    "/executors",
    needs=Scope.READ,
    gives=(200, schemas.ExecutorList),
    summary="List executors",
    example={"items": [schemas.EXAMPLE, schemas.EXAMPLE_BY_QUEUE], "next_cursor": None},
)
async def list_executors(service: Service, caller: Asking) -> Response:
    """List the executors: those that are configured here, the default first, then those of others.

    Each says how it is, how much it can execute at once, and what waits in its queues, where it has some.
    """
    configured = service.settings.executors
    records, queues, live = await service.store.read(_all, service.clock.now())
    elsewhere = sorted(({record.name for record in records} | set(live)) - set(configured))
    items = [
        schemas.render(
            name,
            [record for record in records if record.name == name],
            [queue for queue in queues if queue.executor == name],
            default=number == 0,
            workers=live[name][1] if name in live else None,
            # What others use and wait for is not for a key that may not know of them.
            whole=caller.dag_prefix is None,
        )
        for number, name in enumerate((*configured, *elsewhere))
    ]
    return answer({"items": items, "next_cursor": None})


def _all(conn: Any, now: datetime) -> tuple[list[ExecutorRecord], list[QueueRecord], dict[str, tuple[int, int]]]:
    records = queries.every(conn)
    live = workers.live_slots(conn, now)
    by_queue = {record.name for record in records if record.by_queue} | set(live)
    return records, workers.queues(conn, now, sorted(by_queue)), live
