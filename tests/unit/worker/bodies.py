"""Task bodies and attempts, valid by default: say only what matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from worker.attempt import Attempt

if TYPE_CHECKING:
    from worker.protocol import TaskBody


def a_body(**changes: Any) -> TaskBody:
    body: dict[str, Any] = {
        "dag_id": "orders",
        "run_id": "manual__1",
        "task_id": "load",
        "map_index": -1,
        "try_number": 2,
        "logical_date": "2026-01-02T00:00:00Z",
        "kind": "command",
        "argv": ["true"],
        "env": {},
        "cwd": None,
        "timeout": None,
        "kill_grace": 10.0,
    }
    return cast("TaskBody", {**body, **changes})


def an_attempt(**changes: Any) -> Attempt:
    attempt = Attempt("0190-a", phase="running", body=a_body(), started_at=100.0, ended_at=101.0)
    for name, value in changes.items():
        setattr(attempt, name, value)
    return attempt
