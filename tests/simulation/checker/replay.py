"""The event log, replayed: runs and their verdicts.  Instances and attempts are :mod:`.instances`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.checker import steps
from tests.simulation.checker.capacity import Capacity
from tests.simulation.checker.history import instant
from tests.simulation.checker.instances import Instances
from tests.simulation.checker.story import Run

if TYPE_CHECKING:
    from tests.simulation.checker.history import History, RunKey
    from tests.simulation.checker.story import Attempt
    from tests.simulation.checker.violations import Line, Report


class Replay:
    """What the log says, event by event, with every violation on the way."""

    def __init__(self, history: History, report: Report) -> None:
        self.runs: dict[RunKey, Run] = {}
        self.capacity = Capacity(history, report)
        self._history = history
        self._report = report
        self._versions = history.versions()
        self._not_before = _not_before(history)
        self._instances = Instances(self.capacity, report)

    @property
    def attempts(self) -> dict[str, Attempt]:
        """Every attempt that there ever was."""
        return self._instances.attempts

    def goes_on(self, attempt_id: str) -> bool:
        """Whether an attempt was given up before and goes on without its contact, as its author wants it."""
        attempt = self.attempts.get(attempt_id)
        if attempt is None or attempt.ended is None or (attempt.ended.get("data") or {}).get("attempt") != "lose":
            return False
        dag_id, run_id, task_id, _ = attempt.instance
        task = self.runs[dag_id, run_id].task(task_id)
        return task is not None and task.goes_on

    def play(self) -> None:
        """Read the whole log."""
        for at, line in enumerate(self._history.log):
            if line["type"] == "limit":
                self.capacity.set(line["key"], line["capacity"])
                continue
            self._report.counts["events"] += 1
            if line.get("run_id") is not None:
                self._of_run(at, line)
            elif line["kind"] == "dag.put" and (line.get("data") or {}).get("version"):
                self.capacity.follow(line["dag_id"], line["data"]["version"])
            elif line["kind"] == "limit.healed":
                self._report.add("I-13", "a limit was counted wrong, and had to be healed", line)
        for run in self.runs.values():
            self._closed(run, None)

    def _of_run(self, at: int, line: Line) -> None:
        key = (line["dag_id"], line["run_id"])
        run = self.runs.get(key)
        if run is None or (line["kind"] == "run.queued" and line.get("from_state") is None):
            run = self._accepted(key, run, line)
        seq: int = line["run_seq"] if "run_seq" in line else line["seq"]
        if seq != run.seq + 1:
            self._report.add("I-18", f"run_seq {seq} comes after {run.seq}: the log of the run is not whole", line)
            run.doubted = True
        run.seq = seq
        if line["kind"].startswith("task."):
            self._closed(run, line)
            self._instances.take(run, at, line)
        elif line["kind"] == "run.healed":
            self._report.add("I-8", "counters of the run were wrong, and had to be healed", line)
        elif line["kind"] == "run.materialising":
            run.created = (line.get("data") or {}).get("created")
        elif line.get("to_state") is not None:
            self._closed(run, line)
            self._step(run, line)

    def _accepted(self, key: RunKey, there: Run | None, line: Line) -> Run:
        if there is not None:
            self._report.add("I-16", "two runs have one identity", there.row, line)
        elif line["kind"] != "run.queued":
            self._report.add("I-18", "the log of this run does not begin with its acceptance", line)
        self._report.counts["runs"] += 1
        run = self.runs[key] = Run(*key)
        run.version = self._versions.get(key) or self._history.only_version(run.dag_id)
        if run.version is not None:
            run.document = self._history.documents.get((run.dag_id, run.version))
        if line["kind"] != "run.queued":
            run.seq = (line.get("run_seq") or line.get("seq") or 1) - 1
            run.state = line.get("from_state") or "running"
        return run

    def _step(self, run: Run, line: Line) -> None:
        before, to = run.state, line["to_state"]
        legal = to in steps.RUN.get(before, {"queued"})
        if run.final and (not legal or not line["actor"].startswith("key:")):
            self._report.add("I-7", f"the run had ended as {before}, and nobody cleared it", run.row, line)
        elif (line.get("from_state") or "") != before:
            told = line.get("from_state")
            self._report.add("I-18", f"the run goes on from {told}, and the log left it {before}", run.row, line)
        elif not legal:
            self._report.add("STEP", f"no run goes from {before} to {to}", run.row, line)
        self._limits(run, to, line)
        if to == "queued":
            run.stop, run.reopened = None, False
            if run.final and line["actor"].startswith("key:"):
                run.reopenings.append(line)
        elif to == "running":
            self._never_early(run, line)
        elif to == "cancelling":
            run.stop = line.get("reason") or "user"
            run.cancels.append(line)
        elif to == "cancelled" and before == "queued":
            run.stop, run.closing = "user", True
            run.cancels.append(line)
        elif to in steps.RUN_FINAL and legal:
            self._verdict(run, to, line)
        run.state, run.row = to, line
        run.states.append((to, line))

    def _limits(self, run: Run, to: str, line: Line) -> None:
        key, holder = f"dag:{run.dag_id}:runs", run.run_id
        if to == "running":
            self.capacity.take(key, holder, line)
        elif to in steps.RUN_FINAL:
            self.capacity.give_back(key, holder)

    def _never_early(self, run: Run, line: Line) -> None:
        due = self._not_before.get((run.dag_id, run.run_id))
        if due is not None and instant(line["at"]) < instant(due):
            self._report.add("I-15", f"the run started before its run_after, {due}", line)

    def _verdict(self, run: Run, to: str, line: Line) -> None:
        still = [one for one in run.instances.values() if one.state not in steps.TASK_FINAL and not run.doubted]
        for one in still[:3]:
            self._report.add("I-8", f"the run ended while {one.key[2]} is {one.state}", one.row, line)
        if still or run.document is None or run.doubted:
            return
        missing = set(run.document.tasks) - {task_id for task_id, _ in run.instances}
        if len(missing) > self._uncreated(run):
            self._report.add("I-8", f"the run ended and {min(missing)} never did", line)
            return
        verdict = _judge(run)
        if verdict != to:
            rows = [one.row for one in run.instances.values()][:8]
            self._report.add("I-8", f"the run ended as {to}, and its instances say {verdict}", line, *rows)

    def _uncreated(self, run: Run) -> int:
        """Return how many tasks may have no instance: those that were not created yet when all was stopped."""
        stopped = run.stop is not None or (run.document is not None and run.document.fail_fast)
        if not stopped or run.document is None:
            return 0
        if "running" not in [state for state, _ in run.states]:
            return len(run.document.tasks)
        return 0 if run.created is None else len(run.document.tasks) - run.created

    def _closed(self, run: Run, line: Line | None) -> None:
        """Look at what had to be done in the same transaction as the event before *line*."""
        clears = line is not None and line.get("to_state") == "pending"
        requeues = line is not None and line["kind"] == "run.queued"
        if run.reopened and not clears and not requeues:
            run.reopened = False
            self._report.add("I-8", "instances of the run are open again, and it was not queued again", run.row, line)
        if run.closing and (line is None or line.get("to_state") != "cancelled"):
            run.closing = False
            still = [one for one in run.instances.values() if one.state not in steps.TASK_FINAL]
            for one in still[:3]:
                self._report.add("I-8", f"the run was cancelled and left {one.key[2]} {one.state}", one.row, run.row)


def _judge(run: Run) -> str:
    """Return how a run ends whose instances have ended like this."""
    ends = [(one.state, run.task(task_id)) for (task_id, _), one in run.instances.items()]
    if run.stop == "user" and any(state == "cancelled" for state, _ in ends):
        return "cancelled"
    bad = [
        state for state, task in ends if state in ("failed", "upstream_failed") and not (task and task.allow_failure)
    ]
    return "failed" if bad or run.stop == "run_timeout" else "success"


def _not_before(history: History) -> dict[RunKey, str]:
    """Return the run_after of each run that was accepted; what a refused request asked for binds nobody."""
    found: dict[RunKey, str] = {}
    for call in history.calls:
        if call["op"] != "trigger" or call["status"] not in range(200, 300):
            continue
        answer, body = call.get("answer") or {}, call.get("body") or {}
        due = body.get("run_after") or answer.get("run_after")
        run_id = answer.get("run_id") or call.get("run_id")
        if run_id is not None and due is not None:
            found[call["dag_id"], run_id] = due
    return found
