"""From the body of a task, as a scenario writes it, to the document that a user would write to get it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from dag.durations import format_duration
from dag.errors import DocumentInvalid
from dag.spec import load

if TYPE_CHECKING:
    from worker.protocol import TaskBody

_PYTHON: Final = ("call", "source", "args", "kwargs", "interpreter")
#: What a document says in words of its own, or not at all.
_KNOWN: Final = {
    "dag_id", "run_id", "task_id", "map_index", "try_number", "logical_date", "kind", "argv", "shell", "env", "cwd",
    "timeout", "kill_grace", "on_lost_contact", *_PYTHON,
}  # fmt: skip


def document_of(body: TaskBody, *, executor: str, queue: str) -> tuple[dict[str, Any], bool]:
    """Return the document of a DAG with this one task, and whether it says all of *body*.

    What no document can say (a NUL in a variable, the third try) is still an attempt that a supervisor may be given:
    such a task is put there as a stand-in, and its body is exchanged when it starts.
    """
    common = {"executor": executor, "queue": queue}
    given: dict[str, Any] = dict(body)
    if _can_be_said(given):
        task = common | _task(given)
        document = {"dag_id": body["dag_id"], "tasks": {body["task_id"]: task}}
        try:
            load(document)
        except DocumentInvalid:
            pass
        else:
            return document, True
    return {"dag_id": "kit", "tasks": {"task": {**common, "command": ["true"]}}}, False


def _can_be_said(body: dict[str, Any]) -> bool:
    return (
        set(body) <= _KNOWN
        and (body["map_index"], body["try_number"]) == (-1, 1)
        and body["kind"] in ("command", "python")
        and "${" not in json.dumps(body)  # it would be a reference there
    )


def _task(body: dict[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = {
        "env": body["env"],
        "cwd": body["cwd"],
        "kill_grace": _duration(body["kill_grace"]),
    }
    if body["timeout"] is not None:
        task["execution_timeout"] = _duration(body["timeout"])
    if "on_lost_contact" in body:
        task["on_lost_contact"] = body["on_lost_contact"]
    if body["kind"] == "python":
        task["python"] = {name: body[name] for name in _PYTHON if name in body}
    elif body.get("shell") is not None:
        task |= {"command": body["shell"], "shell": True}
    else:
        task["command"] = body["argv"]
    return task


def _duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=seconds))
