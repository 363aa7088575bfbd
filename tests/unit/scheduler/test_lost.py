from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dag.ids import AttemptId
from dag.states import AttemptState
from scheduler.lost import (
    MOST_OFFERS,
    Decision,
    GiveUp,
    NobodyTakes,
    Offer,
    OfferAgain,
    OfferDecision,
    Phase,
    Placement,
    PutBack,
    Relaunch,
    Seen,
    Stop,
    Wait,
    reconcile,
    reoffer,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A = AttemptId("a")
QUEUED = Placement(id=A, state=AttemptState.QUEUED)
ADOPTED = Placement(id=A, state=AttemptState.QUEUED, adopted=True)
LATER = Placement(id=A, state=AttemptState.QUEUED, launch_after=NOW + timedelta(seconds=1))
DUE = Placement(id=A, state=AttemptState.QUEUED, launch_after=NOW)
RUNNING = Placement(id=A, state=AttemptState.RUNNING, boot_id="boot-1")
STOPPING = Placement(id=A, state=AttemptState.RUNNING, boot_id="boot-1", stop_reason="user")


@pytest.mark.parametrize(
    ("placement", "seen", "decision"),
    [
        pytest.param(QUEUED, Seen("gone", "boot-1"), Relaunch(A), id="queued and unknown there: launch it"),
        pytest.param(QUEUED, Seen("gone"), Relaunch(A), id="launching needs no proof: its start is fenced"),
        pytest.param(QUEUED, Seen("pending"), None, id="queued and on its way: wait"),
        pytest.param(QUEUED, Seen("unknown"), None, id="queued and nothing known: wait"),
        pytest.param(LATER, Seen("gone", "boot-1"), None, id="deferred: not before its time"),
        pytest.param(DUE, Seen("gone", "boot-1"), Relaunch(A), id="deferred: when its time has come"),
        pytest.param(ADOPTED, Seen("gone", "boot-1"), PutBack(A), id="of an executor that is gone: admitted anew"),
        pytest.param(ADOPTED, Seen("unknown"), PutBack(A), id="whatever is known of it: its start is fenced"),
        pytest.param(ADOPTED, Seen("pending"), PutBack(A), id="also when it is on its way"),
        pytest.param(
            replace(RUNNING, adopted=True), Seen("running"), None, id="what another executor has started goes on"
        ),
        pytest.param(
            replace(RUNNING, adopted=True), Seen("gone", "boot-2"), GiveUp(A), id="a proof is one whoever has it"
        ),
        pytest.param(RUNNING, Seen("running"), None, id="running: adopt it"),
        pytest.param(RUNNING, Seen("exited"), None, id="ended: its finish is on the way"),
        pytest.param(RUNNING, Seen("unknown"), None, id="nothing known proves nothing"),
        pytest.param(RUNNING, Seen("gone"), None, id="gone without a supervisor that says so proves nothing"),
        pytest.param(RUNNING, Seen("gone", "boot-2"), GiveUp(A), id="another supervisor answers: it is dead"),
        pytest.param(RUNNING, Seen("gone", "boot-1"), Relaunch(A), id="its own never heard of it: send it again"),
        pytest.param(STOPPING, Seen("running"), Stop(A, "user"), id="the directive to stop is repeated"),
        pytest.param(STOPPING, Seen("pending"), Stop(A, "user"), id="also before user code runs"),
        pytest.param(STOPPING, Seen("exited"), None, id="what has ended needs no directive"),
        pytest.param(STOPPING, Seen("gone", "boot-2"), GiveUp(A), id="what is dead is given up, asked to stop or not"),
    ],
)
def test_the_facts_of_a_placement_decide(placement: Placement, seen: Seen, decision: Decision | None) -> None:
    assert list(reconcile([placement], {A: seen}, NOW)) == ([] if decision is None else [decision])


def test_a_placement_that_was_not_observed_is_unknown() -> None:
    assert list(reconcile([RUNNING, QUEUED], {}, NOW)) == []


def test_an_executor_that_came_back_gets_at_once_what_it_deferred() -> None:
    assert list(reconcile([LATER], {A: Seen("gone", "boot-1")}, NOW, eager=True)) == [Relaunch(A)]


WAITING = Offer(id=A, queue="q", relaunches=0, deferred=False)
AGAIN = OfferAgain(id=A, look_after=timedelta(seconds=15), counts=True)
SENT = OfferAgain(id=A, look_after=timedelta(seconds=15), counts=False)
WAIT = Wait(id=A, look_after=timedelta(seconds=15))


@pytest.mark.parametrize(
    ("offer", "seen", "idle", "decision"),
    [
        pytest.param(WAITING, "unknown", {"q": (1, 0)}, WAIT, id="its workers are busy: that is what a queue is for"),
        pytest.param(WAITING, "pending", {"q": (1, 0)}, WAIT, id="the broker has it, its workers are busy"),
        pytest.param(WAITING, "unknown", {}, WAIT, id="its workers went away: it waits for others"),
        pytest.param(WAITING, "unknown", {"q": (1, 1)}, AGAIN, id="a slot is free and nobody took it: again"),
        pytest.param(WAITING, "pending", {"q": (1, 1)}, AGAIN, id="the broker has it and does not give it away"),
        pytest.param(WAITING, "gone", {"q": (1, 0)}, SENT, id="the broker lost it: again, at no cost"),
        pytest.param(WAITING, "gone", {}, SENT, id="the same where nobody is there to take it"),
        pytest.param(replace(WAITING, deferred=True), "unknown", {}, SENT, id="the broker never had it: again"),
        pytest.param(
            replace(WAITING, relaunches=3),
            "unknown",
            {"q": (1, 1)},
            replace(AGAIN, look_after=timedelta(seconds=120)),
            id="less and less often",
        ),
        pytest.param(
            replace(WAITING, relaunches=MOST_OFFERS),
            "unknown",
            {"q": (2, 9)},
            NobodyTakes(id=A, why="offered 9 times to the queue 'q', and none of its 2 workers took it"),
            id="until it is clear that nobody takes it",
        ),
        pytest.param(replace(WAITING, relaunches=99), "unknown", {"q": (2, 0)}, WAIT, id="but not from busy workers"),
        pytest.param(
            replace(WAITING, relaunches=99),
            "gone",
            {"q": (2, 1)},
            replace(SENT, look_after=timedelta(seconds=300)),
            id="nor for what the broker loses",
        ),
    ],
)
def test_the_facts_of_an_offer_decide(
    offer: Offer, seen: Phase, idle: dict[str, tuple[int, int]], decision: OfferDecision
) -> None:
    assert list(reoffer([offer], {A: Seen(seen)}, idle)) == [decision]
