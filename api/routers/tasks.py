"""Task instances of a run, their outputs and attempts."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import DagId, MapIndex, RunId, Service, Services, TaskId
from api.pagination import Paged
from api.responses import answer
from api.routing import Router
from api.schemas import tasks as schemas
from dag.errors import NotFound
from dag.states import TaskState
from metastore.queries import attempts, runs, strays, tasks, workers
from metastore.records import AttemptRecord, RunRecord, TaskRecord

router = Router(prefix="/api/v1", tags=["Tasks"])


@router.call(
    "GET",
    "/dags/{dag_id}/runs/{run_id}/tasks",
    needs=Scope.READ,
    gives=(200, schemas.TaskPage),
    summary="List the task instances of a run",
    fails=(404, 422),
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
)
async def list_tasks(
    dag_id: DagId,
    run_id: RunId,
    service: Service,
    page: Paged,
    state: Annotated[
        list[TaskState] | None, Query(description="Only instances in this state; given several times, in any of them.")
    ] = None,
) -> Response:
    """List the task instances of a run, in the order of the document.

    Their outputs are left out; an instance on its own has it. A run that was just accepted has none yet: they are made
    when it starts.
    """
    after = None if page.position is None else (page.position[0], page.position[1])
    states = [str(one) for one in state or ()]
    seen = await service.store.read(_page, dag_id, run_id, service, limit=page.fetch, after=after, states=states)
    return page.answer(seen.records, seen.render, lambda record: [record.task_no, record.map_index])


@router.call(
    "GET",
    "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}",
    needs=Scope.READ,
    gives=(200, schemas.TaskWithOutput),
    summary="Get a task instance and its output",
    fails=(404, 422),
    example=schemas.EXAMPLE_WITH_OUTPUT,
)
async def get_task(
    dag_id: DagId, run_id: RunId, task_id: TaskId, service: Service, map_index: MapIndex = -1
) -> Response:
    """Get one task instance with its output."""
    seen, output = await service.store.read(_with_output, dag_id, run_id, task_id, map_index, service)
    return answer(seen.render(seen.records[0]) | {"output": None if output is None else json.loads(output)})


@router.call(
    "GET",
    "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/attempts",
    needs=Scope.READ,
    gives=(200, schemas.AttemptPage),
    summary="List the attempts of a task instance",
    fails=(404, 422),
    example={"items": [schemas.EXAMPLE_ATTEMPT], "next_cursor": None},
)
async def list_attempts(
    dag_id: DagId, run_id: RunId, task_id: TaskId, service: Service, page: Paged, map_index: MapIndex = -1
) -> Response:
    """List the attempts of a task instance, first to last. A clear does not remove them."""
    after = 0 if page.position is None else page.position[0]
    records = await service.store.read(_attempts, dag_id, run_id, task_id, map_index, after_try=after, limit=page.fetch)
    return page.answer(records, schemas.render_attempt, lambda record: [record.try_number])


def run_of(conn: Any, dag_id: str, run_id: str) -> RunRecord:
    """Return a run that is there."""
    run = runs.get(conn, dag_id, run_id)
    if run is None:
        raise NotFound("run", f"{dag_id}/{run_id}")
    return run


def instance_of(conn: Any, dag_id: str, run_id: str, task_id: str, map_index: int) -> TaskRecord:
    """Return a task instance that is there."""
    record = tasks.get(conn, run_of(conn, dag_id, run_id).id, task_id, map_index)
    if record is None:
        which = f"{dag_id}/{run_id}/{task_id}" + (f"[{map_index}]" if map_index >= 0 else "")
        raise NotFound("task instance", which)
    return record


@dataclass(frozen=True, slots=True)
class _Seen:
    """Task instances, and what they wait for and are held by at the moment."""

    records: list[TaskRecord]
    lacks: dict[tuple[str, str], schemas.Lack]
    holders: dict[int, str]

    def render(self, record: TaskRecord) -> dict[str, Any]:
        waits = self.lacks.get((record.executor, record.queue)) if _is_ready(record) else None
        return schemas.render(record, waits_for=waits, held_by=self.holders.get(record.id))


def _is_ready(record: TaskRecord) -> bool:
    return record.state == TaskState.SCHEDULED and record.blocked_on is None


def _see(conn: Any, records: list[TaskRecord], service: Services) -> _Seen:
    ready = {(record.executor, record.queue) for record in records if _is_ready(record)}
    lacks: dict[tuple[str, str], schemas.Lack] = {}
    if ready:
        now = service.clock.now()
        known = _executors(conn, now, service)
        by_queue = workers.executors_by_queue(conn)
        lacks.update(workers.waiting_for(conn, now, {place for place in ready if place[0] in by_queue}))
        # Where no scheduler is there at all, the executor is not what is missing.
        lacks.update((place, "no_executor") for place in ready if known and place[0] not in known)
    return _Seen(records, lacks, tasks.holders(conn, [record.id for record in records if record.try_number]))


def _executors(conn: Any, now: datetime, service: Services) -> list[str]:
    """Return the executors that schedulers have; on SQLite there is one, and it has what this process is set to."""
    if service.store.dialect == "sqlite":
        return list(service.settings.executors)
    return strays.there(conn, now, (), strays.heard_within(service.settings.worker_lease))


def _page(conn: Any, /, dag_id: str, run_id: str, service: Services, **options: Any) -> _Seen:
    return _see(conn, tasks.page(conn, run_of(conn, dag_id, run_id).id, **options), service)


def _with_output(
    conn: Any, /, dag_id: str, run_id: str, task_id: str, map_index: int, service: Services
) -> tuple[_Seen, str | None]:
    record = instance_of(conn, dag_id, run_id, task_id, map_index)
    return _see(conn, [record], service), tasks.output(conn, record.id)


def _attempts(
    conn: Any, /, dag_id: str, run_id: str, task_id: str, map_index: int, **options: Any
) -> list[AttemptRecord]:
    return attempts.of_instance(conn, instance_of(conn, dag_id, run_id, task_id, map_index).id, **options)
