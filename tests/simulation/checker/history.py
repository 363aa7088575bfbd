"""Reading a history: lines into the three witnesses.  FORMAT.md says what each line is."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.checker.document import Document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.simulation.checker.violations import Line

RunKey = tuple[str, str]

_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "setup": (),
    "dag": ("dag_id", "version", "document"),
    "event": ("kind", "actor"),
    "limit": ("key", "capacity"),
    "task": ("what", "attempt_id", "dag_id", "run_id", "task_id", "fence"),
    "call": ("op", "status"),
    "run": ("dag_id", "run_id", "state"),
    "instance": ("dag_id", "run_id", "task_id", "state", "try_number"),
    "used": ("key", "used"),
    "pause": ("from", "until"),
    "left": ("what",),
    "rest": (),
}


class NotAHistory(ValueError):
    """A line is not what FORMAT.md says."""


@dataclass(slots=True)
class Setup:
    """What holds for the whole history."""

    order: str = "commit"
    clients: bool = True
    overlap: float = 0.0
    grace: float = 10.0
    journal: bool = False
    limits: dict[str, int | None] = field(default_factory=dict)

    def capacity(self, key: str) -> int | None:
        """Return the capacity that *key* always has; None where nothing is said."""
        if key in self.limits:
            return self.limits[key]
        fitting = [name for name in self.limits if name.endswith("*") and key.startswith(name[:-1])]
        return self.limits[max(fitting, key=len)] if fitting else None


@dataclass(slots=True)
class History:
    """The lines by what they are; each kind in its order."""

    setup: Setup = field(default_factory=Setup)
    #: ``event`` and ``limit`` lines.
    log: list[Line] = field(default_factory=list)
    documents: dict[tuple[str, int], Document] = field(default_factory=dict)
    #: The same, as they are stored.
    texts: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    journal: list[Line] = field(default_factory=list)
    calls: list[Line] = field(default_factory=list)
    runs: list[Line] = field(default_factory=list)
    instances: list[Line] = field(default_factory=list)
    used: list[Line] = field(default_factory=list)
    left: list[Line] = field(default_factory=list)
    pauses: list[Line] = field(default_factory=list)
    rest: Line | None = None

    def deleted(self) -> set[str]:
        """Return the DAGs that were deleted, with all that is theirs.

        What was not answered is believed to have happened only where the log does not tell of DAGs.
        """
        is_whole = self.setup.order == "commit"
        deletes = [(call["dag_id"], call["status"]) for call in self.calls if call["op"] == "delete"]
        answered = {dag_id for dag_id, status in deletes if status in range(200, 300)}
        unsure = {dag_id for dag_id, status in deletes if not is_whole and (status is None or status >= 500)}
        return answered | unsure | {line["dag_id"] for line in self.log if line.get("kind") == "dag.deleted"}

    def only_version(self, dag_id: str) -> int | None:
        """Return the version of a DAG that has had only one."""
        found = [version for name, version in self.documents if name == dag_id]
        return found[0] if len(found) == 1 else None

    def versions(self) -> dict[RunKey, int]:
        """Return the version that each run is pinned to, as far as anybody was told."""
        told: dict[RunKey, int] = {}
        for line in self.runs:
            if line.get("version") is not None:
                told[line["dag_id"], line["run_id"]] = line["version"]
        for call in self.calls:
            answer = call.get("answer") or {}
            if call["op"] in ("trigger", "cancel", "read") and answer.get("version") is not None:
                told.setdefault((call["dag_id"], answer["run_id"]), answer["version"])
        return told


def read(lines: Iterable[Line]) -> History:
    """Sort *lines* by what they are."""
    history = History()
    by_type: dict[str, list[Line]] = defaultdict(list)
    for number, line in enumerate(lines, 1):
        kind = line.get("type")
        if kind not in _NEEDED:
            raise NotAHistory(f"Line {number}: there is no type {kind!r}. FORMAT.md lists them.")
        missing = [name for name in _NEEDED[kind] if name not in line]
        if missing:
            raise NotAHistory(f"Line {number}: a line of type {kind!r} has {', '.join(missing)}. FORMAT.md lists them.")
        by_type["log" if kind in ("event", "limit") else kind].append(line)
    for line in by_type["setup"]:
        for name in ("order", "clients", "overlap", "grace", "journal", "limits"):
            if name in line:
                setattr(history.setup, name, line[name])
    for line in by_type["dag"]:
        history.documents[line["dag_id"], line["version"]] = Document.read(line["document"])
        history.texts[line["dag_id"], line["version"]] = line["document"]
    history.log = by_type["log"]
    history.journal, history.calls = by_type["task"], by_type["call"]
    history.runs, history.instances = by_type["run"], by_type["instance"]
    history.used, history.left, history.pauses = by_type["used"], by_type["left"], by_type["pause"]
    history.rest = by_type["rest"][-1] if by_type["rest"] else None
    return history


def parse(path: Path) -> Iterator[Line]:
    """Read the lines of a file."""
    with path.open() as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line: Any = json.loads(text)
            except ValueError as wrong:
                raise NotAHistory(f"Line {number} is not JSON: {wrong}.") from None
            if not isinstance(line, dict):
                raise NotAHistory(f"Line {number} is not a JSON object.")
            yield line


def instant(text: str) -> datetime:
    """Read a database time."""
    return datetime.fromisoformat(text)
