"""Which placements to launch, which to stop, and which to give up: facts in, decisions out.

Pure.  Giving up needs a proof of death (another supervisor answers where this one was) or an expired lease; age proves
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from dag.states import AttemptState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from dag.ids import AttemptId

#: What an executor's :class:`~executors.base.Phase` says, as plain text: decisions know no executor.
Phase = Literal["pending", "running", "exited", "gone", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An active attempt as the metastore has it."""

    id: AttemptId
    state: AttemptState
    #: The supervisor that won its start.
    boot_id: str | None = None
    #: Not to be launched before.
    launch_after: datetime | None = None
    stop_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What its executor says of it."""

    phase: Phase
    #: With ``gone``: the supervisor that answers there now.
    boot_id: str | None = None


@dataclass(frozen=True, slots=True)
class Relaunch:
    """Launch it: it was never launched, or the launch was lost.  Launching twice runs it once."""

    id: AttemptId


@dataclass(frozen=True, slots=True)
class Stop:
    """Repeat that it is asked to stop."""

    id: AttemptId
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Its supervisor is dead, and with it everything that it ran."""

    id: AttemptId


Decision = Relaunch | Stop | GiveUp


def reconcile(
    placements: Sequence[Placement], seen: Mapping[AttemptId, Seen], now: datetime, *, eager: bool = False
) -> Iterator[Decision]:
    """Yield what to do about each placement; nothing where the facts do not say enough.

    *eager*: the executor has come back, so that what it deferred need not wait for its time.
    """
    for placement in placements:
        fact = seen.get(placement.id, Seen("unknown"))
        if placement.state is AttemptState.QUEUED:
            waits = placement.launch_after is not None and placement.launch_after > now
            if fact.phase == "gone" and (eager or not waits):
                yield Relaunch(placement.id)
        elif placement.state is AttemptState.RUNNING:
            if fact.phase == "gone" and fact.boot_id is not None:
                # Its own supervisor answers and has never heard of it: the answer to its start was lost on the way.
                same = fact.boot_id == placement.boot_id
                yield Relaunch(placement.id) if same else GiveUp(placement.id)
            elif placement.stop_reason is not None and fact.phase in ("pending", "running"):
                yield Stop(placement.id, placement.stop_reason)
