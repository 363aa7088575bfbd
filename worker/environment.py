"""The environment of a task: an allow-list of the agent's own, what the task asks for, and ``RUNYARD_*``.

Never inherited whole: the service's environment has the database's password in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.protocol import TaskBody

#: Names that are handed on.  No proxy settings: their URLs may hold passwords; a task asks for them in its ``env``.
ALLOWED: Final = frozenset(
    {
        "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "SHELL", "SSL_CERT_DIR", "SSL_CERT_FILE",
        "TMPDIR", "TZ", "USER",
    }
)  # fmt: skip
#: What every process below one agent carries, so that its successor finds what it left behind.  Not a credential.
MARKER: Final = "RUNYARD_AGENT_ID"

_DEFAULT_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


def allowed(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of *environ* that may be handed on."""
    kept = {name: value for name, value in environ.items() if name in ALLOWED or name.startswith("LC_")}
    kept.setdefault("PATH", _DEFAULT_PATH)
    return kept


def base(environ: Mapping[str, str], agent_id: str, task_python: str) -> dict[str, str]:
    """Return what all tasks of an agent have in common.

    The folder of the tasks' interpreter comes first on the PATH, as in an activated virtual environment.
    """
    kept = allowed(environ)
    folder = os.path.dirname(task_python)  # noqa: PTH120  a bare name must stay without a folder, not become "."
    if folder:
        kept["PATH"] = os.pathsep.join([folder, kept["PATH"]])
    return {**kept, "PYTHONUNBUFFERED": "1", MARKER: agent_id}


def of_task(base: Mapping[str, str], attempt_id: str, body: TaskBody, work: str, output: str) -> dict[str, str]:
    """Return the whole environment of one attempt; nothing of the task's own can replace a ``RUNYARD_*``."""
    return {
        **base,
        **body["env"],
        MARKER: base[MARKER],
        "RUNYARD_DAG_ID": body["dag_id"],
        "RUNYARD_RUN_ID": body["run_id"],
        "RUNYARD_TASK_ID": body["task_id"],
        "RUNYARD_MAP_INDEX": str(body["map_index"]),
        "RUNYARD_TRY_NUMBER": str(body["try_number"]),
        "RUNYARD_ATTEMPT_ID": attempt_id,
        "RUNYARD_FENCE": str(body["try_number"]),
        "RUNYARD_LOGICAL_DATE": body["logical_date"],
        "RUNYARD_WORK_DIR": work,
        "RUNYARD_OUTPUT": output,
    }
