"""How the calls of the API go together: what one answers, the next one takes.

The document has no links, for no client uses them; schemathesis makes its stories from them.
"""

from __future__ import annotations

import copy
from typing import Any, Final

_DAG: Final = {"dag_id": "$request.path.dag_id"}
_RUN: Final = {**_DAG, "run_id": "$response.body#/run_id"}
_SAME_RUN: Final = {**_DAG, "run_id": "$request.path.run_id"}
_TASK: Final = {**_SAME_RUN, "task_id": "$response.body#/items/0/task_id"}
_KEY: Final = {"key_id": "$response.body#/key_id"}
_WORKER: Final = {"worker_id": "$response.body#/worker_id"}
#: From which call, with which statuses, to which calls, with which parameters.
_LINKS: Final = (
    (
        "put_dag",
        (200, 201),
        ("get_dag", "patch_dag", "delete_dag", "list_versions", "create_run", "list_runs"),
        _DAG,
    ),
    ("put_dag", (200, 201), ("get_version",), {**_DAG, "version": "$response.body#/version"}),
    ("patch_dag", (200,), ("get_dag", "delete_dag"), _DAG),
    ("create_run", (201,), ("get_run", "cancel_run", "clear_run", "list_tasks", "list_events"), _RUN),
    ("cancel_run", (202,), ("get_run", "clear_run", "list_events"), _SAME_RUN),
    ("clear_run", (200,), ("get_run", "cancel_run"), _SAME_RUN),
    ("list_tasks", (200,), ("get_task", "list_attempts", "get_logs"), _TASK),
    ("delete_dag", (204,), ("get_dag", "list_runs"), _DAG),
    ("create_key", (201,), ("get_key", "revoke_key"), _KEY),
    ("revoke_key", (204,), ("get_key",), {"key_id": "$request.path.key_id"}),
    ("register", (200,), ("get_worker", "drain_worker"), _WORKER),
)


def linked(document: dict[str, Any]) -> dict[str, Any]:
    """Return *document* with links."""
    made = copy.deepcopy(document)
    calls = {one["operationId"]: one for item in made["paths"].values() for one in item.values()}
    for source, statuses, others, parameters in _LINKS:
        for status in statuses:
            links = calls[source]["responses"][str(status)].setdefault("links", {})
            links.update({name: {"operationId": name, "parameters": parameters} for name in others})
    return made
