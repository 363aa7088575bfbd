"""What happened, as the independent checker reads it (``checker/FORMAT.md``)."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.simulation.hosts import Site
    from tests.simulation.store import Dump

Line = dict[str, Any]


def compose(dump: Dump, site: Site, *, overlap: float, grace: float, is_at_rest: bool) -> list[Line]:
    """Return the history of a seed, line by line."""
    setup = {
        "type": "setup",
        "order": "commit",
        "clients": True,
        "journal": True,
        "overlap": overlap,
        "grace": grace,
        "limits": {},
    }
    lines: list[Line] = [setup]
    lines += [
        {"type": "dag", "dag_id": dag_id, "version": version, "document": document}
        for dag_id, version, document in dump.documents
    ]
    lines += _log(dump)
    lines += site.journal
    lines += site.calls
    lines += [{"type": "run", **run} for run in dump.runs]
    lines += [{"type": "instance", **instance} for instance in dump.instances]
    lines += [{"type": "used", "key": key, "used": used} for key, used in dump.used.items()]
    if is_at_rest:
        lines += _left(site)
        lines.append({"type": "rest", "held": dump.held})
    return lines


def _left(site: Site) -> list[Line]:
    """Return the processes of tasks that are still there."""
    return [
        {"type": "left", "what": f"{process.name} on {host.name}", "attempt_id": site.tasks[process]}
        for host in site.hosts.values()
        for process in host.processes
        if process in site.tasks
    ]


def _log(dump: Dump) -> list[Line]:
    """Return the event log with the capacities between its rows, in the order of the commits."""
    found: list[Line] = []
    changes = list(dump.capacities)
    for event in dump.events:
        while changes and changes[0][0] < event["id"]:
            _, key, capacity = changes.pop(0)
            found.append({"type": "limit", "key": key, "capacity": capacity})
        found.append({"type": "event", **{name: value for name, value in event.items() if value is not None}})
    return found + [{"type": "limit", "key": key, "capacity": capacity} for _, key, capacity in changes]


def text(lines: list[Line]) -> str:
    """Return the history as JSON lines; the same history is the same text."""
    return "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines)


def digest(lines: list[Line]) -> str:
    return hashlib.sha256(text(lines).encode()).hexdigest()
