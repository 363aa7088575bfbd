"""What rules mean, said by looking at the states themselves; nothing here counts."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.simulation.model.rows import Instance, Run

Verdict = Literal["wait", "run", "skip", "upstream_failed"]

_MAX_LOSSES = 3


def judge(one: Instance) -> Verdict:
    """Say what the trigger rule of a pending instance has come to."""
    states = [one.run.instances[number].state for number in one.task.upstream]
    rule = str(one.task.trigger_rule)
    if not states or rule == "always":
        return "run"
    ended = [state for state in states if state in ("success", "failed", "skipped", "upstream_failed", "cancelled")]
    good = "success" in ended
    skipped = "skipped" in ended
    failed = "failed" in ended or "cancelled" in ended
    broken = failed or "upstream_failed" in ended
    at_once = _at_once(rule, good=good, skipped=skipped, failed=failed, broken=broken)
    if at_once is not None:
        return at_once
    if len(ended) < len(states):
        return "wait"
    return _at_the_end(rule, good=good, skipped=skipped, broken=broken)


def _at_once(rule: str, *, good: bool, skipped: bool, failed: bool, broken: bool) -> Verdict | None:
    """Return what is certain before all upstreams have ended."""
    match rule:
        case "all_success" | "none_failed" | "none_failed_min_one_success":
            return "upstream_failed" if broken else None
        case "all_failed":
            return "skip" if good or skipped else None
        case "one_success":
            return "run" if good else None
        case "one_failed":
            return "run" if broken else None
        case "one_done":
            return "run" if good or failed else None
        case "none_skipped":
            return "skip" if skipped else None
        case "all_skipped":
            return "skip" if good or broken else None
    return None


def _at_the_end(rule: str, *, good: bool, skipped: bool, broken: bool) -> Verdict:
    match rule:
        case "all_success":
            return "skip" if skipped else "run"
        case "all_done_min_one_success":
            return "run" if good else "upstream_failed" if broken else "skip"
        case "one_success":
            return "upstream_failed" if broken else "skip"
        case "none_failed_min_one_success":
            return "run" if good else "skip"
        case "one_failed" | "one_done":
            return "skip"
    return "run"


def settle(ended: str, one: Instance) -> tuple[str, str, str, str | None]:
    """Return what an end makes of the attempt and of its instance, which budget pays, and why."""
    attempt = {"drained": "lost", "rejected": "failed"}.get(ended, ended)
    if one.state == "queued" and attempt == "lost":
        attempt = "never_started"
    if ended == "success":
        return attempt, "success", "none", None
    late = "timed_out" if ended == "timed_out" else None
    if one.state == "cancelling":
        if ended in ("failed", "timed_out"):
            return attempt, "failed", "failure", late
        return attempt, "cancelled", "none" if ended in ("cancelled", "drained") else "loss", None
    if ended in ("failed", "timed_out"):
        return attempt, "up_for_retry" if one.failures < one.task.retries else "failed", "failure", late
    if ended == "rejected":
        return attempt, "failed", "failure", "rejected"
    if ended == "drained":
        return attempt, "scheduled", "none", "drained"
    if one.losses >= _MAX_LOSSES:
        return attempt, "failed", "loss", "lost"
    return attempt, "scheduled" if one.losses == 0 else "up_for_retry", "loss", "lost"


def pause_after_loss(losses: int) -> timedelta:
    """Nothing after the first, then 5 s, 10 s, 20 s and so on up to five minutes."""
    seconds = 0 if losses <= 1 else min(5 * 2 ** (losses - 2), 300)
    return timedelta(seconds=seconds)


def pause_after_failure(one: Instance, failures: int, luck: float) -> timedelta:
    """As the task's own policy says."""
    retry: Any = one.task.retry
    pause = retry.delay
    for _ in range(failures - 1 if retry.backoff else 0):
        pause = min(pause * 2, retry.max_delay or max(timedelta(days=1), retry.delay))
    if retry.max_delay is not None:
        pause = min(pause, retry.max_delay)
    shorter: timedelta = pause - pause * (retry.jitter * luck)
    return shorter


def verdict(run: Run) -> str:
    """Say how a run ends all of whose instances have ended."""
    if run.state == "cancelling" and run.cancel_asked and run.cancelled:
        return "cancelled"
    return "failed" if run.bad or run.reason == "run_timeout" else "success"
