"""The event log, replayed: task instances and their attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.checker import steps, trigger_rules
from tests.simulation.checker.budgets import check_budget, check_delay
from tests.simulation.checker.story import Attempt

if TYPE_CHECKING:
    from tests.simulation.checker.capacity import Capacity
    from tests.simulation.checker.story import Instance, Run
    from tests.simulation.checker.violations import Line, Report

#: What a trigger rule's verdict makes of a pending instance.
_SETTLED = {"skip": "skipped", "upstream_failed": "upstream_failed"}


class Instances:
    """Follows every instance of every run."""

    def __init__(self, capacity: Capacity, report: Report) -> None:
        self.attempts: dict[str, Attempt] = {}
        self._capacity = capacity
        self._report = report

    def take(self, run: Run, at: int, line: Line) -> None:
        """Take the next event of an instance."""
        index = line.get("map_index")
        instance = run.instance(line["task_id"], -1 if index is None else index)
        if instance.doubted and line.get("from_state"):
            instance.state, instance.doubted = line["from_state"], False
        before = self._report.total.total()
        self._take(run, instance, at, line)
        if self._report.total.total() != before:
            run.doubted = instance.doubted = True

    def _take(self, run: Run, instance: Instance, at: int, line: Line) -> None:
        if run.document is not None and line["task_id"] not in run.document.tasks:
            self._report.add("I-6", f"the pinned version {run.version} has no task {line['task_id']}", line)
        to = line["to_state"]
        if to == "pending":
            self._clear(run, instance, line)
        elif to == "queued":
            self._queue(run, instance, at, line)
        elif to == "running":
            self._start(run, instance, at, line)
        elif instance.active or _ends_an_attempt(line):
            self._end(run, instance, at, line)
        else:
            self._settle(run, instance, line)
        instance.state, instance.row = to, line

    def _clear(self, run: Run, instance: Instance, line: Line) -> None:
        if instance.state not in steps.TASK_FINAL:
            self._report.add("STEP", f"an instance that is {instance.state} was cleared", instance.row, line)
        elif not line["actor"].startswith("key:"):
            self._report.add("I-7", "nobody with a key asked for this clear", instance.row, line)
        elif run.state == "cancelling":
            self._report.add("I-21", "cleared while its run is being cancelled: it would start again", run.row, line)
        else:
            self._fence(instance, line)
        run.reopened = run.reopened or run.final
        instance.failures = instance.losses = 0
        run.clears.append(line)

    def _queue(self, run: Run, instance: Instance, at: int, line: Line) -> None:
        attempt_id, fence = line.get("attempt_id") or "", line.get("try_number") or 0
        self._report.counts["attempts"] += 1
        if instance.active:
            self._report.add("I-2", "a second attempt while one is active", instance.row, line)
        elif not attempt_id:
            self._report.add("STEP", "queued without an attempt", instance.row, line)
        elif attempt_id in self.attempts:
            self._report.add("I-1", "an attempt id was used twice", self.attempts[attempt_id].queued, line)
        elif fence != instance.fence + 1:
            self._report.add("I-1", f"the fence goes from {instance.fence} to {fence}", instance.row, line)
        elif self._stopped(run, line) and self._goes_on(instance, line):
            self._legal(instance, line)
        if instance.attempt is not None:
            self._free(run, instance.attempt)
        instance.fence = fence
        instance.attempt = self.attempts[attempt_id] = Attempt(attempt_id, instance.key, fence, line, queued_at=at)
        if not _slots(instance.attempt):
            self._report.add("I-12", "an attempt was admitted that takes no slot", line)
        for key in _limits(run, instance.attempt):
            self._capacity.take(key, attempt_id, line)

    def _start(self, run: Run, instance: Instance, at: int, line: Line) -> None:
        attempt = self.attempts.get(line.get("attempt_id") or "")
        self._report.counts["starts"] += 1
        if not self._stopped(run, line):
            pass
        elif attempt is None or attempt is not instance.attempt or attempt.ended is not None:
            self._report.add("I-3", "an attempt started that is not the current one", instance.row, line)
        elif attempt.started is not None:
            self._report.add("I-3", "an attempt was started twice", attempt.started, line)
        elif self._goes_on(instance, line) and self._fence(instance, line):
            self._legal(instance, line)
        if attempt is not None and attempt.started is None:
            attempt.started, attempt.started_at = line, at
            attempt.inputs = _inputs(run, instance)

    def _end(self, run: Run, instance: Instance, at: int, line: Line) -> None:
        to = line["to_state"]
        attempt = self.attempts.get(line.get("attempt_id") or "")
        if attempt is None or attempt is not instance.attempt:
            self._report.add("I-4", "the end of an attempt that is not the current one changed something",
                             instance.row, line)  # fmt: skip
            return
        if attempt.ended is not None:
            self._report.add("I-4", "two ends of one attempt were accepted", attempt.ended, line)
            return
        known = self._goes_on(instance, line) and self._fence(instance, line) and self._legal(instance, line)
        if known:
            self._caused(run, instance, line)
        if to == "cancelling":
            return
        if known:
            self._attempt_step(attempt, line)
            check_budget(self._report, run.task(line["task_id"]), instance, line)
        attempt.ended, attempt.ended_at = line, at
        self._free(run, attempt)

    def _settle(self, run: Run, instance: Instance, line: Line) -> None:
        """Take a step without an attempt: ready, or ended without one."""
        to, before = line["to_state"], instance.state
        if before in steps.TASK_FINAL:
            self._report.add("I-7", f"the instance had ended as {before}", instance.row, line)
            return
        if not (self._goes_on(instance, line) and self._legal(instance, line) and self._fence(instance, line)):
            return
        if to == "scheduled" and not self._stopped(run, line):
            return
        if before == "up_for_retry" and to == "scheduled":
            check_delay(self._report, run.task(line["task_id"]), instance, line)
        elif before == "pending" and not self._by_a_stop(line):
            self._rule(run, line)
        self._caused(run, instance, line)

    def _rule(self, run: Run, line: Line) -> None:
        task = run.task(line["task_id"])
        if task is None:
            return
        self._report.counts["decisions"] += 1
        upstreams = [run.ended_state(name) for name in task.upstream]
        verdict = trigger_rules.verdict(task.rule, upstreams)
        wanted = _SETTLED.get(verdict, verdict)
        if verdict == "run":
            wanted = "success" if task.empty else "scheduled"
        if line["to_state"] != wanted:
            seen = ", ".join(f"{name}: {state}" for name, state in zip(task.upstream, upstreams, strict=True))
            rows = [run.instances[name, -1].row for name in task.upstream if (name, -1) in run.instances]
            what = f"{task.rule} over ({seen}) says {wanted}, and it went to {line['to_state']}"
            self._report.add("I-6", what, line, *rows)

    def _by_a_stop(self, line: Line) -> bool:
        return line["to_state"] == "cancelled" or line.get("reason") in ("fail_fast", "run_timeout")

    def _caused(self, run: Run, instance: Instance, line: Line) -> None:
        """Nothing is stopped without somebody or something that stopped it."""
        to, reason = line["to_state"], line.get("reason")
        if to not in ("cancelling", "cancelled", "skipped") or instance.state == "cancelling":
            return
        if not self._by_a_stop(line) and to != "cancelling":
            return
        if not (_failed_fast(run) if reason == "fail_fast" else run.stop == (reason or "user")):
            self._report.add("I-10", f"stopped ({reason}), and nothing asked for it", instance.row, line)

    def _stopped(self, run: Run, line: Line) -> bool:
        """Whether the run lets anything of it become ready or start."""
        if run.state == "running":
            return True
        if run.stop is not None:
            what = f"after the run was asked to stop ({run.stop}) something of it went to {line['to_state']}"
            self._report.add("I-21", what, run.row, line)
        else:
            self._report.add("I-8", f"the run is {run.state} and something of it went to {line['to_state']}",
                             run.row, line)  # fmt: skip
        return False

    def _goes_on(self, instance: Instance, line: Line) -> bool:
        if instance.state in steps.TASK_FINAL:
            self._report.add("I-7", f"the instance had ended as {instance.state}", instance.row, line)
            return False
        if line.get("from_state") != instance.state:
            what = f"goes on from {line.get('from_state')}, and the log left it {instance.state}"
            self._report.add("I-18", what, instance.row, line)
            return False
        return True

    def _legal(self, instance: Instance, line: Line) -> bool:
        if line["to_state"] in steps.TASK.get(instance.state, ()):
            return True
        self._report.add("STEP", f"no instance goes from {instance.state} to {line['to_state']}", instance.row, line)
        return False

    def _fence(self, instance: Instance, line: Line) -> bool:
        if line.get("try_number") == instance.fence:
            return True
        self._report.add("I-1", f"the fence is {instance.fence}, not {line.get('try_number')}", instance.row, line)
        return False

    def _attempt_step(self, attempt: Attempt, line: Line) -> None:
        how = "succeed" if line["to_state"] == "success" else (line.get("data") or {}).get("attempt")
        if how is None:
            return
        had_to_run = steps.ATTEMPT.get(how)
        if how not in steps.ATTEMPT or had_to_run not in (None, attempt.started is not None):
            where = "had started" if attempt.started else "had not started"
            self._report.add("STEP", f"an attempt that {where} ended with {how}", attempt.queued, line)

    def _free(self, run: Run, attempt: Attempt) -> None:
        for key in _limits(run, attempt):
            self._capacity.give_back(key, attempt.attempt_id)


def _limits(run: Run, attempt: Attempt) -> list[str]:
    slots = _slots(attempt)
    return [f"dag:{run.dag_id}:tasks"] + ([slots] if slots else [])


def _slots(attempt: Attempt) -> str | None:
    """Return the limit that an attempt takes a slot of."""
    slots: str | None = (attempt.queued.get("data") or {}).get("slots")
    return slots


def _inputs(run: Run, instance: Instance) -> dict[str, str]:
    """Return the attempts whose success the upstreams of *instance* are in just now."""
    task = run.task(instance.key[2])
    found = {}
    for name in task.upstream if task else ():
        upstream = run.instances.get((name, -1))
        if upstream is not None and upstream.state == "success" and upstream.attempt is not None:
            found[name] = upstream.attempt.attempt_id
    return found


def _failed_fast(run: Run) -> bool:
    if run.document is None:
        return True
    failed = [task_id for (task_id, _), one in run.instances.items() if one.state == "failed"]
    return run.document.fail_fast and any(not (task and task.allow_failure) for task in map(run.task, failed))


def _ends_an_attempt(line: Line) -> bool:
    return line.get("attempt_id") is not None and line.get("from_state") in steps.ACTIVE
