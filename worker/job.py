"""What the zygote is told about a task: everything that becomes its process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from worker import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.protocol import TaskBody
    from worker.settings import AgentSettings
    from worker.spool import Spool


def build(
    attempt_id: str, body: TaskBody, *, settings: AgentSettings, spool: Spool, base: Mapping[str, str]
) -> dict[str, Any]:
    """Return the message that has the zygote fork this attempt."""
    work = spool.work(attempt_id)
    output = spool.output(attempt_id)
    cwd = body["cwd"]
    return {
        "id": attempt_id,
        "argv": _argv(body, settings.task_python) if body["kind"] == "command" else None,
        "python": {
            "code_dir": settings.code_dir,
            "call": body.get("call"),
            "source": body.get("source"),
            "args": body.get("args"),
            "kwargs": body.get("kwargs"),
        },
        "env": environment.of_task(base, attempt_id, body, work, output),
        "cwd": work if cwd is None else os.path.join(settings.code_dir, cwd),  # noqa: PTH118  a string is wanted
        "base": settings.code_dir if cwd is not None else "",
        "output": output,
        "error": spool.error_file(attempt_id),
    }


def _argv(body: TaskBody, task_python: str) -> list[str]:
    """Return the command; ``python`` and ``python3`` mean the interpreter of tasks, wherever it is."""
    shell = body.get("shell")
    if shell is not None:
        return ["/bin/sh", "-c", shell]
    program, *arguments = body.get("argv") or []
    return [task_python if program in ("python", "python3") else program, *arguments]
