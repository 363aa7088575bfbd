"""One attempt on its agent: its phase, its log, why it is being stopped, and how that adds up to an outcome."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from worker import output
from worker.spool import one_line

if TYPE_CHECKING:
    import asyncio

    from worker.logs import Log
    from worker.protocol import Finish, Outcome, StopReason, TaskBody
    from worker.spool import Spool

Phase = Literal["starting", "running", "ended"]
#: Why an attempt was stopped; ``timeout`` is its own, the others are the service's or the agent's.
Stop = Literal["user", "run_timeout", "fail_fast", "fenced", "drain", "timeout"]

#: A later reason replaces an earlier one that is weaker: a drained attempt runs again, unless somebody cancels it.
_STRENGTH: Final[dict[Stop, int]] = {"drain": 0, "timeout": 1, "run_timeout": 2, "fail_fast": 2, "user": 2, "fenced": 3}
_STOPPED: Final[dict[Stop, tuple[Outcome, str]]] = {
    "user": ("cancelled", "cancelled on request"),
    "run_timeout": ("cancelled", "cancelled: the run took longer than its run_timeout"),
    "fail_fast": ("cancelled", "cancelled: another task of the run failed and fail_fast is set"),
    "fenced": ("lost", "stopped: the agent lost contact with the metastore for longer than its lease"),
    "drain": ("drained", "stopped because the agent is shutting down"),
}


@dataclass(slots=True, eq=False)
class Attempt:
    """What the agent knows of an attempt."""

    attempt_id: str
    phase: Phase = "starting"
    body: TaskBody | None = None
    log: Log | None = None
    #: The secret that a remote agent shows with all that it says of it; "" where it needs none.
    key: str = field(default="", repr=False)
    #: The reading end of the pipe that the task writes to; -1: closed.
    pipe: int = -1
    stop: Stop | None = None
    #: When the answer to a start or a finish was last asked for, by the monotonic clock.
    asked_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    #: The wait status of the leader, once it has ended.
    status: int | None = None
    finish: Finish | None = None
    #: Pending: execution timeout, SIGKILL after grace, end of the pipe's drain.
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)
    #: When SIGKILL is due, by the loop's clock.
    kill_at: float | None = None

    def wants(self, reason: StopReason | Stop) -> None:
        """Note *reason*, unless a stronger one is known."""
        if self.stop is None or _STRENGTH[reason] > _STRENGTH[self.stop]:
            self.stop = reason

    def set_timer(self, name: str, timer: asyncio.TimerHandle) -> None:
        self.clear_timer(name)
        self.timers[name] = timer

    def clear_timer(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def clear_timers(self) -> None:
        for name in list(self.timers):
            self.clear_timer(name)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended."""

    outcome: Outcome
    error: str = ""
    exit_code: int | None = None
    signal: int | None = None
    output: str | None = None


def judge(attempt: Attempt, spool: Spool) -> Verdict:
    """Say how an attempt whose process has ended did end."""
    assert attempt.status is not None  # noqa: S101  it has ended
    code = os.WEXITSTATUS(attempt.status) if os.WIFEXITED(attempt.status) else None
    number = os.WTERMSIG(attempt.status) if os.WIFSIGNALED(attempt.status) else None
    if attempt.stop == "timeout":
        limit = attempt.body["timeout"] if attempt.body else None
        return Verdict("timed_out", f"ran longer than its execution_timeout of {limit:g} s", code, number)
    if attempt.stop is not None:
        outcome, error = _STOPPED[attempt.stop]
        return Verdict(outcome, error, code, number)
    if number is not None:
        return Verdict("failed", f"killed by {_signal_name(number)}", code, number)
    if code != 0:
        return Verdict("failed", spool.error(attempt.attempt_id) or f"exit code {code}", code, number)
    if attempt.body and attempt.body.get("interpreter") and (why := spool.error(attempt.attempt_id)):
        return Verdict("failed", why, code, number)  # what was executed ended well and never ran the task
    try:
        return Verdict("success", "", code, number, output.read(spool.output(attempt.attempt_id)))
    except output.OutputInvalid as error:
        return Verdict("failed", str(error), code, number)


def stopped(attempt: Attempt) -> Verdict:
    """Say how an attempt ended that was stopped before it ran."""
    assert attempt.stop is not None  # noqa: S101  it was stopped
    return Verdict("timed_out") if attempt.stop == "timeout" else Verdict(*_STOPPED[attempt.stop])


def finish_message(attempt: Attempt, verdict: Verdict, boot_id: str) -> Finish:
    """Return the message that tells it."""
    log = attempt.log
    now = time.time()
    finish: Finish = {
        "type": "finish",
        "attempt_id": attempt.attempt_id,
        "boot_id": boot_id,
        "outcome": verdict.outcome,
        "exit_code": verdict.exit_code,
        "signal": verdict.signal,
        "error": one_line(verdict.error),
        "output": verdict.output,
        "log_size": log.size if log else 0,
        "log_dropped": log.dropped if log else 0,
        "started_at": attempt.started_at or now,
        "ended_at": attempt.ended_at or now,
        "more": False,
    }
    if attempt.key:
        finish["key"] = attempt.key
    return finish


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
