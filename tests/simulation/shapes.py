"""DAGs of random shape: what the simulated users have thought up."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random

    from tests.simulation.profile import Profile

_RULES: Final = (
    *["all_success"] * 12,
    "all_failed", "all_done", "all_done", "all_done_min_one_success", "one_success", "one_failed", "one_done",
    "none_failed", "none_failed_min_one_success", "none_skipped", "all_skipped", "always",
)  # fmt: skip
QUEUES: Final = ("default", "fast")


def document(dice: random.Random, profile: Profile, *, size: int) -> dict[str, Any]:
    """Return a DAG of up to *size* tasks."""
    names = [f"t{n}" for n in range(dice.randint(1, size))]
    tasks = {name: _task(dice, profile, names[:at]) for at, name in enumerate(names)}
    found: dict[str, Any] = {"tasks": tasks}
    if dice.random() < profile.limits:
        found["max_active_runs"] = dice.randint(1, profile.most)
    if dice.random() < profile.limits:
        found["max_active_tasks"] = dice.randint(1, profile.most + 1)
    if dice.random() < 0.15:
        found["run_timeout"] = f"PT{dice.randint(10, 60)}S"
    if dice.random() < 0.2:
        found["fail_fast"] = True
    return found


def changed(dice: random.Random, profile: Profile, before: dict[str, Any], *, size: int) -> dict[str, Any]:
    """Return the next version of a DAG: other limits, or another DAG altogether."""
    if dice.random() < 0.3:
        return document(dice, profile, size=size)
    after = dict(before)
    for name, most in (("max_active_runs", profile.most), ("max_active_tasks", profile.most + 1)):
        if dice.random() < 0.6:
            after[name] = dice.randint(1, most)
        else:
            after.pop(name, None)
    return after


def _task(dice: random.Random, profile: Profile, earlier: list[str]) -> dict[str, Any]:
    upstream = sorted(dice.sample(earlier, min(len(earlier), dice.choice((0, 1, 1, 1, 2, 2, 3)))))
    task: dict[str, Any] = {}
    if upstream:
        task["depends_on"] = upstream
        rule = dice.choice(_RULES)
        if rule != "all_success":
            task["trigger_rule"] = rule
    if dice.random() < 0.1:
        return task | {"empty": True}
    ends = dice.choice(profile.ends)
    takes = round(dice.choice(profile.takes) * (0.5 + dice.random()), 2)
    task["command"] = ["sim", json.dumps({"takes": takes, "ends": ends})]
    task["executor"] = dice.choice(profile.executors)
    task["kill_grace"] = dice.choice(("PT0.5S", "PT2S", "PT10S"))
    if task["executor"] == "dramatiq":
        task["queue"] = dice.choice(QUEUES)
        if dice.random() < 0.2:
            task["on_lost_contact"] = "continue"
    task |= _patience(dice, profile, ends)
    if dice.random() < 0.3:
        task["priority_weight"] = dice.randint(1, 9)
    if upstream and dice.random() < 0.4:
        source = dice.choice(upstream)
        task["env"] = {f"SAW_{source}": f"${{outputs.{source}}}"}
    return task


def _patience(dice: random.Random, profile: Profile, ends: str) -> dict[str, Any]:
    """Return how long and how often a task may try."""
    task: dict[str, Any] = {}
    if ends != "s" or dice.random() < profile.retries:
        task["retries"] = dice.randint(0, 2)
        task["retry_delay"] = f"PT{dice.choice((0, 0.5, 3))}S"
        task["retry_jitter"] = dice.choice((0, 0.5))
    if ends[0] in "hd":
        task["execution_timeout"] = f"PT{dice.randint(3, 12)}S"
    if dice.random() < 0.2:
        task["allow_failure"] = True
    return task
