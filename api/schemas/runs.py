"""Runs: how they are asked for and what they look like."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from api.dependencies import INTEGER, AnId
from api.schemas.base import EXAMPLE_AT, Answer, Clean, Instant, Moment, RequestBody, instant, maybe, seconds_between
from dag.states import RunState
from metastore.records import RunRecord

EXAMPLE: Final[dict[str, Any]] = {
    "dag_id": "dice",
    "run_id": "monday",
    "run_type": "manual",
    "state": "success",
    "reason": None,
    "version": 1,
    "params": {"sides": 6},
    "labels": {"team": "data"},
    "note": None,
    "logical_date": EXAMPLE_AT,
    "data_interval_start": EXAMPLE_AT,
    "data_interval_end": EXAMPLE_AT,
    "run_after": EXAMPLE_AT,
    "queued_at": EXAMPLE_AT,
    "started_at": "2026-11-22T09:30:00.125112Z",
    "ended_at": "2026-11-22T09:30:00.192604Z",
    "duration": 0.067492,
    "created_by": "key:admin",
}
EXAMPLE_CREATED: Final[dict[str, Any]] = EXAMPLE | {
    "state": "queued",
    "started_at": None,
    "ended_at": None,
    "duration": None,
    "warnings": [],
}

#: How runs come to be in this release.
RunType = Literal["manual"]
LABEL_NAME: Final = "[A-Za-z0-9_.~:+/-]{1,63}"
LabelName = Annotated[str, StringConstraints(pattern=f"^{LABEL_NAME}$", strict=True)]
LabelValue = Annotated[str, StringConstraints(max_length=255, strict=True), Clean]


class RunCreate(RequestBody):
    """What to trigger; everything may be left out."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"run_id": "monday", "params": {"sides": 6}, "labels": {"team": "data"}}]}
    )

    params: dict[str, Any] = Field(
        default_factory=dict,
        description="Values for the DAG's `params`; checked against its schema, defaults filled in.",
        examples=[{"sides": 6}],
    )
    run_id: AnId | None = Field(
        default=None,
        description="A name of your own, unique within the DAG. Left out: one is made from the time.",
        examples=["monday"],
    )
    logical_date: Moment | None = Field(
        default=None,
        description="The moment the run is about; tasks see it, nothing waits for it. Left out: `run_after`.",
    )
    run_after: Moment | None = Field(
        default=None, description="The run does not start before this moment. Left out: it may start at once."
    )
    labels: Annotated[dict[LabelName, LabelValue], Field(max_length=64)] = Field(
        default_factory=dict,
        description="Names and values to find the run by.",
        examples=[{"team": "data"}],
        json_schema_extra={"additionalProperties": False},
    )
    note: Annotated[str, StringConstraints(max_length=10_000, strict=True), Clean] | None = Field(
        default=None, description="A remark for people."
    )
    version: Annotated[int, Field(strict=True, ge=1, le=INTEGER)] | None = Field(
        default=None, description="A version other than the current one; needs the scope `define`.", examples=[1]
    )


class Run(Answer):
    """A run: one execution of one version of a DAG."""

    dag_id: str = Field(description="The DAG.")
    run_id: str = Field(description="Its id, unique within the DAG.")
    run_type: str = Field(description="How it came to be: `manual`.")
    state: RunState = Field(
        description="`queued`: accepted; waits for its time, for its DAG to be unpaused or for `max_active_runs`. "
        "`running`. `cancelling`: asked to stop, something of it still runs. "
        "At the end `success`, `failed` or `cancelled`."
    )
    reason: str | None = Field(description="Why it is in this state, where the state does not say all: a short code.")
    version: int = Field(description="The version of the DAG that it is pinned to.")
    params: dict[str, Any] = Field(description="Its params, with defaults filled in.")
    labels: dict[str, str] = Field(description="Its labels.")
    note: str | None = Field(description="A remark for people.")
    logical_date: Instant | None = Field(description="The moment it is about.")
    data_interval_start: Instant | None = Field(description="The beginning of the data it is about.")
    data_interval_end: Instant | None = Field(description="The end of the data it is about.")
    run_after: Instant = Field(description="It does not start before.")
    queued_at: Instant = Field(description="When it was accepted.")
    started_at: Instant | None = Field(description="When its tasks began to be worked on.")
    ended_at: Instant | None = Field(description="When it ended.")
    duration: float | None = Field(description="Seconds from its start to its end; null until it has ended.")
    created_by: str = Field(description="Who triggered it: `key:` and the id of an API key.")


class RunCreated(Run):
    """The accepted run."""

    warnings: list[str] = Field(
        description="What may surprise: `dag_paused` (it waits until the DAG is unpaused), `run_after_in_future`."
    )


class RunPage(Answer):
    """A page of runs, newest first."""

    items: list[Run]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


class RunCancel(RequestBody):
    """Nothing needs to be said: `{}`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})


class RunClear(RequestBody):
    """Which instances to run again; together the fields narrow the choice down."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"only_failed": True, "downstream": True}]})

    task_ids: Annotated[list[AnId], Field(min_length=1, max_length=10_000)] | None = Field(
        default=None, description="Only these tasks. Left out: all.", examples=[["report"]]
    )
    only_failed: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Only instances that are failed or upstream_failed."
    )
    downstream: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Also everything downstream of the chosen ones."
    )
    dry_run: Annotated[bool, Field(strict=True)] = Field(
        default=False, description="Say what would be cleared, and do nothing."
    )


def render(record: RunRecord) -> dict[str, Any]:
    """Write a :class:`Run`."""
    return {
        "dag_id": record.dag_id,
        "run_id": record.run_id,
        "run_type": record.run_type,
        "state": record.state,
        "reason": record.reason,
        "version": record.version,
        "params": record.params,
        "labels": record.labels,
        "note": record.note,
        "logical_date": maybe(record.logical_date),
        "data_interval_start": maybe(record.data_interval_start),
        "data_interval_end": maybe(record.data_interval_end),
        "run_after": instant(record.run_after),
        "queued_at": instant(record.queued_at),
        "started_at": maybe(record.started_at),
        "ended_at": maybe(record.ended_at),
        "duration": seconds_between(record.started_at, record.ended_at),
        "created_by": record.created_by,
    }
