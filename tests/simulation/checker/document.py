"""What the checker needs to know of a DAG document, read as the reference of documents says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

_DURATION: Final = re.compile(
    r"P(?:(?P<weeks>[\d.]+)W)?(?:(?P<days>[\d.]+)D)?"
    r"(?:T(?:(?P<hours>[\d.]+)H)?(?:(?P<minutes>[\d.]+)M)?(?:(?P<seconds>[\d.]+)S)?)?"
)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Task:
    """One task of one version."""

    task_id: str
    upstream: tuple[str, ...]
    rule: str
    retries: int
    empty: bool
    allow_failure: bool
    #: It may go on beside its successor.
    goes_on: bool
    delay: timedelta
    backoff: bool
    longest_delay: timedelta
    jitter: float

    def shortest_delay(self, failures: int) -> timedelta:
        """Return how long it must wait at least after its *failures*-th failure."""
        pause = self.delay
        for _ in range(failures - 1 if self.backoff else 0):
            if pause >= self.longest_delay:
                break
            pause *= 2
        return min(pause, self.longest_delay) * (1 - self.jitter)


@dataclass(frozen=True, slots=True)
class Document:
    """One version of a DAG."""

    tasks: dict[str, Task]
    max_active_runs: int | None
    max_active_tasks: int | None
    fail_fast: bool

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Document:
        defaults = raw.get("defaults") or {}
        return cls(
            tasks={name: _task(name, {**defaults, **task}) for name, task in raw["tasks"].items()},
            max_active_runs=raw.get("max_active_runs"),
            max_active_tasks=raw.get("max_active_tasks"),
            fail_fast=bool(raw.get("fail_fast")),
        )


def _task(name: str, raw: dict[str, Any]) -> Task:
    jitter = raw.get("retry_jitter", 0.0)
    delay = duration(raw.get("retry_delay", "PT30S"))
    longest = raw.get("max_retry_delay")
    return Task(
        task_id=name,
        upstream=tuple(dict.fromkeys(raw.get("depends_on") or ())),
        rule=raw.get("trigger_rule", "all_success"),
        retries=raw.get("retries", 0),
        empty=raw.get("empty") not in (None, False),
        allow_failure=bool(raw.get("allow_failure")),
        goes_on=raw.get("on_lost_contact") == "continue",
        delay=delay,
        backoff=bool(raw.get("retry_backoff")),
        longest_delay=max(_DAY, delay) if longest is None else duration(longest),
        jitter=0.5 if jitter is True else float(jitter),
    )


def duration(text: str) -> timedelta:
    """Read an ISO 8601 duration."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not an ISO 8601 duration.")
    return timedelta(**{name: float(number) for name, number in found.groupdict().items() if number})
