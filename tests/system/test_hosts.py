"""What harnesses do to hosts, and what they find left there: a check that cannot fail proves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.simulation.checker import check
from tests.system import hosts
from tests.system.hosts import Pauses, left_behind
from tests.system.service import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AGENT = "a" * 32


@pytest.fixture
def sleep() -> Iterator[Callable[..., int]]:
    """Return what starts a process that sleeps, with an environment, and returns its pid."""
    started = []

    def start(**environ: str) -> int:
        started.append(subprocess.Popen(["/bin/sleep", "60"], env=environ))
        return started[-1].pid

    yield start
    for one in started:
        one.kill()
        one.wait()


@pytest.fixture(params=["agent", "workers/one/agent"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of an agent that is at rest."""
    made: Path = tmp_path / "home" / request.param
    (made / "attempts" / "spare.1").mkdir(parents=True)
    (made / "id").write_text(f"{AGENT}\n")
    lines = [{"begun": "x", "key": "k"}, {"finish": {"attempt_id": "x"}}, {"answered": "x"}]
    (made / "attempts" / "outcomes").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"fin')
    return made


def left(folder: Path) -> list[str]:
    home = next(parent for parent in folder.parents if parent.name == "home")
    return left_behind([home], 0)


def stands(pid: int) -> bool:
    return hosts._state(pid) == "T"


def test_at_rest_nothing_is_left(folder: Path, sleep: Callable[..., int]) -> None:
    sleep(RUNYARD_AGENT_ID="b" * 32)
    assert left(folder) == []


def test_a_process_of_a_task_is_found_by_its_mark(folder: Path, sleep: Callable[..., int]) -> None:
    pid = sleep(RUNYARD_AGENT_ID=AGENT)
    (what,) = wait_for(lambda: left(folder))
    assert what.startswith(f"process {pid} of home: ")
    assert "L-6" in check([{"type": "setup"}, {"type": "rest"}, {"type": "left", "what": what}]).ids


@pytest.mark.parametrize("name", ["0123", "0123.output", "0123.error", "0123.log"])
def test_a_file_of_an_attempt_is_found(folder: Path, name: str) -> None:
    (folder / "attempts" / name).touch()
    (what,) = left(folder)
    assert what.endswith(f"attempts/{name}")


@pytest.mark.parametrize("line", [{"begun": "y", "key": "k"}, {"finish": {"attempt_id": "y"}}])
def test_an_end_that_nobody_answered_is_found(folder: Path, line: dict[str, object]) -> None:
    with (folder / "attempts" / "outcomes").open("a") as file:
        file.write(f"\n{json.dumps(line)}\n")
    assert left(folder) == ["end of y in the spool of home"]


def test_the_end_of_one_pause_wakes_nobody_else(sleep: Callable[..., int]) -> None:
    first, second = sleep(), sleep()
    with Pauses(1.0) as pauses:
        assert pauses.begin("first", "pause", lambda: [first])
        time.sleep(0.5)
        assert pauses.begin("second", "pause", lambda: [second])
        assert not pauses.begin("second", "pause", lambda: [second]), "it stands still already"
        wait_for(lambda: not pauses.stands("first"))
        assert (stands(first), stands(second)) == (False, True)
        pauses.wait()
        assert not stands(second)
    assert pauses.lasted == {"pause": 2}


def test_a_pause_that_a_kill_cut_short_is_told_from_one_that_lasted(sleep: Callable[..., int]) -> None:
    pid = sleep()
    with Pauses(0.3) as pauses:
        pauses.begin("part", "pause", lambda: [pid])
        hosts.send([pid], signal.SIGKILL)
        pauses.wait()
    assert (pauses.lasted, pauses.cut) == ({}, {"pause": 1})


def test_nothing_stands_still_once_a_loop_has_failed(sleep: Callable[..., int]) -> None:
    pid = sleep()
    with suppress(RuntimeError), Pauses(60) as pauses:
        pauses.begin("part", "pause", lambda: [pid])
        assert wait_for(lambda: stands(pid))
        raise RuntimeError
    assert not stands(pid)
