from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from runyard.watch import Lines, Screen, to_the_end
from runyard.world import SystemClock
from tests.unit.runyard.test_client import ok, serving
from tests.world import FakeClock

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(task_id: str | None, state: str, after: float = 0.0, **more: Any) -> dict[str, Any]:
    at = (START + timedelta(seconds=after)).isoformat()
    return {"task_id": task_id, "to_state": state, "at": at, "map_index": None if task_id is None else -1, **more}


def picture(screen: Screen) -> list[list[str]]:
    screen.console.print(screen._render())
    assert isinstance(screen.console.file, io.StringIO)
    return [line.split() for line in screen.console.file.getvalue().splitlines()]


@pytest.fixture
def screen() -> Screen:
    return Screen(Console(file=io.StringIO(), width=80, height=12), FakeClock())


def test_the_screen_shows_each_task_with_its_state_and_how_long_it_took(screen: Screen) -> None:
    for one in (
        event(None, "running"),
        event("a", "running", 1, try_number=1),
        event("a", "up_for_retry", 1.5, try_number=1),
        event("a", "running", 2, try_number=2),
        event("a", "success", 4.5, try_number=2),
        event("b", "skipped", 5, try_number=0),
        event(None, "success", 5),
    ):
        screen.show(one)
    assert picture(screen) == [
        ["TASK", "STATE", "TRY", "TOOK"],
        ["a", "success", "2", "2.5", "s"],
        ["b", "skipped", "-", "-"],
        ["run", "success", "1", "success", "1", "skipped"],
    ]


def test_a_small_screen_shows_what_matters_now_and_counts_the_rest(screen: Screen) -> None:
    for number in range(30):
        screen.show(event(f"done{number}", "success", try_number=1))
    screen.show(event("now", "running", try_number=1))
    screen.show(event("bad", "failed", try_number=1))
    rows = picture(screen)
    assert len(rows) <= screen.console.height
    assert {"now", "bad"} <= {row[0] for row in rows}
    assert rows[-1][-6:] == ["30", "success", "1", "running", "1", "failed"]


def test_the_screen_says_that_the_service_is_away_until_it_is_back(screen: Screen) -> None:
    screen.note("no word from the service")
    assert "(no word from the service)" in " ".join(picture(screen)[-1])
    screen.show(event(None, "running"))
    assert picture(screen)[-1] == ["run", "running"]


def test_lines_tell_what_happened_and_leave_out_what_was_only_prepared(capsys: pytest.CaptureFixture[str]) -> None:
    view = Lines()
    for state in ("scheduled", "queued", "running"):
        view.show(event("a", state, try_number=2))
    view.show(event("a", "failed", try_number=2, reason="exit code 3\x1b[2J"))
    view.show(event(None, "failed"))
    lines = [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["a running (try 2)", "a failed (try 2): exit code 3\\x1b[2J", "run failed"]


def test_the_end_of_a_stream_is_no_event_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = {"dag_id": "d", "run_id": "r", "state": "success"}
    last = f"id: 9\nevent: run.success\ndata: {json.dumps(event(None, 'success'))}\n\n"
    end = f"event: end\ndata: {json.dumps(run)}\n\n"
    with serving(lambda handler: handler.stream(end.encode()), ok(run)) as (api, _):
        assert to_the_end(api, run, Lines(), SystemClock(), 10) == run
    assert capsys.readouterr().out == ""
    with serving(lambda handler: handler.stream((last + end).encode()), ok(run)) as (api, _):
        assert to_the_end(api, run, Lines(), SystemClock(), 10) == run
    assert capsys.readouterr().out.splitlines()[1:] == []
