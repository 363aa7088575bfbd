"""Which placements to launch, which to stop, which to give up, which to offer again: facts in, decisions out.

Pure.  Giving up needs a proof of death (another supervisor answers where this one was) or an expired lease; age proves
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

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
    #: The executor that it was admitted to takes nothing here any more: another one of its place looks after it.
    adopted: bool = False


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


@dataclass(frozen=True, slots=True)
class PutBack:
    """Have it admitted anew: nobody has started it, and whoever looks after it now has no slot for it."""

    id: AttemptId


Decision = Relaunch | Stop | GiveUp | PutBack

#: How long to wait for somebody to take an offer, by how often it was made again; the last one goes on.
_PATIENCE: Final = tuple(timedelta(seconds=s) for s in (15, 30, 60, 120, 300))
#: An offer that nobody takes although slots are free is given up after being made this often.
MOST_OFFERS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An attempt that was offered to a queue, and should have been taken by now."""

    id: AttemptId
    queue: str
    #: How often it was offered again.
    relaunches: int
    #: Its executor put it off: the medium never had it.
    deferred: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferAgain:
    """Offer it once more, and look at it again after *look_after*."""

    id: AttemptId
    look_after: timedelta
    #: Whether this counts against it: nobody took it although somebody could have.
    counts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """It is where it should be, and its workers are busy or away: look again after *look_after*."""

    id: AttemptId
    look_after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class NobodyTakes:
    """Workers with free slots left it where it is, again and again."""

    id: AttemptId
    why: str


OfferDecision = OfferAgain | Wait | NobodyTakes


def reoffer(
    offers: Sequence[Offer], seen: Mapping[AttemptId, Seen], idle: Mapping[str, tuple[int, int]]
) -> Iterator[OfferDecision]:
    """Yield what to do about each offer; *idle* has, by queue, how many live workers there are and their free slots.

    Offering twice runs it once, so the only cost of a mistake here is a message.  Nothing is offered again while it may
    just be waiting for busy workers: that is what a queue is for.
    """
    for offer in offers:
        phase = seen.get(offer.id, Seen("unknown")).phase
        patience = _PATIENCE[min(offer.relaunches, len(_PATIENCE) - 1)]
        workers, free = idle.get(offer.queue, (0, 0))
        if offer.deferred or phase == "gone":
            yield OfferAgain(id=offer.id, look_after=patience, counts=False)
        elif not free:
            yield Wait(id=offer.id, look_after=_PATIENCE[0])
        elif offer.relaunches >= MOST_OFFERS:
            times = offer.relaunches + 1
            why = f"offered {times} times to the queue {offer.queue!r}, and none of its {workers} workers took it"
            yield NobodyTakes(id=offer.id, why=why)
        else:
            yield OfferAgain(id=offer.id, look_after=patience, counts=True)


def reconcile(
    placements: Sequence[Placement], seen: Mapping[AttemptId, Seen], now: datetime, *, eager: bool = False
) -> Iterator[Decision]:
    """Yield what to do about each placement; nothing where the facts do not say enough.

    *eager*: the executor has come back, so that what it deferred need not wait for its time.
    """
    for placement in placements:
        fact = seen.get(placement.id, Seen("unknown"))
        if placement.state is AttemptState.QUEUED and placement.adopted:
            yield PutBack(placement.id)  # whatever its phase: a start that is on its way meets an ended attempt
        elif placement.state is AttemptState.QUEUED:
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
