"""Workers: the machines that execute tasks, and how they are."""

from typing import Any, Final, Literal

from pydantic import ConfigDict, Field

from api.schemas.base import EXAMPLE_AT, Answer, Instant, RequestBody, instant, maybe
from api.schemas.worker import ATTEMPT_ID, WORKER_ID
from metastore.queries.workers import WorkerRecord

EXAMPLE: Final[dict[str, Any]] = {
    "worker_id": WORKER_ID,
    "kind": "worker",
    "state": "live",
    "name": "build-7",
    "host": "build-7.example",
    "version": "0.2.0",
    "pid": 4711,
    "executor": "dramatiq",
    "queues": ["default"],
    "slots": 4,
    "free": 3,
    "running": 1,
    "attempts": [ATTEMPT_ID],
    "registered_at": EXAMPLE_AT,
    "seen_at": EXAMPLE_AT,
    "lease_until": "2026-11-22T09:31:30.123456Z",
}


class Worker(Answer):
    """A worker, or the agent of a scheduler's own host."""

    worker_id: str = Field(description="Its id; lasting.")
    kind: Literal["worker", "agent"] = Field(
        description="`worker`: registered over HTTP, serves queues. `agent`: of a scheduler's own host."
    )
    state: Literal["live", "draining", "lost", "gone"] = Field(
        description="`live`; `draining`: takes nothing new; `lost`: its lease ran out without a word; `gone`: it left."
    )
    name: str | None = Field(description="What people call it.")
    host: str = Field(description="Where it is.")
    version: str | None = Field(description="Its release.")
    pid: int | None = Field(description="Its process.")
    executor: str | None = Field(description="The executor whose queues it serves.")
    queues: list[str] = Field(description="The queues it serves.")
    slots: int | None = Field(description="How many attempts it runs at once.")
    free: int | None = Field(description="How many more it would take; 0 unless it is live.")
    running: int = Field(description="How many active attempts it holds.")
    attempts: list[str] = Field(description="Which; empty for keys that are limited to a DAG prefix.")
    registered_at: Instant | None = Field(description="When its present process registered.")
    seen_at: Instant = Field(description="When it was last heard of.")
    lease_until: Instant | None = Field(description="Until when its attempts are its own, whatever is heard of it.")


class WorkerDrain(RequestBody):
    """Nothing needs to be said: `{}`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})


class WorkerPage(Answer):
    """A page of workers, by id."""

    items: list[Worker]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


def render(record: WorkerRecord, *, attempts: bool) -> dict[str, Any]:
    """Write a :class:`Worker`."""
    free = None
    if record.slots is not None:
        free = max(0, record.slots - record.running) if record.state == "live" else 0
    return {
        "worker_id": record.worker_id,
        "kind": record.kind,
        "state": record.state,
        "name": record.name,
        "host": record.host,
        "version": record.version,
        "pid": record.pid,
        "executor": record.executor,
        "queues": record.queues,
        "slots": record.slots,
        "free": free,
        "running": record.running,
        "attempts": record.attempts if attempts else [],
        "registered_at": maybe(record.registered_at),
        "seen_at": instant(record.seen_at),
        "lease_until": maybe(record.lease_until),
    }
