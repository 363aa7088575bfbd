from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scheduler.decide import Admit, Advance, Materialise, Snapshot, StartRun, TimeOut, decide, sleep_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_nothing_to_do_is_nothing_to_decide() -> None:
    assert list(decide(Snapshot())) == []


def test_what_ends_comes_before_what_begins() -> None:
    snapshot = Snapshot(overdue=[1], due=[2], unmaterialised=[3], startable=[4], ready=["local"])
    assert list(decide(snapshot)) == [TimeOut(1), Advance(2), Materialise(3), StartRun(4), Admit(("local",))]


def test_a_run_appears_once_with_its_most_urgent_decision() -> None:
    snapshot = Snapshot(overdue=[1], due=[1, 2], unmaterialised=[2], startable=[3, 3])
    assert list(decide(snapshot)) == [TimeOut(1), Advance(2), StartRun(3)]


@pytest.mark.parametrize(
    ("next_due", "seconds"),
    [
        pytest.param(None, 20.0, id="nothing is due: as long as allowed"),
        pytest.param(NOW + timedelta(seconds=3), 3.0, id="until the next due time"),
        pytest.param(NOW + timedelta(hours=3), 20.0, id="not longer than allowed"),
        pytest.param(NOW - timedelta(seconds=3), 0.0, id="what is overdue is not waited for"),
    ],
)
def test_the_loop_sleeps_until_something_is_due(next_due: datetime | None, seconds: float) -> None:
    assert sleep_for(NOW, next_due, timedelta(seconds=20)) == seconds
