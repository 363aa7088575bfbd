"""Limits, replayed: who holds what at every point of the log.

An admission must find room; lowering a limit evicts nobody.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.checker.history import History
    from tests.simulation.checker.violations import Line, Report


class Capacity:
    """Everything that is limited, and by how much just now."""

    def __init__(self, history: History, report: Report) -> None:
        self._setup = history.setup
        self._report = report
        self._documents = history.documents
        self._now: dict[str, int | None] = {}
        self._held: dict[str, dict[object, Line]] = defaultdict(dict)
        put = {line["dag_id"] for line in history.log if line.get("kind") == "dag.put"}
        for dag_id, version in sorted(history.documents, reverse=True):
            if dag_id not in put:  # the log does not say when: the first one holds
                self.follow(dag_id, version)

    def follow(self, dag_id: str, version: int) -> None:
        """Take the limits of a DAG from a version of its document."""
        document = self._documents.get((dag_id, version))
        if document is not None:
            self._now[f"dag:{dag_id}:runs"] = document.max_active_runs
            self._now[f"dag:{dag_id}:tasks"] = document.max_active_tasks

    def set(self, key: str, capacity: int | None) -> None:
        """Change a limit."""
        self._now[key] = capacity

    def take(self, key: str, holder: object, row: Line) -> None:
        """Admit *holder*."""
        held = self._held[key]
        held[holder] = row
        capacity = self._now[key] if key in self._now else self._setup.capacity(key)
        self._report.counts["admissions"] += 1
        if capacity is not None and len(held) > capacity and self._setup.order == "commit":
            rows = [*held.values()][-8:]
            self._report.add("I-12", f"{len(held)} hold the limit {key}, which has room for {capacity}", *rows)

    def give_back(self, key: str, holder: object) -> None:
        """Let *holder* go."""
        self._held[key].pop(holder, None)

    def taken(self) -> dict[str, Line]:
        """Return the limits that somebody holds now, each with the last one's admission."""
        return {key: [*held.values()][-1] for key, held in self._held.items() if held}

    def used(self, key: str) -> int:
        """How many hold a limit now."""
        return len(self._held[key])
