"""Events: what happened in a run, in order."""

from typing import Any, Final

from pydantic import Field

from api.schemas.base import EXAMPLE_AT, Answer, Instant, instant
from metastore.records import EventRecord

EXAMPLE: Final[dict[str, Any]] = {
    "seq": 1,
    "at": EXAMPLE_AT,
    "kind": "run.queued",
    "dag_id": "dice",
    "run_id": "monday",
    "task_id": None,
    "map_index": None,
    "try_number": None,
    "attempt_id": None,
    "from_state": None,
    "to_state": "queued",
    "actor": "key:admin",
    "reason": None,
    "data": None,
}


class Event(Answer):
    """Something that happened in a run."""

    seq: int = Field(description="Its number within the run: 1, 2, 3, … without gaps; the `id` of a server-sent event.")
    at: Instant = Field(description="When.")
    kind: str = Field(description="What: `run.<state>`, `task.<state>` or `run.healed`.", examples=["task.running"])
    dag_id: str | None = Field(description="The DAG.")
    run_id: str | None = Field(description="The run.")
    task_id: str | None = Field(description="The task, for events of a task instance.")
    map_index: int | None = Field(description="Which instance of a mapped task; -1 for a task that is not mapped.")
    try_number: int | None = Field(description="Which attempt.")
    attempt_id: str | None = Field(description="The attempt.")
    from_state: str | None = Field(description="The state before.")
    to_state: str | None = Field(description="The state since.")
    actor: str = Field(description="Who: `key:<id>`, `scheduler`, `supervisor` or `system`.")
    reason: str | None = Field(description="Why: a short code.")
    data: Any = Field(description="More facts, by kind.")


class EventPage(Answer):
    """A page of events, first to last."""

    items: list[Event]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null when there is no more so far.")


def render(record: EventRecord) -> dict[str, Any]:
    """Write an :class:`Event`."""
    return {
        "seq": record.run_seq,
        "at": instant(record.at),
        "kind": record.kind,
        "dag_id": record.dag_id,
        "run_id": record.run_id,
        "task_id": record.task_id,
        "map_index": record.map_index,
        "try_number": record.try_number,
        "attempt_id": record.attempt_id,
        "from_state": record.from_state,
        "to_state": record.to_state,
        "actor": record.actor,
        "reason": record.reason,
        "data": record.data,
    }
