"""Runs: trigger, list, get, cancel, clear."""

import json
import re
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from api import waiting
from api.auth import Scope
from api.dependencies import Asking, DagId, RunId, Service, Services
from api.idempotency import Change, Mutation, Outcome
from api.pagination import Page, Paged
from api.parameters import Checked
from api.responses import answer, dumps
from api.routing import Router
from api.schemas import runs as schemas
from api.schemas import tasks as task_schemas
from api.schemas.base import Moment
from dag.errors import NotFound, Unavailable
from dag.states import RunState
from metastore.commands.clear import clear_run as clear
from metastore.commands.once import Answer
from metastore.commands.runs import NewRun
from metastore.commands.runs import create_run as create
from metastore.commands.stopping import cancel_run as cancel
from metastore.queries import dags
from metastore.queries import runs as queries
from metastore.records import RunRecord
from metastore.store import Tx

router = Router(prefix="/api/v1", tags=["Runs"])

#: How often a DAG may change under a trigger before it gives up.
_MOVES: Final = 5
_LABEL_FILTER: Final = re.compile(rf"(?:{schemas.LABEL_NAME})=[^\x00]{{0,255}}", re.ASCII)
_LABEL_SCHEMA: Final = {"type": "string", "pattern": f"^{_LABEL_FILTER.pattern}$"}


def _label(text: str) -> str:
    if _LABEL_FILTER.fullmatch(text) is None:
        raise PydanticCustomError("bad_filter", "A label filter is name=value, both as they are in a run's labels")
    return text


async def _filters(
    state: Annotated[
        list[RunState] | None, Query(description="Only runs in this state; given several times, in any of them.")
    ] = None,
    run_type: Annotated[list[schemas.RunType] | None, Query(description="Only runs that came to be like this.")] = None,
    label: Annotated[
        list[Annotated[str, AfterValidator(_label), WithJsonSchema(_LABEL_SCHEMA)]] | None,
        Query(description="Only runs with this label, as `name=value`; given several times, with all.", max_length=16),
    ] = None,
    queued_at_gte: Annotated[Moment | None, Query(description="Only runs accepted at this moment or later.")] = None,
    queued_at_lte: Annotated[Moment | None, Query(description="Only runs accepted at this moment or earlier.")] = None,
) -> dict[str, Any]:
    return {
        "states": [str(one) for one in state or ()],
        "run_types": list(run_type or ()),
        "labels": dict(one.split("=", 1) for one in label or ()),
        "queued_at_gte": queued_at_gte,
        "queued_at_lte": queued_at_lte,
    }


Filters = Annotated[dict[str, Any], Depends(_filters)]


@router.call(
    "POST",
    "/dags/{dag_id}/runs",
    needs=Scope.TRIGGER,
    gives=(201, schemas.RunCreated),
    summary="Trigger a run",
    fails=(404, 409, 429),
    example=schemas.EXAMPLE_CREATED,
    headers={"Location": "Where the run is."},
)
async def create_run(
    request: Request,
    dag_id: DagId,
    body: schemas.RunCreate,
    change: Change,
    service: Service,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=300,
            allow_inf_nan=False,
            description="Answer when the run has ended, or as it stands after this many seconds.",
        ),
    ] = 0,
) -> Response:
    """Trigger a run of the DAG's current version.

    The answer comes once the run is durable: what was answered 201 is there after any crash. Send an `Idempotency-Key`
    (or a `run_id` of your own) to be able to repeat the request after a lost answer. With `wait` the run is accepted
    first and waited for then; going away does not take it back.
    """
    if body.version is not None:
        change.caller.require(Scope.DEFINE, "Choosing a version")
    trigger = _Trigger(dag_id, body.run_id or _run_id(service, change), body, change)
    with service.streams.slot(change.caller) if wait else nullcontext():
        outcome = await trigger.perform(service)
        if not wait:
            return outcome.respond()
        created = json.loads(outcome.answer.body)
        run = await waiting.until_final(service, request, dag_id, created["run_id"], wait)
    if run is None:
        return outcome.respond()
    return outcome.respond(dumps(schemas.render(run) | {"warnings": created["warnings"]}))


@router.call(
    "GET",
    "/dags/{dag_id}/runs",
    needs=Scope.READ,
    gives=(200, schemas.RunPage),
    summary="List the runs of a DAG",
    fails=(404, 422),
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
)
async def list_runs(dag_id: DagId, service: Service, page: Paged, filters: Filters) -> Response:
    """List the runs of a DAG, newest first."""
    return await _page(service, page, filters, dag_id=dag_id)


@router.call(
    "GET",
    "/runs",
    needs=Scope.READ,
    gives=(200, schemas.RunPage),
    summary="List runs across DAGs",
    fails=(422,),
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
)
async def list_all_runs(service: Service, caller: Asking, page: Paged, filters: Filters) -> Response:
    """List the runs of all DAGs that your key covers, newest first."""
    return await _page(service, page, filters, dag_prefix=caller.dag_prefix)


