"""What queries give and commands return: frozen values that mirror the columns, detached from any connection."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sqlalchemy import ColumnElement, FromClause, Row

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class DagRecord:
    """A DAG as it is now; its document is in the record of its current version."""

    dag_id: str
    version: int
    revision: int
    paused: bool
    description: str | None
    tags: list[str]
    owners: list[str]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class DagVersionRecord:
    """One immutable version of a DAG."""

    dag_id: str
    version: int
    content_hash: str
    document: dict[str, Any]
    task_count: int
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class DagVersionSummary:
    """One version of a DAG, without its document."""

    dag_id: str
    version: int
    content_hash: str
    task_count: int
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run."""

    id: int
    dag_id: str
    run_id: str
    version: int
    content_hash: str
    run_type: str
    state: str
    reason: str | None
    params: dict[str, Any]
    labels: dict[str, str]
    note: str | None
    logical_date: datetime | None
    data_interval_start: datetime | None
    data_interval_end: datetime | None
    run_after: datetime
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None
    created_instances: int
    materialised: bool
    unfinished: int
    bad: int
    cancelled: int
    cancel_asked: bool
    seq: int
    quarantined_until: datetime | None
    quarantines: int
    request_id: str
    created_by: str


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task instance; its output is a query of its own."""

    id: int
    run: int
    task_no: int
    task_id: str
    map_index: int
    state: str
    reason: str | None
    try_number: int
    failures: int
    losses: int
    n_success: int
    n_failed: int
    n_upstream_failed: int
    n_skipped: int
    n_cancelled: int
    due_at: datetime | None
    executor: str
    queue: str
    priority_weight: int
    blocked_on: str | None
    scheduled_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try of a task instance."""

    id: str
    run: int
    instance: int
    try_number: int
    state: str
    executor: str
    queue: str | None
    placed_on: str | None
    boot_id: str | None
    #: SHA-256 of its remote supervisor's secret; null where that is one of this product's own hosts.
    key_hash: str | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    launch_after: datetime | None
    deferred_reason: str | None
    relaunches: int
    stop_reason: str | None
    stop_asked_at: datetime | None
    cause: str | None
    exit_code: int | None
    signal: int | None
    error: str | None
    log_size: int | None
    log_dropped: int | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """Something that happened."""

    id: int
    #: The writing transaction on Postgres; None on SQLite.
    xid: int | None
    at: datetime
    kind: str
    dag_id: str | None
    run: int | None
    run_id: str | None
    run_seq: int | None
    task_id: str | None
    map_index: int | None
    try_number: int | None
    attempt_id: str | None
    from_state: str | None
    to_state: str | None
    actor: str
    reason: str | None
    data: Any


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key, with the hash of its secret part and never the secret."""

    key_id: str
    name: str
    secret_hash: str
    scopes: list[str]
    dag_prefix: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    #: The queues that a worker with this key may serve; None: all.
    queues: list[str] | None = None


@dataclass(frozen=True, slots=True)
class ExecutorRecord:
    """One executor as an agent has announced it; its slots are the agent's own where *placed*, else shared by all."""

    name: str
    agent_id: str
    host: str
    placed: bool
    #: Its slots are those of the live workers of its queues.
    by_queue: bool
    #: None is unbounded.
    slots: int | None
    used: int
    status: str
    detail: str
    seen_at: datetime
    lease_until: datetime | None


def columns(record: type, table: FromClause) -> list[ColumnElement[Any]]:
    """Return the columns of *table* that make up *record*, in the record's order."""
    return [table.c[field.name] for field in fields(record)]


def one(record: Callable[..., R], row: Row[Any] | None) -> R | None:
    """Return *row*, selected by :func:`columns`, as a record."""
    return None if row is None else record(*row)


def many(record: Callable[..., R], rows: Iterable[Row[Any]]) -> list[R]:
    """Return *rows*, selected by :func:`columns`, as records."""
    return [record(*row) for row in rows]
