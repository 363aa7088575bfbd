"""A restart with other executors: what was in progress under the old ones goes on, and ends."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.system import hosts
from tests.system.service import Service, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Make = Callable[..., Service]

#: The middle one waits for somebody to open the gate.
STEPS = """
dag_id: steps
defaults: {kill_grace: PT1S, env: {JOURNAL: "%(journal)s", GATE: "%(gate)s"}}
tasks:
  first: {command: [sh, -c, 'echo first >>"$JOURNAL"']}
  gate:
    command: [sh, -c, 'echo gate >>"$JOURNAL"; while ! [ -e "$GATE" ]; do sleep 0.1; done']
    depends_on: [first]
  last:
    command: [sh, -c, 'echo last >>"$JOURNAL"']
    depends_on: [gate]
"""

NAMED = """
dag_id: named
tasks:
  only: {command: [sleep, "60"], executor: local, kill_grace: PT1S}
"""


class Steps:
    """A run that stands before its gate, and a service that can be started again with other executors."""

    def __init__(self, made: Service, folder: Path) -> None:
        self.made = made
        self.journal = folder / "journal"
        self.gate = folder / "gate"
        document = folder / "steps.yaml"
        document.write_text(STEPS % {"journal": self.journal, "gate": self.gate})
        made.start()
        assert made.cli("apply", "-f", str(document)).returncode == 0
        self.run_id = made.ask("trigger", "steps")["run_id"]
        self.wait_at_the_gate(1)

    def lines(self) -> list[str]:
        return self.journal.read_text().splitlines() if self.journal.exists() else []

    def wait_at_the_gate(self, times: int) -> None:
        wait_for(lambda: self.lines().count("gate") == times, 40)

    def lines_at_the_end(self) -> list[str]:
        """Open the gate, and have the run succeed."""
        self.gate.touch()
        self.wait_for_state("success")
        return self.lines()

    def run(self) -> dict[str, Any]:
        return next(run for run in self.made.ask("runs", "steps") if run["run_id"] == self.run_id)

    def tasks(self) -> list[dict[str, Any]]:
        return list(self.made.ask("tasks", "steps", self.run_id))

    def wait_for_state(self, state: str) -> None:
        wait_for(lambda: self.run()["state"] == state, 40)

    def kill_everything(self) -> None:
        """End the service, its agent and the zygote at once, and with them what they ran."""
        self.made.kill()
        agents = self.made.agents()
        for pid in [*agents, *hosts.zygotes(self.made.home)]:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not hosts.everything(self.made.home))

    def restart(self, executors: str) -> None:
        self.made.environ["RUNYARD_EXECUTORS"] = executors
        self.made.start()


@pytest.fixture
def steps(make_service: Make, tmp_path: Path) -> Steps:
    return Steps(make_service(RUNYARD_EXECUTORS="sequential"), tmp_path)


def test_a_run_goes_on_with_the_new_default_after_a_stop(steps: Steps) -> None:
    assert steps.made.stop() == 0
    steps.restart("local")
    steps.wait_at_the_gate(2)
    assert steps.lines_at_the_end() == ["first", "gate", "gate", "last"]


def test_a_task_that_outlived_the_service_is_adopted_by_the_new_executor(steps: Steps) -> None:
    steps.made.kill()
    steps.restart("local")
    assert steps.lines_at_the_end() == ["first", "gate", "last"]


def test_a_task_that_died_with_its_agent_runs_again_under_the_new_executor(steps: Steps) -> None:
    steps.kill_everything()
    steps.restart("local")
    steps.wait_at_the_gate(2)
    assert steps.lines_at_the_end() == ["first", "gate", "gate", "last"]


def test_a_cancel_reaches_what_another_executor_placed(steps: Steps) -> None:
    steps.made.kill()
    steps.restart("local")
    assert steps.made.cli("cancel", "steps", steps.run_id).returncode == 0
    steps.wait_for_state("cancelled")
    assert steps.lines() == ["first", "gate"]


def test_a_cancel_ends_what_died_with_its_agent(steps: Steps) -> None:
    steps.kill_everything()
    steps.restart("local")
    assert steps.made.cli("cancel", "steps", steps.run_id).returncode == 0
    steps.wait_for_state("cancelled")


#: Nobody listens there: a broker may be away.
AWAY = "redis://127.0.0.1:1/0"


def test_what_runs_at_the_own_agent_ends_there_though_no_executor_has_it_any_more(steps: Steps) -> None:
    steps.made.kill()
    steps.made.environ["RUNYARD_BROKER_URL"] = AWAY
    steps.restart("dramatiq")
    steps.gate.touch()
    wait_for(lambda: [task["state"] for task in steps.tasks()] == ["success", "success", "scheduled"], 40)
    assert steps.lines() == ["first", "gate"]
    last = steps.tasks()[-1]
    assert (last["executor"], last["reason"]) == ("dramatiq", "no_worker")


def test_what_died_with_the_own_agent_is_given_up_though_no_executor_has_it_any_more(steps: Steps) -> None:
    steps.kill_everything()
    steps.made.environ["RUNYARD_BROKER_URL"] = AWAY
    steps.restart("dramatiq")
    wait_for(lambda: [(task["state"], task["executor"]) for task in steps.tasks()][1] == ("scheduled", "dramatiq"), 40)
    assert steps.made.cli("cancel", "steps", steps.run_id).returncode == 0
    steps.wait_for_state("cancelled")


def test_a_task_that_names_an_executor_that_is_gone_says_so_and_can_be_cancelled(
    make_service: Make, tmp_path: Path
) -> None:
    made = make_service(RUNYARD_EXECUTORS="local,sequential").start()
    document = tmp_path / "named.yaml"
    document.write_text(NAMED)
    assert made.cli("apply", "-f", str(document)).returncode == 0
    run_id = made.ask("trigger", "named")["run_id"]
    wait_for(lambda: made.ask("tasks", "named", run_id)[0]["state"] == "running")
    assert made.stop() == 0
    made.environ["RUNYARD_EXECUTORS"] = "sequential"
    made.start()
    wait_for(lambda: made.ask("tasks", "named", run_id)[0]["reason"] == "no_executor")
    wait_for(lambda: "configured nowhere" in made.log.read_text())
    assert made.cli("cancel", "named", run_id).returncode == 0
    wait_for(lambda: made.ask("runs", "named")[0]["state"] == "cancelled")
