"""What should happen next, given what is known.

Pure: no clock, no randomness, no database, no await; import-linter keeps it so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What was read at one moment."""

    #: Runs past their deadline.
    overdue: Sequence[int] = ()
    #: Running runs some of whose instances do not exist yet.
    unmaterialised: Sequence[int] = ()
    #: Runs with an instance whose time has come.
    due: Sequence[int] = ()
    #: Queued runs that may start, earliest first.
    startable: Sequence[int] = ()
    #: Executors that have ready instances.
    ready: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class TimeOut:
    """Stop a run that ran out of time."""

    run: int


@dataclass(frozen=True, slots=True)
class Advance:
    """Look at the due instances of a run."""

    run: int


@dataclass(frozen=True, slots=True)
class Materialise:
    """Create the next instances of a run."""

    run: int


@dataclass(frozen=True, slots=True)
class StartRun:
    """Start a queued run."""

    run: int


@dataclass(frozen=True, slots=True)
class Admit:
    """Offer free slots to what is ready."""

    executors: tuple[str, ...]


Decision = TimeOut | Advance | Materialise | StartRun | Admit


def decide(snapshot: Snapshot) -> Iterator[Decision]:
    """Yield what to do, what frees or ends things first; a run appears once.

    What ends comes before what begins, and what runs before what waits: a run that is half created is finished before
    another one is begun.
    """
    seen: set[int] = set()
    kinds = (
        (TimeOut, snapshot.overdue),
        (Advance, snapshot.due),
        (Materialise, snapshot.unmaterialised),
        (StartRun, snapshot.startable),
    )
    for kind, runs in kinds:
        for run in runs:
            if run not in seen:
                seen.add(run)
                yield kind(run)
    if snapshot.ready:
        yield Admit(tuple(snapshot.ready))


def sleep_for(now: datetime, next_due: datetime | None, longest: timedelta) -> float:
    """Return how many seconds the loop may sleep: until something is due by itself, but not longer than *longest*."""
    if next_due is None:
        return longest.total_seconds()
    return max(0.0, min((next_due - now).total_seconds(), longest.total_seconds()))
