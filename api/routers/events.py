"""The events of a run, as pages and as a stream."""

from collections.abc import AsyncGenerator
from typing import Annotated, Any, Final

from fastapi import Header, Query, Request
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import INTEGER, DagId, RunId, Service, Services
from api.pagination import Paged
from api.problems import INVALID, Refused
from api.routers.tasks import run_of
from api.routing import Router
from api.schemas import events as schemas
from api.schemas import runs as run_schemas
from api.stream import HEARTBEAT, Life, LiveResponse, sse
from dag.errors import Problem
from dag.states import RUN_FINAL
from metastore.queries import events, runs
from metastore.records import EventRecord, RunRecord

router = Router(prefix="/api/v1", tags=["Events"])

_EVENT_STREAM: Final = "text/event-stream"
#: Events read at once for a stream.
_BATCH: Final = 500


@router.call(
    "GET",
    "/dags/{dag_id}/runs/{run_id}/events",
    needs=Scope.READ,
    gives=(200, schemas.EventPage),
    summary="Read or stream the events of a run",
    fails=(404, 422, 429),
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
    streams=_EVENT_STREAM,
)
async def list_events(
    *,
    request: Request,
    dag_id: DagId,
    run_id: RunId,
    service: Service,
    page: Paged,
    after: Annotated[int, Query(ge=0, le=INTEGER, description="Only events after the one with this `seq`.")] = 0,
    last_event_id: Annotated[
        str | None, Header(description="For a stream: the `id` of the last event that was read; it goes on after it.")
    ] = None,
) -> Response:
    """Read what happened in a run, in order and without a gap.

    With `Accept: text/event-stream` the answer is a stream of server-sent events that goes on while the run does: `id`
    is the event's `seq`, `event` its kind, `data` the event. It resumes after `Last-Event-ID`, has a comment every 15
    seconds while nothing happens, and closes after an event `end` (without an id; its data is the run) once the run has
    ended. It may close without an `end` (the service stops, the key is revoked, an hour is over): connect again with
    `Last-Event-ID`.
    """
    if _EVENT_STREAM in request.headers.get("accept", ""):
        run = await service.store.read(run_of, dag_id, run_id)
        start = after if last_event_id is None else _sequence(last_event_id)
        caller = request.state.caller
        return LiveResponse(
            _stream(service, run, start, service.streams.life(caller)),
            streams=service.streams,
            caller=caller,
            media_type=_EVENT_STREAM,
            patience=service.settings.reader_patience.total_seconds(),
        )
    position = after if page.position is None else page.position[0]
    records = await service.store.read(_page, dag_id, run_id, position, page.fetch)
    return page.answer(records, schemas.render, lambda record: [record.run_seq])


async def _stream(service: Services, run: RunRecord, after: int, life: Life) -> AsyncGenerator[bytes, None]:
    changes = service.store.subscribe(f"run:{run.id}")
    try:
        while True:
            now, found = await service.store.read(_news, run.id, after)
            for event in found:
                yield sse(schemas.render(event), event=event.kind, identity=event.run_seq)
            if found:
                after = found[-1].run_seq or after
                life.moved()
            if len(found) == _BATCH:
                continue
            if now is None:  # the DAG was deleted, and its runs with it
                return
            if now.state in RUN_FINAL:
                yield sse(run_schemas.render(now), event="end")
                return
            beat = await life.pause(changes)
            if await life.over(beat=beat) is not None:
                return
            if beat:
                yield HEARTBEAT
    finally:
        changes.close()


def _news(conn: Any, run: int, after: int) -> tuple[RunRecord | None, list[EventRecord]]:
    # The run is read first: where statements have no common snapshot, an end that is seen has its events seen too.
    return runs.by_id(conn, run), events.of_run(conn, run, after_seq=after, limit=_BATCH)


def _page(conn: Any, dag_id: str, run_id: str, after: int, limit: int) -> list[EventRecord]:
    return events.of_run(conn, run_of(conn, dag_id, run_id).id, after_seq=after, limit=limit)


def _sequence(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > len(str(INTEGER)) or int(text) > INTEGER:
        message = "Last-Event-ID is the id of an event of this run: a whole number."
        raise Refused(
            INVALID, message, problems=[Problem(pointer="/header/last-event-id", code="bad_event_id", message=message)]
        )
    return int(text)
