"""Whatever is killed: ends and logs arrive, under the boot and the key they belong to, and nothing runs twice."""

from __future__ import annotations

import os
import resource
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from executors import spawn
from executors.conformance.world import RealEntropy, is_alive
from worker import linux

if TYPE_CHECKING:
    from tests.unit.worker.remote_api import Api
    from tests.unit.worker.remote_kit import Kit


def test_an_agent_that_is_killed_takes_its_tasks_along_and_the_next_one_says_so(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("echo $$ >> $JOURNAL; echo said; trap '' TERM; sleep 60")
    row = api.row(message.attempt_id)
    api.until(lambda: f"{message.attempt_id}.log" in kit.left(), "it runs, and the agent has heard of it")
    kit.kill_agent()
    assert message.wait() == "acked"
    api.until(lambda: row.state == "lost", "it is given up")
    assert not is_alive(int(kit.lines()[1]))
    api.until(lambda: row.log == b"said\n", "its log arrives with the key of the dead agent")
    api.until(lambda: not kit.left(), "nothing is left in the spool")
    assert kit.line("echo again >> $JOURNAL").state == "success"
    assert kit.lines()[::2] == ["up", "again"]


def test_an_end_that_was_not_sent_is_sent_by_the_next_agent(kit: Kit, api: Api) -> None:
    kit.feed()
    attempt_id = kit.shell("echo once >> $JOURNAL; echo said; echo 7 > $RUNYARD_OUTPUT")
    api.delay["finish"] = 60
    message = kit.send(attempt_id)
    api.until(lambda: api.calls["finish"], "it was sent, and is not answered")
    api.row(attempt_id).state, api.row(attempt_id).finish = "running", {}  # as if it had not arrived
    boot_id = api.row(attempt_id).boot_id
    kit.kill_agent()
    api.delay.clear()
    assert message.wait() == "acked"
    assert api.whole(attempt_id) == b"said\n"
    row = api.row(attempt_id)
    assert (row.state, row.finish["output"], kit.lines()) == ("success", "7\n", ["once"])
    api.until(lambda: len(api.registrations) == 2, "the next agent registers, too")  # an end waits for nothing
    first, second = api.registrations
    assert row.finish["boot_id"] == boot_id == first["boot_id"] != second["boot_id"]
    assert first["boot_number"] < second["boot_number"]
    assert second["attempts"] == [{"attempt_id": attempt_id, "phase": "ended"}]


def test_ends_of_several_agents_wait_for_an_api_that_is_away(kit: Kit, api: Api) -> None:
    kit.slots = 8
    kit.feed()
    for round_ in range(3):
        messages = [kit.begin(f"echo {round_} >> $JOURNAL; sleep 1; head -c 100000 /dev/zero") for _ in range(2)]
        api.stop()
        for message in messages:
            api.until(partial(kit.has_end, message), "its end is on disk")
        kit.kill_agent()
        api.start()
        assert {message.wait() for message in messages} == {"acked"}
        assert {len(api.whole(message.attempt_id)) for message in messages} == {100_000}
    assert sorted(kit.lines()) == ["0", "0", "1", "1", "2", "2", *["up"] * 6]
    assert {row.state for row in api.rows.values()} == {"success"}


def test_an_agent_goes_on_without_its_feeder_and_ends_when_all_is_sent(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("sleep 2; echo 7 > $RUNYARD_OUTPUT")
    kit.kill_feeder()
    assert message.wait() == "dropped"
    api.until(lambda: api.beats and api.beats[-1]["draining"], "the API is told that nothing is taken")
    assert api.ended(message.attempt_id).finish["output"] == "7\n"
    api.until(kit.is_over, "the agent ends")
    assert (api.left, kit.processes()) == (True, [])


def test_the_next_feeder_takes_the_agent_over(kit: Kit, api: Api) -> None:
    kit.feed()
    first = kit.begin("sleep 2; echo 7 > $RUNYARD_OUTPUT")
    agent = kit.agent
    kit.kill_feeder()
    api.until(lambda: api.beats and api.beats[-1]["draining"], "the API is told that nothing is taken")
    kit.feed()
    assert kit.agent == agent
    again = kit.send(first.attempt_id)
    assert kit.line("true").state == "success"
    assert again.wait() == "acked"
    assert (api.row(first.attempt_id).finish["output"], kit.lines()) == ("7\n", ["up"])
    api.until(lambda: not api.beats[-1]["draining"], "the API is told that it takes something again")


def test_a_feeder_that_dies_has_nothing_started_that_was_not(kit: Kit, api: Api) -> None:
    kit.slots = 1
    kit.feed()
    kit.begin("sleep 1")
    waiting = kit.send(kit.shell("echo never >> $JOURNAL"))
    kit.kill_feeder()
    assert waiting.wait() == "dropped"
    api.until(kit.is_over, "the agent ends")
    assert (api.row(waiting.attempt_id).state, kit.lines()) == ("queued", ["up"])


def test_an_agent_alone_with_ends_that_nobody_takes_leaves_them_on_disk(kit: Kit, api: Api) -> None:
    kit.change(patience=1.0)
    kit.feed()
    message = kit.begin("sleep 1; echo said; echo 7 > $RUNYARD_OUTPUT")
    api.stop()
    kit.kill_feeder()
    api.until(kit.is_over, "the agent ends")
    api.start()
    kit.feed()
    assert api.whole(message.attempt_id) == b"said\n"
    assert (api.row(message.attempt_id).finish["output"], kit.lines()) == ("7\n", ["up"])


def test_a_spool_that_cannot_be_written_starts_nothing(kit: Kit, api: Api) -> None:
    kit.feed()
    assert kit.line("true").state == "success"
    unlimited = resource.prlimit(kit.agent, resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
    attempt_id = kit.shell("echo up >> $JOURNAL")
    message = kit.send(attempt_id)
    api.until(lambda: kit.feeder.status[0] == "draining", "it is told")
    assert "cannot be written: File too large; free some space" in kit.feeder.status[1]
    api.until(lambda: api.beats[-1]["draining"], "the API is told that nothing is taken")
    assert (api.row(attempt_id).state, message.fate) == ("queued", "")
    resource.prlimit(kit.agent, resource.RLIMIT_FSIZE, unlimited)
    assert message.wait() == "acked"
    assert (api.ended(attempt_id).state, kit.lines()) == ("success", ["up"])
    api.until(lambda: not api.beats[-1]["draining"], "the API is told that it takes something again")
    assert kit.feeder.status == ("serving", "")


def test_a_disk_without_room_starts_nothing(kit: Kit, api: Api) -> None:
    kit.change(reserve=1 << 60)
    kit.feed()
    attempt_id = kit.shell("echo never >> $JOURNAL")
    message = kit.send(attempt_id)
    api.until(lambda: "No space left on device" in kit.feeder.status[1], "it is told")
    # Held for half a minute: it may pass.  Then it is another worker's.
    assert message.wait(60) == "dropped"
    assert (api.row(attempt_id).state, kit.lines(), api.calls["start"]) == ("queued", [], 0)


def test_an_agent_with_other_settings_is_replaced_when_it_is_idle(kit: Kit, api: Api) -> None:
    spawn.prepare(kit.home, RealEntropy())
    kit.change(version="0.0.1+other")
    kit.feed()
    old = kit.agent
    message = kit.begin("sleep 2; echo 7 > $RUNYARD_OUTPUT")
    kit.kill_feeder()
    kit.change()
    kit.feed()
    assert kit.agent == old
    assert api.ended(message.attempt_id).finish["output"] == "7\n"
    api.until(lambda: kit.feeder._hello is not None and kit.agent != old, "it is replaced")
    assert kit.line("true").state == "success"


def test_with_agent_and_zygote_killed_at_once_nothing_is_left(kit: Kit, api: Api) -> None:
    kit.feed()
    line = "setsid sh -c 'trap \"\" HUP; echo $$ >> $JOURNAL; exec sleep 70' & echo $$ >> $JOURNAL; sleep 71"
    message = kit.begin(line)
    api.until(lambda: len(kit.lines()) == 3, "it runs")
    agent, zygote = kit.agent, linux.descendants(kit.agent)[0]
    os.kill(zygote, signal.SIGSTOP)  # so that it cannot clean up
    os.kill(agent, signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    assert message.wait() == "acked"
    assert api.row(message.attempt_id).state == "lost"
    assert [pid for pid in kit.lines()[1:] if is_alive(int(pid))] == []


def test_the_agent_is_killed_again_and_again_under_load(kit: Kit, api: Api) -> None:
    kit.slots = 8
    api.heartbeat = 0.3
    kit.feed()
    ids = [kit.shell(f"echo {number} >> $JOURNAL; sleep 0.0{number % 10}; echo said") for number in range(80)]
    messages = [kit.send(attempt_id) for attempt_id in ids]
    for _ in range(5):
        time.sleep(0.4)
        if kit.feeder._hello is not None:
            kit.kill_agent()
    assert {message.wait(60) for message in messages} == {"acked"}
    states = {row.state for row in api.rows.values()}
    assert states <= {"success", "lost"}
    assert "success" in states
    assert len(kit.lines()) == len(set(kit.lines()))
    for row in api.rows.values():
        if row.state == "success":
            assert api.whole(row.attempt_id) == b"said\n"


def test_an_agent_that_cannot_start_is_told_and_tried_again(kit: Kit, api: Api) -> None:
    (kit.home / "agent").mkdir(0o700)
    broken = kit.home / "agent" / "attempts"
    broken.write_text("a file where the folder should be")
    kit.feed(wait=False)
    message = kit.send(kit.shell("echo up >> $JOURNAL"))
    api.until(lambda: kit.feeder.status[0] == "unreachable", "it is told")
    assert "the agent ended while it started; see " in kit.feeder.status[1]
    assert "FileExistsError" in kit.said()
    broken.unlink()
    assert message.wait() == "acked"
    assert kit.lines() == ["up"]


def test_the_agents_own_log_does_not_grow_for_ever(kit: Kit) -> None:
    (kit.home / "agent").mkdir(0o700)
    (kit.home / "agent" / "agent.log").write_text("x" * 2_000_000)
    kit.feed()
    assert len(kit.said()) < 1000
