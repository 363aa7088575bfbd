"""Telling histories by hand: small verbs that write the lines of FORMAT.md, and what a mutation does to them."""

from __future__ import annotations

import copy
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.checker.violations import Line

Lines = list["Line"]
Pick = "Callable[[Line], bool]"

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
AGENT = "slots:local@x"
_ACTIVE = ("queued", "running", "cancelling")
_OVER = ("success", "failed", "skipped", "upstream_failed", "cancelled")


class Tale:
    """A history in the making; it knows the states, so that a good one is short to tell."""

    def __init__(self, **setup: Any) -> None:
        self.lines: Lines = [{"type": "setup", "limits": {"slots:local@*": 2}, **setup}]
        self.now = 0.0
        self._states: dict[tuple[str, str], str] = {}
        self._runs: dict[str, str] = {}
        self._fences: Counter[tuple[str, str]] = Counter()
        self._attempts: dict[tuple[str, str], str] = {}
        self._held: Counter[str] = Counter()

    def dag(self, tasks: dict[str, Any], *, version: int = 1, dag_id: str = "d", **fields: Any) -> Tale:
        document = {"tasks": {name: {"command": ["true"], **task} for name, task in tasks.items()}, **fields}
        self.lines.append({"type": "dag", "dag_id": dag_id, "version": version, "document": document})
        self._add(type="event", kind="dag.put", dag_id=dag_id, actor="key:test", data={"version": version})
        return self

    def put(self, tasks: dict[str, Any], *, version: int = 1, key: str | None = None, **fields: Any) -> Tale:
        """Accept a document, asked for and answered."""
        self.dag(tasks, version=version, **fields)
        body, answer = {"document": self.lines[-2]["document"]}, {"version": version, "changed": True}
        return self.call("put", None, 201 if version == 1 else 200, key=key, body=body, answer=answer)

    def patch(self, *, key: str | None = None, **body: Any) -> Tale:
        """Accept a change of what is not in the document, which is another value than before."""
        for name, value in body.items():
            kind = "tagged" if name == "tags" else "paused" if value else "unpaused"
            data = {"tags": value} if name == "tags" else None
            self.of_dag(kind, data=data)
        return self.call("patch", None, 200, key=key, body=body, answer=body)

    def of_dag(self, kind: str, **more: Any) -> Tale:
        return self._add(type="event", kind=f"dag.{kind}", dag_id="d", **{"actor": "key:test", **more})

    def call(self, op: str, run: str | None = None, status: int | None = 200, **more: Any) -> Tale:
        answer = more.pop("answer", {"run_id": run, "version": 1} if status and status < 300 else None)
        line = {"type": "call", "client": "c", "op": op, "dag_id": "d", "run_id": run, "status": status}
        self.lines.append({**line, "t0": self.now, "t1": self.now + 0.1, "answer": answer, "key": None, **more})
        self.now += 1
        return self

    def trigger(self, run: str, **more: Any) -> Tale:
        """Accept a run, asked for and answered."""
        self.run(run, "queued", actor="key:test")
        return self.call("trigger", None, 201, answer={"run_id": run, "version": 1, "state": "queued"}, **more)

    def run(self, run: str, to: str, *, actor: str = "scheduler", reason: str | None = None, **more: Any) -> Tale:
        """Take a run to another state."""
        was = self._runs.get(run)
        self._runs[run] = to
        return self.event(run, f"run.{to}", from_state=was, to_state=to, actor=actor, reason=reason, **more)

    def task(self, run: str, task: str, *steps: str, **more: Any) -> Tale:
        """Take an instance from state to state; only the last step has what is in *more*."""
        for to in steps:
            self._task(run, task, to, more if to is steps[-1] else {})
        return self

    def ready(self, run: str, *tasks: str) -> Tale:
        for task in tasks:
            self.task(run, task, "scheduled")
        return self

    def work(self, run: str, *tasks: str, end: str | None = "end") -> Tale:
        """Admit tasks and start them, with the journal that they write."""
        for task in tasks:
            self.task(run, task, "queued", "running")
            self.wrote(run, task, "start")
            if end:
                self.wrote(run, task, end)
        return self

    def good(self, run: str, *tasks: str) -> Tale:
        """Have tasks become ready, work and succeed."""
        for task in tasks:
            if self._states.get((run, task)) != "scheduled":
                self.ready(run, task)
            self.work(run, task).task(run, task, "success")
        return self

    def bad(self, run: str, task: str, to: str = "failed", how: str = "fail", **more: Any) -> Tale:
        """Have a ready task work and end badly."""
        self.work(run, task, end="fail" if how == "fail" else None)
        return self.task(run, task, to, data={"attempt": how}, **more)

    def wrote(self, run: str, task: str, what: str, **more: Any) -> Tale:
        """Have the last attempt of a task write into its journal."""
        fence = self._fences[run, task]
        line = {"type": "task", "what": what, "attempt_id": self._attempts[run, task], "dag_id": "d", "run_id": run}
        self.lines.append({**line, "task_id": task, "map_index": -1, "fence": fence, "t": self.now, **more})
        self.now += 0.1
        return self

    def event(self, run: str, kind: str, **more: Any) -> Tale:
        return self._add(type="event", kind=kind, dag_id="d", run_id=run, **{"actor": "scheduler", **more})

    def end(self, *, rest: bool = True) -> Tale:
        """Read everything that is stored, and say that there was rest."""
        for run, state in self._runs.items():
            counts = Counter(state for (of, _), state in self._states.items() if of == run)
            line = {"type": "run", "dag_id": "d", "run_id": run, "state": state, "version": 1, "counts": dict(counts)}
            self.lines.append(line)
        for (run, task), state in self._states.items():
            line = {"type": "instance", "dag_id": "d", "run_id": run, "task_id": task, "map_index": -1, "state": state}
            self.lines.append({**line, "try_number": self._fences[run, task]})
        used = self._held | {
            "dag:d:tasks": sum(state in _ACTIVE for state in self._states.values()),
            "dag:d:runs": sum(state in ("running", "cancelling") for state in self._runs.values()),
        }
        self.lines += [{"type": "used", "key": key, "used": used} for key, used in used.items()]
        if rest:
            self.lines.append({"type": "rest"})
        return self

    def wait(self, seconds: float) -> Tale:
        self.now += seconds
        return self

    def _task(self, run: str, task: str, to: str, more: dict[str, Any]) -> None:
        key = (run, task)
        was = self._states.get(key, "pending")
        self._states[key] = to
        active = was in _ACTIVE
        line: dict[str, Any] = {"from_state": was, "to_state": to, "task_id": task, "map_index": -1, "reason": None}
        if to == "queued":
            self._fences[key] += 1
            self._attempts[key] = f"{run}.{task}.{self._fences[key]}"
            line["data"] = {"slots": AGENT}
            self._held[AGENT] += 1
        elif active and to not in ("running", "cancelling"):
            self._held[AGENT] -= 1
        if to == "queued" or active:
            line["attempt_id"] = self._attempts[key]
        if to == "success" and not active:
            pass  # an empty task
        self.event(run, f"task.{to}", try_number=self._fences[key], **{**line, **more})

    def _add(self, **line: Any) -> Tale:
        self.lines.append({"at": (BEGIN + timedelta(seconds=self.now)).isoformat(), **line})
        self.now += 0.001
        return self


def numbered(lines: Iterable[Line]) -> Lines:
    """Give the events of each run their dense numbers, in the order in which they stand."""
    counts: Counter[tuple[str, str]] = Counter()
    made = []
    for line in copy.deepcopy(list(lines)):
        if line["type"] == "event" and line.get("run_id") and "run_seq" not in line:
            counts[line["dag_id"], line["run_id"]] += 1
            line["run_seq"] = counts[line["dag_id"], line["run_id"]]
        made.append(line)
    return made
