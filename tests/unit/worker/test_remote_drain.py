"""A worker that ends: what runs gets its time, the rest is somebody else's, and the API is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from executors.feed import Dropped

if TYPE_CHECKING:
    from tests.unit.worker.remote_api import Api
    from tests.unit.worker.remote_kit import Kit


def test_a_drain_lets_end_what_ends_and_requeues_the_rest(kit: Kit, api: Api) -> None:
    kit.slots = 2
    kit.feed()
    short, long = kit.begin("sleep 1; echo 7 > $RUNYARD_OUTPUT"), kit.begin("trap 'echo term' TERM; sleep 100 & wait")
    waiting = kit.send(kit.shell("echo never >> $JOURNAL"))
    assert kit.feeder.drain(3)
    assert (short.wait(), long.wait(), waiting.wait()) == ("acked", "acked", "dropped")
    assert (api.ended(short.attempt_id).state, api.ended(long.attempt_id).state) == ("success", "drained")
    assert api.whole(long.attempt_id) == b"term\n"
    assert (api.row(waiting.attempt_id).state, kit.lines()) == ("queued", ["up", "up"])
    assert api.left
    assert api.beats[-1]["draining"]
    assert kit.is_over()
    with pytest.raises(Dropped):
        kit.feeder.run(waiting.attempt_id, "rt1.x")


def test_a_drain_of_an_idle_worker_takes_no_time(kit: Kit, api: Api) -> None:
    kit.feed()
    began = time.monotonic()
    assert kit.feeder.drain(60)
    assert time.monotonic() - began < 10
    assert api.left
    assert kit.processes() == []


def test_heartbeats_go_on_during_a_drain(kit: Kit, api: Api) -> None:
    api.lease, api.heartbeat = 1.5, 0.3
    kit.feed()
    message = kit.begin("sleep 4; echo 7 > $RUNYARD_OUTPUT")
    assert kit.feeder.drain(30)
    assert message.wait() == "acked"
    assert api.row(message.attempt_id).finish["output"] == "7\n"


def test_a_drain_without_an_api_is_bounded_and_leaves_the_ends_on_disk(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("sleep 100")
    api.stop()
    began = time.monotonic()
    assert kit.feeder.drain(0)
    assert time.monotonic() - began < 25
    assert message.wait() == "dropped"
    assert kit.has_end(message)  # the agent has ended
    kit.kill_feeder()
    api.start()
    kit.feed()
    assert api.ended(message.attempt_id).state == "drained"


def test_a_start_that_was_not_answered_does_not_hold_up_a_drain(kit: Kit, api: Api) -> None:
    kit.feed()
    api.lose["start"] = 1000
    attempt_id = kit.shell("echo never >> $JOURNAL")
    message = kit.send(attempt_id)
    api.until(lambda: api.row(attempt_id).state == "running", "the API has it")
    api.stop()
    began = time.monotonic()
    assert kit.feeder.drain(0)
    assert time.monotonic() - began < 20
    assert (message.wait(), kit.lines()) == ("dropped", [])


def test_a_start_that_is_answered_during_a_drain_is_given_back(kit: Kit, api: Api) -> None:
    kit.feed()
    api.lose["start"] = 2
    api.delay["start"] = 0.5
    attempt_id = kit.shell("echo never >> $JOURNAL")
    message = kit.send(attempt_id)
    api.until(lambda: api.row(attempt_id).state == "running", "the API has it")
    assert kit.feeder.drain(0)
    assert (message.wait(), api.ended(attempt_id).state, kit.lines()) == ("acked", "drained", [])


def test_a_drain_that_comes_before_the_agent_is_up_leaves_nothing(kit: Kit) -> None:
    feeder = kit.feed(wait=False)
    assert feeder.drain(5)
    assert kit.processes() == []


def test_a_new_feeder_during_a_drain_gets_the_next_agent(kit: Kit, api: Api) -> None:
    kit.feed()
    slow = kit.begin("trap '' TERM; sleep 2")
    old = kit.agent
    kit.feeder._send({"type": "drain", "grace": 1.0})
    kit.kill_feeder()
    kit.feed(wait=False)
    message = kit.send(kit.shell("echo new >> $JOURNAL"))
    assert message.wait() == "acked"
    assert api.ended(message.attempt_id).state == "success"
    assert (kit.agent != old, slow.wait(), kit.lines()) == (True, "dropped", ["up", "new"])


def test_an_api_that_wants_nothing_to_start_here_is_obeyed_until_it_does(kit: Kit, api: Api) -> None:
    api.heartbeat = 0.3
    kit.feed()
    running = kit.begin("sleep 2")
    api.drain = True
    api.until(lambda: kit.feeder.status == ("draining", "the API wants nothing to start here"), "it is told")
    assert kit.send(kit.shell("echo never >> $JOURNAL")).wait() == "dropped"
    assert running.wait() == "acked"
    assert api.ended(running.attempt_id).state == "success"
    api.drain = False
    api.until(lambda: kit.feeder.status[0] == "serving", "it is told")
    assert kit.line("true").state == "success"
    assert kit.lines() == ["up"]
