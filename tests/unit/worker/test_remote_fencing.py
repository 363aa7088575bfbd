"""Contact that is lost: what runs is killed in time, or goes on because it said so; and nobody has two of an agent."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from executors.conformance.world import is_alive
from tests.unit.worker.remote_api import problem

if TYPE_CHECKING:
    from tests.unit.worker.remote_api import Api, Row
    from tests.unit.worker.remote_kit import Kit, Message

TICKS = "echo $$ >> $JOURNAL; trap '' TERM; while :; do echo tick; sleep 0.05; done"


def test_a_partition_kills_what_runs_before_anybody_else_may_start_it(kit: Kit, api: Api) -> None:
    api.lease, api.heartbeat = 2, 0.4
    kit.feed()
    message = kit.begin(TICKS)
    api.until(lambda: len(kit.lines()) == 2 and len(api.beats) > 6, "it runs, for longer than the first lease")
    api.stop()
    away = time.monotonic()
    pid = int(kit.lines()[1])
    api.until(lambda: not is_alive(pid), "it is killed")
    took = time.monotonic() - away
    assert 0.5 < took < 10
    api.until(lambda: kit.has_end(message), "its end is on disk")
    api.give_up()
    api.start()
    assert message.wait() == "acked"
    row = api.row(message.attempt_id)
    assert (row.state, row.finish, row.ends[-1]["outcome"]) == ("lost", {}, "lost")
    assert "lost contact" in row.ends[-1]["error"]
    api.until(lambda: len(row.log) == row.ends[-1]["log_size"], "its log arrives all the same")
    assert kit.line("true").state == "success"


def test_a_contact_that_is_lost_for_less_than_the_lease_harms_nobody(kit: Kit, api: Api) -> None:
    api.lease, api.heartbeat = 6, 0.5
    kit.feed()
    message = kit.begin("sleep 4; echo 7 > $RUNYARD_OUTPUT")
    api.stop()
    time.sleep(2)
    api.start()
    assert message.wait() == "acked"
    assert (api.ended(message.attempt_id).finish["output"], kit.lines()) == ("7\n", ["up"])


def test_a_task_that_asked_for_it_goes_on_without_contact(kit: Kit, api: Api) -> None:
    api.lease, api.heartbeat = 1.5, 0.3
    kit.feed()
    lasting = kit.begin("sleep 5; echo 7 > $RUNYARD_OUTPUT; echo done >> $JOURNAL", on_lost_contact="continue")
    other = kit.begin("echo $$ >> $JOURNAL; exec sleep 100")
    api.until(lambda: len(kit.lines()) == 3, "both run")
    api.stop()
    api.until(lambda: not is_alive(int(kit.lines()[2])), "the other is killed")
    assert not kit.has_end(lasting)
    api.until(lambda: "done" in kit.lines(), "it goes on to its end")
    api.start()
    assert {lasting.wait(), other.wait()} == {"acked"}
    assert api.ended(lasting.attempt_id).finish["output"] == "7\n"
    assert api.ended(other.attempt_id).state == "lost"


def test_an_agent_that_stands_still_has_its_tasks_killed_all_the_same(kit: Kit, api: Api) -> None:
    api.lease, api.heartbeat = 2, 0.4
    kit.feed()
    lasting = kit.begin("sleep 8; echo 7 > $RUNYARD_OUTPUT", on_lost_contact="continue")
    other = kit.begin("(setsid sh -c 'echo $$ >> $JOURNAL; exec sleep 100') & echo $$ >> $JOURNAL; exec sleep 100")
    api.until(lambda: len(kit.lines()) == 4, "both run")
    os.kill(kit.agent, signal.SIGSTOP)
    stood = time.monotonic()
    try:
        tree = [int(line) for line in kit.lines() if line != "up"]
        api.until(lambda: not any(map(is_alive, tree)), "its tree is dead")
        assert time.monotonic() - stood < 2 + 1, "by the time others may start it"
    finally:
        os.kill(kit.agent, signal.SIGCONT)
    assert {lasting.wait(), other.wait()} == {"acked"}
    (end,) = api.ended(other.attempt_id).ends
    assert (end["outcome"], "lost contact" in end["error"]) == ("lost", True), "it is no failure of the task"
    assert api.ended(lasting.attempt_id).finish["output"] == "7\n"


def test_an_agent_that_hangs_in_a_log_has_its_tasks_killed_all_the_same(kit: Kit, api: Api) -> None:
    """A pipe that nobody reads stands for a disk of the network that is cut.

    When it is over the agent hears of the kill before its own fence falls: what is readable comes before timers.
    """
    api.lease, api.heartbeat = 2, 0.4
    kit.feed()
    attempt_id = kit.shell("echo $$ >> $JOURNAL; echo tick; exec sleep 100")
    log = kit.home / "agent" / "attempts" / f"{attempt_id}.log"
    os.mkfifo(log)
    message = kit.send(attempt_id)
    api.until(lambda: len(kit.lines()) == 1, "it runs")
    api.stop()
    hung = time.monotonic()
    api.until(lambda: not is_alive(int(kit.lines()[0])), "it is dead")
    assert time.monotonic() - hung < 2 + 1, "by the time others may start it"
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    log.unlink()
    try:
        api.until(lambda: kit.has_end(message), "the agent goes on")
        assert '"outcome": "lost"' in kit.outcomes(), "it is no failure of the task"
    finally:
        os.close(reader)


def test_nothing_is_asked_to_start_while_the_lease_is_over(kit: Kit, api: Api) -> None:
    """It would be killed in the moment in which it is won."""
    api.lease, api.heartbeat = 1.5, 0.3
    kit.feed()
    api.instead["beat"] = [problem(503, "unavailable")] * 100
    api.until(lambda: kit.feeder.status[0] == "unreachable", "heartbeats fail, and only those")
    time.sleep(2)
    message = kit.send(kit.shell("echo up >> $JOURNAL"))
    time.sleep(0.5)
    assert api.calls["start"] == 0
    api.instead.clear()
    assert message.wait() == "acked"
    assert api.ended(message.attempt_id).state == "success"


def test_an_agent_whose_id_somebody_else_has_kills_everything_and_stays_quiet(kit: Kit, api: Api) -> None:
    api.heartbeat = 0.4
    kit.feed()
    lasting = kit.begin("echo $$ >> $JOURNAL; exec sleep 100", on_lost_contact="continue")
    api.until(lambda: len(kit.lines()) == 2, "it runs")
    api.worker = {**api.worker, "boot_id": "0" * 32, "token": "x" * 43}
    api.give_up()
    api.until(lambda: kit.feeder.status[0] == "refused", "it is told")
    assert "another worker has this one's id, maybe on a copy of its home: 410" in kit.feeder.status[1]
    assert lasting.wait() == "acked"
    assert (is_alive(int(kit.lines()[1])), api.row(lasting.attempt_id).state) == (False, "lost")
    message = kit.send(kit.shell("echo never >> $JOURNAL"))
    time.sleep(2)
    assert (len(api.registrations), message.fate, "never" in kit.lines()) == (1, "", False)
    began = time.monotonic()
    kit.kill_feeder()
    api.until(kit.is_over, "it ends with its feeder")
    assert time.monotonic() - began < 2, "at once: the next feeder, maybe a second later, needs another agent"
    assert not api.left


def test_a_zygote_that_is_stopped_saves_nobody_from_a_kill(kit: Kit, api: Api) -> None:
    """It is what kills; somebody has stopped it, or it hangs in the kernel."""
    api.lease, api.heartbeat = 20, 0.5
    kit.feed()
    message = kit.begin(TICKS, kill_grace=0.2)
    api.until(lambda: len(kit.lines()) == 2, "it has said who it is")
    (zygote,) = map(int, Path(f"/proc/{kit.agent}/task/{kit.agent}/children").read_text().split())
    os.kill(zygote, signal.SIGSTOP)
    api.cancel(message.attempt_id)
    assert message.wait() == "acked"
    assert not is_alive(int(kit.lines()[1]))
    assert api.ended(message.attempt_id).finish["outcome"] == "cancelled"
    assert kit.line("true").state == "success"


def a_late_answer(kit: Kit, api: Api) -> tuple[Message, Row]:
    """A start that is won, and answered when the lease is over: heartbeats fail from now on."""
    api.lease, api.heartbeat = 1.5, 0.3
    kit.feed()
    api.delay["start"] = 4
    message = kit.send(kit.shell("echo up >> $JOURNAL"))
    row = api.row(message.attempt_id)
    api.until(lambda: row.state == "running", "its start is won, and the answer is on its way")
    api.instead["beat"] = [problem(503, "unavailable")] * 100
    return message, row


def test_a_start_that_was_answered_too_late_is_asked_for_again(kit: Kit, api: Api) -> None:
    """It was won under a lease that has run out since: by the next one it may run elsewhere, and here it does."""
    message, row = a_late_answer(kit, api)
    api.until(lambda: kit.feeder.status[0] == "unreachable", "heartbeats fail")
    time.sleep(1.6)
    api.give_up()
    api.instead.clear()
    api.until(lambda: kit.feeder.status[0] == "serving", "it has a lease again")
    api.delay.clear()
    assert message.wait() == "acked"
    assert (api.calls["start"], kit.lines(), row.ends) == (2, [], [])


def test_a_start_that_is_answered_while_the_lease_is_over_is_asked_for_again(kit: Kit, api: Api) -> None:
    """It was not given to anybody else yet; to give it up would take a loss of its budget, although nothing ran."""
    message, row = a_late_answer(kit, api)
    time.sleep(4.5)
    assert (api.calls["start"], kit.lines(), row.ends) == (1, [], []), (
        "it is held, and nothing is asked without contact"
    )
    api.delay.clear()
    api.instead.clear()
    assert message.wait() == "acked"
    assert (api.calls["start"], kit.lines(), row.state) == (2, ["up"], "success")
