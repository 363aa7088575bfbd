"""Task instances of a run, their outputs and attempts."""

import json
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import DagId, MapIndex, RunId, Service, TaskId
from api.pagination import Paged
from api.responses import answer
from api.routing import Router
from api.schemas import tasks as schemas
from dag.errors import NotFound
from dag.states import TaskState
from metastore.queries import attempts, runs, tasks
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
    records = await service.store.read(_page, dag_id, run_id, limit=page.fetch, after=after, states=states)
    return page.answer(records, schemas.render, lambda record: [record.task_no, record.map_index])


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
    record, output = await service.store.read(_with_output, dag_id, run_id, task_id, map_index)
    return answer(schemas.render(record) | {"output": None if output is None else json.loads(output)})


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


def _page(conn: Any, /, dag_id: str, run_id: str, **options: Any) -> list[TaskRecord]:
    return tasks.page(conn, run_of(conn, dag_id, run_id).id, **options)


def _with_output(conn: Any, /, dag_id: str, run_id: str, task_id: str, map_index: int) -> tuple[TaskRecord, str | None]:
    record = instance_of(conn, dag_id, run_id, task_id, map_index)
    return record, tasks.output(conn, record.id)


def _attempts(
    conn: Any, /, dag_id: str, run_id: str, task_id: str, map_index: int, **options: Any
) -> list[AttemptRecord]:
    return attempts.of_instance(conn, instance_of(conn, dag_id, run_id, task_id, map_index).id, **options)
