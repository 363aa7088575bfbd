"""Executors: what executes tasks, and how much of it is free."""

from typing import Any, Final, Literal

from pydantic import Field

from api.schemas.base import EXAMPLE_AT, Answer, Instant, maybe
from metastore.queries.workers import QueueRecord
from metastore.records import ExecutorRecord

EXAMPLE: Final[dict[str, Any]] = {
    "name": "local",
    "default": True,
    "status": "ok",
    "detail": "",
    "capacity": 4,
    "places": [
        {
            "agent_id": "019aaf0a-0000-7000-8000-000000000001",
            "host": "build-7",
            "slots": 4,
            "used": 1,
            "status": "ok",
            "detail": "",
            "seen_at": EXAMPLE_AT,
        }
    ],
    "queues": [],
}
EXAMPLE_BY_QUEUE: Final[dict[str, Any]] = {
    "name": "dramatiq",
    "default": False,
    "status": "ok",
    "detail": "",
    "capacity": 8,
    "places": [],
    "queues": [
        {
            "queue": "default",
            "workers": 2,
            "slots": 8,
            "ready": 3,
            "oldest_ready_at": EXAMPLE_AT,
            "queued": 1,
            "running": 8,
        }
    ],
}


class Place(Answer):
    """Where an executor executes."""

    agent_id: str | None = Field(description="The agent that holds its attempts.")
    host: str | None = Field(description="The host it is on.")
    slots: int | None = Field(description="How many attempts may be active at once; null: no limit.")
    used: int = Field(description="How many are.")
    status: str = Field(description="How it says it is.")
    detail: str = Field(description="Why.")
    seen_at: Instant | None = Field(description="When it was last heard of.")


class Queue(Answer):
    """A queue of an executor that hands tasks to workers."""

    queue: str = Field(description="Its name.")
    workers: int = Field(description="Live workers that serve it.")
    slots: int = Field(description="How many attempts they run at once, in all their queues.")
    ready: int = Field(description="Task instances that wait in it.")
    oldest_ready_at: Instant | None = Field(description="Since when the first of them waits.")
    queued: int = Field(description="Attempts that were offered and not taken yet.")
    running: int = Field(description="Attempts that run.")


class Executor(Answer):
    """An executor that a DAG or a task may name."""

    name: str = Field(description="Its name in documents and in `RUNYARD_EXECUTORS`.")
    default: bool = Field(description="Whether it executes tasks that name none.")
    status: Literal["ok", "degraded", "down", "unknown"] = Field(
        description="The best of its places; `unknown` while none was heard of."
    )
    detail: str = Field(description="Why it is like that; empty where all is well.")
    capacity: int | None = Field(
        description="How many attempts may be active at once: the slots of its places, or of its live workers. Null: "
        "no limit, or not known."
    )
    places: list[Place] = Field(description="Where it executes. Empty for keys that are limited to a DAG prefix.")
    queues: list[Queue] = Field(
        description="The queues that workers serve or tasks wait in. Empty for an executor without queues, and for "
        "keys that are limited to a DAG prefix."
    )


class ExecutorList(Answer):
    """All executors that are configured or that an agent announced, the default first."""

    items: list[Executor]
    next_cursor: None = Field(description="Always null: there are never many.")


_RANK: Final = ("ok", "degraded", "down")


def render(
    name: str,
    records: list[ExecutorRecord],
    queues: list[QueueRecord],
    *,
    default: bool,
    workers: int | None,
    whole: bool,
) -> dict[str, Any]:
    """Write an :class:`Executor`; *workers* are the slots of its live ones, *whole* is for who may know of all DAGs."""
    best = min(records, key=lambda record: _rank(record.status), default=None)
    return {
        "name": name,
        "default": default,
        "status": "unknown" if best is None or best.status not in _RANK else best.status,
        "detail": "" if best is None or not whole else best.detail,
        "capacity": _capacity(records, workers),
        "places": [_place(record) for record in records] if whole else [],
        "queues": [_queue(record) for record in queues] if whole else [],
    }


def _rank(status: str) -> int:
    return _RANK.index(status) if status in _RANK else len(_RANK)


def _capacity(records: list[ExecutorRecord], workers: int | None) -> int | None:
    if workers is not None or any(record.by_queue for record in records):
        return workers or 0
    slots = [record.slots for record in records if record.placed] or [record.slots for record in records[:1]]
    return None if not slots or None in slots else sum(one for one in slots if one is not None)


def _queue(record: QueueRecord) -> dict[str, Any]:
    return {
        "queue": record.queue,
        "workers": record.workers,
        "slots": record.slots,
        "ready": record.ready,
        "oldest_ready_at": maybe(record.oldest_ready_at),
        "queued": record.queued,
        "running": record.running,
    }


def _place(record: ExecutorRecord) -> dict[str, Any]:
    return {
        "agent_id": record.agent_id,
        "host": record.host,
        "slots": record.slots,
        "used": record.used,
        "status": record.status,
        "detail": record.detail,
        "seen_at": maybe(record.seen_at),
    }