@router.call(
    "GET",
    "/dags/{dag_id}/runs/{run_id}",
    needs=Scope.READ,
    gives=(200, schemas.Run),
    summary="Get a run",
    fails=(404, 422),
    example=schemas.EXAMPLE,
)
async def get_run(dag_id: DagId, run_id: RunId, service: Service) -> Response:
    """Get a run as it stands. To see it move, read its events as a stream."""
    run = await service.store.read(queries.get, dag_id, run_id)
    if run is None:
        raise NotFound("run", f"{dag_id}/{run_id}")
    return answer(schemas.render(run))


@router.call(
    "POST",
    "/dags/{dag_id}/runs/{run_id}/cancel",
    needs=Scope.TRIGGER,
    gives=(202, schemas.Run),
    summary="Cancel a run",
    fails=(404, 409),
    example=schemas.EXAMPLE | {"state": "cancelling", "reason": "user", "ended_at": None, "duration": None},
)
async def cancel_run(
    dag_id: DagId,
    run_id: RunId,
    body: schemas.RunCancel,  # noqa: ARG001  # read and checked, and there is nothing in it
    change: Change,
) -> Response:
    """Ask a run to stop.

    After the answer nothing of it starts any more. What runs is stopped, first by SIGTERM, after its grace by SIGKILL;
    the run is `cancelling` until then. Asking again changes nothing; a run that succeeded or failed answers 409.
    """

    def effect(tx: Tx) -> Answer:
        run = cancel(tx, dag_id, run_id, actor=change.caller.actor)
        return Answer(202, {}, dumps(schemas.render(run)))

    return (await change.perform(effect)).respond()


@router.call(
    "POST",
    "/dags/{dag_id}/runs/{run_id}/clear",
    needs=Scope.TRIGGER,
    gives=(200, task_schemas.TaskList),
    summary="Clear tasks to run them again",
    fails=(404, 409),
    example={"items": [task_schemas.EXAMPLE | {"state": "pending"}], "dry_run": False},
)
async def clear_run(dag_id: DagId, run_id: RunId, body: schemas.RunClear, change: Change) -> Response:
    """Send ended task instances of an ended run back to the start, and the run with them.

    The attempts they had stay; the next one has the next `try_number`. With `dry_run` it only says what it would touch.
    """

    def effect(tx: Tx) -> Answer:
        tasks = clear(
            tx,
            dag_id,
            run_id,
            task_ids=body.task_ids,
            only_failed=body.only_failed,
            downstream=body.downstream,
            dry_run=body.dry_run,
            actor=change.caller.actor,
        )
        found = {"items": [task_schemas.render(task) for task in tasks], "dry_run": body.dry_run}
        return Answer(200, {}, dumps(found))

    return (await change.perform(effect, knows_itself=body.dry_run)).respond()


class _Moved(Exception):
    """The current version is not the one that the params were checked against."""


@dataclass(frozen=True, slots=True)
class _Trigger:
    """One run that somebody wants."""

    dag_id: str
    #: Chosen before the transaction: one that is repeated has to find the run that it made.
    run_id: str
    body: schemas.RunCreate
    change: Mutation

    async def perform(self, service: Services) -> Outcome:
        for _ in range(_MOVES):
            checked = await service.parameters.check(self.dag_id, self.body.version, self.body.params)
            try:
                return await self.change.perform(partial(self._accept, checked=checked), knows_itself=True)
            except _Moved:
                service.parameters.forget(self.dag_id)
        raise Unavailable(f"The DAG {self.dag_id!r} changes faster than it can be triggered.")

    def _accept(self, tx: Tx, checked: Checked) -> Answer:
        # What is wrong is said in here, not before: a repeated request gets its first answer whatever has changed.
        if checked.wrong is not None:
            raise checked.wrong
        run_after = self.body.run_after or tx.now
        logical_date = self.body.logical_date or run_after
        made = create(
            tx,
            NewRun(
                dag_id=self.dag_id,
                run_id=self.run_id,
                request_id=self.change.request_id,
                params=checked.params,
                version=self.body.version,
                logical_date=logical_date,
                data_interval_start=logical_date,
                data_interval_end=logical_date,
                run_after=run_after,
                labels=self.body.labels,
                note=self.body.note,
                actor=self.change.caller.actor,
            ),
        )
        if (made.run.version, made.run.content_hash) != (checked.version, checked.content_hash):
            raise _Moved
        body = schemas.render(made.run) | {"warnings": list(made.warnings)}
        return Answer(201, {"Location": f"/api/v1/dags/{self.dag_id}/runs/{self.run_id}"}, dumps(body))


def _run_id(service: Services, change: Mutation) -> str:
    return f"manual__{service.clock.now():%Y-%m-%dT%H:%M:%S.%f}Z__{change.request_id[-8:]}"


async def _page(service: Services, page: Page, filters: dict[str, Any], **more: Any) -> Response:
    before = None if page.position is None else page.position[0]
    records = await service.store.read(_read_page, limit=page.fetch, before=before, **filters, **more)
    return page.answer(records, schemas.render, lambda record: [record.id])


def _read_page(conn: Any, /, dag_id: str | None = None, **options: Any) -> list[RunRecord]:
    found = queries.page(conn, dag_id=dag_id, **options)
    if not found and dag_id is not None and dags.get(conn, dag_id) is None:
        raise NotFound("DAG", dag_id)
    return found
