"""Compiled DAG versions in memory.

A version never changes, so its plan is kept; what a completion costs does not grow with the DAG.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Final

from sqlalchemy import bindparam, select

from dag.errors import NotFound
from dag.plan import Plan, compile_plan
from dag.spec import stored
from metastore.models.dags import dag_versions

if TYPE_CHECKING:
    from sqlalchemy import Connection

#: Plans are bounded by their tasks, not by their number: 200,000 tasks are about 150 MB.
_MOST_TASKS: Final = 200_000

_DOCUMENT = select(dag_versions.c.document).where(
    dag_versions.c.dag_id == bindparam("dag_id"), dag_versions.c.version == bindparam("version")
)


class PlanCache:
    """The least recently used plans go first.  Safe for the store's threads.

    Keyed by content, not by version: a DAG that was deleted and made again starts at version 1 with another document,
    and other processes would not hear of it.
    """

    def __init__(self) -> None:
        self._plans: OrderedDict[tuple[str, str], Plan] = OrderedDict()
        self._tasks = 0
        self._lock = Lock()

    def get(self, conn: Connection, dag_id: str, version: int, content_hash: str) -> Plan:
        """Return the plan of one version, from memory or from its stored document."""
        key = (dag_id, content_hash)
        with self._lock:
            plan = self._plans.get(key)
            if plan is not None:
                self._plans.move_to_end(key)
                return plan
        document = conn.execute(_DOCUMENT, {"dag_id": dag_id, "version": version}).scalar()
        if document is None:
            raise NotFound("DAG version", f"{dag_id} {version}")
        plan = compile_plan(stored(document, dag_id=dag_id))
        with self._lock:
            self._plans[key] = plan
            self._tasks += len(plan.tasks)
            while self._tasks > _MOST_TASKS and len(self._plans) > 1:
                _, gone = self._plans.popitem(last=False)
                self._tasks -= len(gone.tasks)
        return plan
