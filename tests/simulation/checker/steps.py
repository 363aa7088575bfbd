"""The legal steps of runs, instances and attempts, by hand from the words of the design; not the server's tables."""

from __future__ import annotations

from typing import Final

RUN_FINAL: Final = frozenset(("success", "failed", "cancelled"))
TASK_FINAL: Final = frozenset(("success", "failed", "skipped", "upstream_failed", "cancelled"))
#: An attempt exists, and holds its slots.
ACTIVE: Final = frozenset(("queued", "running", "cancelling"))

#: From → to.  A clear (to ``queued``) leaves every final state.
RUN: Final = {
    "queued": {"running", "cancelled"},
    "running": {"success", "failed", "cancelling"},
    "cancelling": {"success", "failed", "cancelled"},
    "success": {"queued"},
    "failed": {"queued"},
    "cancelled": {"queued"},
}

#: From → to.  A clear (to ``pending``) leaves every final state; ``pending → success`` is for tasks without an attempt.
TASK: Final = {
    "pending": {"scheduled", "success", "skipped", "upstream_failed", "cancelled"},
    "scheduled": {"queued", "failed", "skipped", "cancelled"},
    "queued": {"running", "scheduled", "up_for_retry", "failed", "skipped", "cancelled"},
    "running": {"success", "failed", "up_for_retry", "scheduled", "cancelling"},
    "up_for_retry": {"scheduled", "skipped", "cancelled"},
    "cancelling": {"success", "failed", "cancelled"},
    "success": {"pending"},
    "failed": {"pending"},
    "skipped": {"pending"},
    "upstream_failed": {"pending"},
    "cancelled": {"pending"},
}

#: How an attempt ended (``data.attempt`` of its last event) → whether it had to run for that; None: either.
ATTEMPT: Final[dict[str, bool | None]] = {
    "succeed": True,
    "fail": None,  # rejected before it started
    "cancel": None,
    "time_out": True,
    "lose": True,
    "never_start": False,
}
