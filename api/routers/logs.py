"""What the attempts of a task wrote."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import INTEGER, DagId, MapIndex, RunId, Service, Services, TaskId
from api.logtext import LogFile
from api.problems import LOG_NOT_HERE, NO_ATTEMPT, Refused
from api.routers.tasks import instance_of
from api.routing import Router
from api.stream import HEARTBEAT, Life, LiveResponse, sse
from dag.states import ATTEMPT_FINAL
from metastore.queries import attempts
from metastore.records import AttemptRecord

router = Router(prefix="/api/v1", tags=["Logs"])

_TEXT: Final = "text/plain; charset=utf-8"
_EVENT_STREAM: Final = "text/event-stream"
#: How often a followed file is looked at.
_LOOK: Final = 0.2
#: How long the last bytes of an ended attempt are waited for, where they come over HTTP: seconds without a new one.
_LATE: Final = 15.0
#: An attempt that ended earlier than this is not waited for: what is missing of its log is lost.
_LONG_AGO: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which log, and what of it."""

    number: int | None
    map_index: int
    follow: bool
    offset: int
    tail: int | None


async def _wanted(
    number: Annotated[
        int | None, Query(alias="try", ge=1, le=INTEGER, description="Which attempt; left out: the last one.")
    ] = None,
    map_index: MapIndex = -1,
    *,
    follow: Annotated[bool, Query(description="Go on until the attempt has ended.")] = False,
    offset: Annotated[int, Query(ge=0, le=2**53, description="Leave out so many bytes at the beginning.")] = 0,
    tail: Annotated[
        int | None, Query(ge=0, le=10_000, description="Only the last so many lines, of the last MiB at most.")
    ] = None,
) -> _Wanted:
    return _Wanted(number, map_index, follow, offset, tail)


Wanted = Annotated[_Wanted, Depends(_wanted)]


@router.call(
    "GET",
    "/dags/{dag_id}/runs/{run_id}/tasks/{task_id}/logs",
    needs=Scope.LOGS,
    gives=(200, "text/plain"),
    summary="Read or follow the log of a task",
    fails=(404, 422, 429),
    example="The total is 7\n",
    headers={"Runyard-Try-Number": "The attempt whose log this is.", "Runyard-Attempt-Id": "Its id."},
    streams=_EVENT_STREAM,
)
async def get_logs(
    request: Request, dag_id: DagId, run_id: RunId, task_id: TaskId, service: Service, wanted: Wanted
) -> Response:
    r"""Read what a task wrote to its standard output and standard error, in the order it wrote it.

    Plain text in UTF-8; bytes that are not UTF-8 are shown as `\xNN`, NUL as `\x00`. With `follow=true` the answer
    goes on as the task writes and ends when the attempt has ended and the last bytes of its log are there. With
    `Accept: text/event-stream` the same comes as server-sent events: `log` (data: `{"text": …}`), and `end` at the end
    (data: `{"state": …}`).
    """
    attempt = await service.store.read(_attempt, dag_id, run_id, task_id, wanted)
    file = LogFile(service.settings.log_dir, attempt.id, offset=wanted.offset)
    if attempt.log_size and not (wanted.follow and _may_come(service, attempt)) and not await file.is_there():
        raise Refused(LOG_NOT_HERE, _missed(attempt))
    caller = request.state.caller
    as_events = _EVENT_STREAM in request.headers.get("accept", "")
    return LiveResponse(
        _follow(service, file, attempt, wanted, service.streams.life(caller), as_events=as_events),
        streams=service.streams,
        caller=caller,
        media_type=_EVENT_STREAM if as_events else _TEXT,
        patience=service.settings.reader_patience.total_seconds(),
        headers={
            "Runyard-Try-Number": str(attempt.try_number),
            "Runyard-Attempt-Id": attempt.id,
            "Content-Disposition": "inline",
        },
    )


async def _follow(  # noqa: C901  # one loop, read top down
    service: Services,
    file: LogFile,
    attempt: AttemptRecord,
    wanted: _Wanted,
    life: Life,
    *,
    as_events: bool,
) -> AsyncGenerator[bytes, None]:
    changes = service.store.subscribe(f"run:{attempt.run}")
    look = grown = service.clock.monotonic()
    try:
        if wanted.tail is not None:
            await file.from_the_end(wanted.tail)
        while True:
            # The state is read before the file: what an ended attempt wrote is in the file by then.
            if wanted.follow and attempt.state not in ATTEMPT_FINAL and service.clock.monotonic() >= look:
                attempt = await service.store.read(_again, attempt)
                grown = service.clock.monotonic()
                look = grown + 1
            while piece := await file.read():
                grown = service.clock.monotonic()
                yield _piece(piece, as_events=as_events)
                if service.streams.stopping:
                    return
            if _is_over(service, file, attempt, wanted, grown):
                break
            if await changes.wait(_LOOK):
                look = 0.0
            beat = life.beat()
            if await life.over(beat=beat) is not None:
                return
            if beat and as_events:
                yield HEARTBEAT
        if piece := _last_words(file, attempt):
            yield _piece(piece, as_events=as_events)
        if as_events:
            yield sse({"state": attempt.state}, event="end")
    finally:
        changes.close()
        file.close()


def _is_over(service: Services, file: LogFile, attempt: AttemptRecord, wanted: _Wanted, grown: float) -> bool:
    """Whether nothing more is to be waited for; *grown* is when there was something new."""
    if not wanted.follow:
        return True
    if attempt.state not in ATTEMPT_FINAL:
        return False
    is_short = _may_come(service, attempt) and file.position < (attempt.log_size or 0)
    return not is_short or service.clock.monotonic() - grown >= _LATE


def _may_come(service: Services, attempt: AttemptRecord) -> bool:
    """Whether bytes of an ended attempt's log may be on their way; those of our own hosts are there before the end."""
    ended_at = attempt.ended_at
    return attempt.key_hash is not None and ended_at is not None and service.clock.now() - ended_at < _LONG_AGO


def _last_words(file: LogFile, attempt: AttemptRecord) -> bytes:
    if attempt.log_size and not file.found:  # known only now, too late for another status
        return f"[runyard] {_missed(attempt)} {LOG_NOT_HERE.hint}\n".encode()
    return file.rest()


def _missed(attempt: AttemptRecord) -> str:
    return f"The attempt wrote {attempt.log_size:,} bytes, but its log is not in this API's log store."


def _again(conn: Any, attempt: AttemptRecord) -> AttemptRecord:
    return attempts.by_id(conn, attempt.id) or attempt


def _piece(text: bytes, *, as_events: bool) -> bytes:
    return sse({"text": text.decode()}, event="log") if as_events else text


def _attempt(conn: Any, dag_id: str, run_id: str, task_id: str, wanted: _Wanted) -> AttemptRecord:
    task = instance_of(conn, dag_id, run_id, task_id, wanted.map_index)
    number = wanted.number
    attempt = attempts.get(conn, task.id, number or task.try_number)
    if attempt is None:
        which = "no attempt yet" if number is None else f"no attempt {number}; its last one is {task.try_number}"
        raise Refused(NO_ATTEMPT, f"The task {task_id!r} has {which}.")
    return attempt
