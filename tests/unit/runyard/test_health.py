"""How a service says that it is well, and who believes it."""

from __future__ import annotations

import asyncio
import fcntl
from datetime import timedelta
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from runyard import cli, health
from runyard.health import Pulse, ThreadPulse, Wellness
from runyard.world import SystemClock
from tests.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.world import FakeClock


class Looks:
    """What a service finds when it looks at itself."""

    def __init__(self, *wrong: str) -> None:
        self.wrong = list(wrong)
        self.error: Exception | None = None

    async def __call__(self) -> list[str]:
        if self.error is not None:
            raise self.error
        return self.wrong


def _said(home: Path, clock: FakeClock) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.service.partition(" ")[0], one.wrong) for one in health.of(home, clock)]


async def test_services_of_a_home_say_how_they_are(tmp_path: Path, clock: FakeClock) -> None:
    async with (
        Pulse(tmp_path, "api", clock, Looks()),
        Pulse(tmp_path, "scheduler", clock, Looks("work: no round for 99 s", "x" * 1000)),
    ):
        assert _said(tmp_path, clock) == [("api", ()), ("scheduler", ("work: no round for 99 s", "x" * 200))]


async def test_two_that_share_a_home_and_a_pid_do_not_meet(tmp_path: Path, clock: FakeClock) -> None:
    async with Pulse(tmp_path, "api", clock, Looks()), Pulse(tmp_path, "api", clock, Looks("not ready")):
        assert _said(tmp_path, clock) == [("api", ()), ("api", ("not ready",))]
    assert health.of(tmp_path, clock) == []


async def test_what_changes_is_said_soon(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_EVERY", 0.01)
    looks = Looks("registering")
    async with Pulse(tmp_path, "worker", clock, looks), asyncio.timeout(20):
        for wrong, error, said in (
            ([], None, ()),
            ([], OSError("no disk"), ("OSError: no disk",)),
            (["gone"], None, ("gone",)),
        ):
            looks.wrong, looks.error = list(wrong), error
            while _said(tmp_path, clock) != [("worker", said)]:  # noqa: ASYNC110  # a file, not an event
                await asyncio.sleep(0.01)


def test_a_service_of_threads_says_it_too(tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_EVERY", 0.01)
    wrong = ["registering: the agent is being started"]
    pulse = ThreadPulse(tmp_path / "home", "worker", clock, lambda: wrong)
    pulse.start()
    assert _said(tmp_path / "home", clock) == [("worker", ("registering: the agent is being started",))]
    wrong.clear()
    wait_until(lambda: _said(tmp_path / "home", clock) == [("worker", ())], 20, lambda: "it never said so")
    pulse.stop()
    assert _said(tmp_path / "home", clock) == []


async def test_who_says_nothing_for_long_is_not_well(tmp_path: Path, clock: FakeClock) -> None:
    async with Pulse(tmp_path, "scheduler", clock, Looks()):
        clock.move(timedelta(seconds=29))
        assert _said(tmp_path, clock) == [("scheduler", ())]
        clock.move(timedelta(seconds=10))
        assert _said(tmp_path, clock) == [("scheduler", ("silent for 39 s",))]


async def test_who_is_gone_says_nothing_and_leaves_nothing(tmp_path: Path, clock: FakeClock) -> None:
    assert health.of(tmp_path, clock) == []
    async with Pulse(tmp_path, "api", clock, Looks()):
        pass
    assert list((tmp_path / "health").iterdir()) == []
    (tmp_path / "health" / "api-1").write_text('{"at": 0, "wrong": []}')  # as a crash leaves it
    assert health.of(tmp_path, clock) == []
    async with Pulse(tmp_path, "scheduler", clock, Looks()):
        assert [path.name.partition("-")[0] for path in (tmp_path / "health").iterdir()] == ["scheduler"]


async def test_the_command_line_tells_it_by_its_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_HOME", str(tmp_path))
    looks = Looks()
    async with Pulse(tmp_path, "worker", SystemClock(), looks) as pulse:
        well = CliRunner().invoke(cli.app, ["health"])
        assert (well.exit_code, well.output.split(" (")[0], well.output[-8:]) == (0, "worker", "): well\n")
        looks.wrong = ["unreachable"]
        await pulse._say()
        assert CliRunner().invoke(cli.app, ["health"]).exit_code == 1
        assert '"wrong": [' in CliRunner().invoke(cli.app, ["health", "--json"]).output
    none = CliRunner().invoke(cli.app, ["health"])
    assert "No service of this home is running." in str(none.exception)


def test_what_is_half_written_is_not_believed(tmp_path: Path, clock: FakeClock) -> None:

    (tmp_path / "health").mkdir()
    with (tmp_path / "health" / "api-7").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert health.of(tmp_path, clock) == [Wellness("api (pid 7)", ("it has not said yet how it is",))]
