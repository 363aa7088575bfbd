"""Workers as operators see them."""

from functools import partial
from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import AnId, Asking, Service
from api.idempotency import Change
from api.pagination import Paged
from api.responses import answer, dumps
from api.routing import Router
from api.schemas import workers as schemas
from dag.errors import NotFound
from metastore.commands.once import Answer
from metastore.commands.workers import ask_to_drain
from metastore.queries import workers as queries
from metastore.store import Tx

router = Router(prefix="/api/v1", tags=["Workers"])

WorkerId = Annotated[AnId, Path(description="The worker's id.")]


@router.call(
    "GET",
    "/workers",
    needs=Scope.READ,
    gives=(200, schemas.WorkerPage),
    summary="List workers",
    fails=(422,),
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
)
async def list_workers(service: Service, caller: Asking, page: Paged) -> Response:
    """List workers by id: those that serve queues, and the agents of schedulers' hosts, living or not."""
    after = "" if page.position is None else page.position[0]
    records = await service.store.read(queries.workers, service.clock.now(), after, page.fetch)
    render = partial(schemas.render, attempts=caller.dag_prefix is None)
    return page.answer(records, render, lambda record: [record.worker_id])


@router.call(
    "GET",
    "/workers/{worker_id}",
    needs=Scope.READ,
    gives=(200, schemas.Worker),
    summary="Get a worker",
    fails=(404, 422),
    example=schemas.EXAMPLE,
)
async def get_worker(worker_id: WorkerId, service: Service, caller: Asking) -> Response:
    """Get one worker: whether it lives, what it serves, what it runs."""
    record = await service.store.read(queries.worker, service.clock.now(), worker_id)
    if record is None:
        raise NotFound("worker", worker_id)
    return answer(schemas.render(record, attempts=caller.dag_prefix is None))


@router.call(
    "POST",
    "/workers/{worker_id}/drain",
    needs=Scope.ADMIN,
    gives=(202, schemas.Worker),
    summary="Drain a worker",
    fails=(404,),
    example=schemas.EXAMPLE,
)
async def drain_worker(
    worker_id: WorkerId,
    body: schemas.WorkerDrain,  # noqa: ARG001  # read and checked, and there is nothing in it
    change: Change,
    caller: Asking,
) -> Response:
    """Ask a worker to take nothing new, let what runs end, and leave. It hears of it with its next heartbeat.

    A worker that is started again after that works as before.
    """
    caller.everywhere("Draining workers")

    def effect(tx: Tx) -> Answer:
        ask_to_drain(tx, worker_id)
        record = queries.worker(tx.conn, tx.now, worker_id)
        if record is None:
            raise NotFound("worker", worker_id)
        return Answer(202, {}, dumps(schemas.render(record, attempts=True)))

    return (await change.perform(effect)).respond()
