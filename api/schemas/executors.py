"""Executors: what executes tasks, and how much of it is free."""

from typing import Any, Final, Literal

from pydantic import Field

from api.schemas.base import EXAMPLE_AT, Answer, Instant, maybe
from metastore.records import ExecutorRecord

EXAMPLE: Final[dict[str, Any]] = {
    "name": "local",
    "default": True,
    "status": "ok",
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


class Executor(Answer):
    """An executor that a DAG or a task may name."""

    name: str = Field(description="Its name in documents and in `RUNYARD_EXECUTORS`.")
    default: bool = Field(description="Whether it executes tasks that name none.")
    status: Literal["ok", "degraded", "down", "unknown"] = Field(
        description="The best of its places; `unknown` while none was heard of."
    )
    places: list[Place] = Field(description="Where it executes. Empty for keys that are limited to a DAG prefix.")


class ExecutorList(Answer):
    """All executors that are configured or that an agent announced, the default first."""

    items: list[Executor]
    next_cursor: None = Field(description="Always null: there are never many.")


_RANK: Final = ("ok", "degraded", "down")


def render(name: str, records: list[ExecutorRecord], *, default: bool, places: bool) -> dict[str, Any]:
    """Write an :class:`Executor`."""
    found = {record.status for record in records}
    status = next((rank for rank in _RANK if rank in found), "unknown")
    return {
        "name": name,
        "default": default,
        "status": status,
        "places": [_place(record) for record in records] if places else [],
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
