"""What the zygote is told about a task: everything that becomes its process."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from worker import environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.protocol import TaskBody
    from worker.settings import AgentSettings
    from worker.spool import Spool

_RUNNER: Final = str(Path(__file__).with_name("runner.py"))
_HTTP: Final = str(Path(__file__).with_name("http_task.py"))
#: How long a request without a timeout may take.
_HTTP_SECONDS: Final = 300.0
#: What means the interpreter of all tasks.
_OURS: Final = frozenset({"python", "python3"})


def build(
    attempt_id: str, body: TaskBody, *, settings: AgentSettings, spool: Spool, base: Mapping[str, str]
) -> dict[str, Any]:
    """Return the message that has the zygote fork this attempt."""
    work = spool.work(attempt_id)
    cwd = body["cwd"]
    job = {
        "id": attempt_id,
        "refused": "",
        "lasts": lasts(body),
        "argv": None,
        "stdin": None,
        "interpreter": None,
        "python": None,
        "env": environment.of_task(base, attempt_id, body, work, spool.output(attempt_id)),
        "cwd": work if cwd is None else os.path.join(settings.code_dir, cwd),  # noqa: PTH118  a string is wanted
        "base": settings.code_dir if cwd is not None else "",
        "output": spool.output(attempt_id),
        "error": spool.error_file(attempt_id),
    }
    if body["kind"] == "command":
        return {**job, "argv": _argv(body, settings.task_python)}
    if body["kind"] == "http":
        return _http(job, body, settings)
    if body["kind"] == "python":
        return _python(job, body, settings)
    return {**job, "refused": f"this worker does not know tasks of the kind {body['kind']!r}; update it"}


def lasts(body: TaskBody) -> bool:
    """Whether a task goes on when the lease of its agent is over."""
    return body.get("on_lost_contact") == "continue"


def _argv(body: TaskBody, task_python: str) -> list[str]:
    """Return the command; ``python`` and ``python3`` mean the interpreter of tasks, wherever it is."""
    shell = body.get("shell")
    if shell is not None:
        return ["/bin/sh", "-c", shell]
    program, *arguments = body.get("argv") or []
    return [task_python if program in _OURS else program, *arguments]


def _python(job: dict[str, Any], body: TaskBody, settings: AgentSettings) -> dict[str, Any]:
    """Return *job* as a call: in a fork of the zygote, or in an interpreter that it names."""
    names = ("call", "source", "args", "kwargs")
    task = {"code_dir": settings.code_dir, **{name: body.get(name) for name in names}}
    interpreter = body.get("interpreter")
    if interpreter is None or interpreter in _OURS:
        return {**job, "python": task}
    stdin = {"python": task, "output": job["output"], "error": job["error"]}
    return {**job, "argv": [interpreter, _RUNNER], "stdin": stdin, "interpreter": interpreter}


def _http(job: dict[str, Any], body: TaskBody, settings: AgentSettings) -> dict[str, Any]:
    """Return *job* as a request, which our own interpreter makes; its working folder is always its own."""
    stdin = {
        "http": body["http"],
        "allow": settings.http_allow,
        "ports": settings.http_ports,
        # The agent ends it at its timeout, and says so; a request that has none must end too.
        "limit": _HTTP_SECONDS if body["timeout"] is None else body["timeout"] + _HTTP_SECONDS,
        "output": job["output"],
        "error": job["error"],
    }
    return {
        **job,
        "argv": [sys.executable, "-I", "-S", _HTTP],
        "stdin": stdin,
        "cwd": job["env"]["RUNYARD_WORK_DIR"],
        "base": "",
    }
