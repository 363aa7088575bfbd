"""A remote agent while the API is away, slow, wrong or not ours: nothing is lost, nothing runs twice, nothing fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.unit.worker.remote_api import HTML, ODD, Reply, problem

if TYPE_CHECKING:
    from tests.unit.worker.remote_api import Api
    from tests.unit.worker.remote_kit import Kit

BUSY = problem(503, "unavailable", "Not now.")


@pytest.mark.parametrize("call", ["register", "beat", "start", "finish"])
def test_answers_that_are_lost_change_nothing(kit: Kit, api: Api, call: str) -> None:
    api.heartbeat = 0.3
    api.lose[call] = 3
    kit.feed()
    attempt_id = kit.shell("echo once >> $JOURNAL; echo 7 > $RUNYARD_OUTPUT")
    assert kit.send(attempt_id).wait() == "acked"
    row = api.ended(attempt_id)
    assert (row.state, row.finish["output"], kit.lines()) == ("success", "7\n", ["once"])
    api.until(lambda: not api.lose[call], "all of them were lost")
    assert len({end["output"] for end in row.ends}) == 1
    assert len({(one["boot_id"], one["token"]) for one in api.registrations}) == 1


ODDITIES = [
    pytest.param(HTML, id="a hotel's page with 200"),
    pytest.param(Reply(404, b"<html>not found</html>", "text/html"), id="a proxy's 404"),
    pytest.param(Reply(401, b"<html>log in</html>", "text/html"), id="a proxy's 401"),
    pytest.param(Reply(410, b"gone", "text/plain"), id="a proxy's 410"),
    pytest.param(Reply(403, {"message": "no"}, "application/json"), id="another API's 403"),
    pytest.param(ODD, id="another API's 200"),
    pytest.param(Reply(200, b"[1]", "application/json"), id="a list"),
    pytest.param(Reply(200, b'{"accepted": tr', "application/json"), id="half a document"),
    pytest.param(Reply(200, b"[" * 100_000, "application/json"), id="a nest"),
    pytest.param(Reply(302, b"", "text/html", (("Location", "http://169.254.169.254/"),)), id="a redirect"),
    pytest.param(Reply(500, b"oops", "text/plain"), id="500"),
    pytest.param(problem(500, "internal_error"), id="our own 500"),
    pytest.param(BUSY, id="503"),
    pytest.param(problem(429, "too_many"), id="429"),
    pytest.param(Reply(204, b""), id="nothing"),
]


@pytest.mark.parametrize("reply", ODDITIES)
def test_what_is_no_answer_of_ours_is_an_outage(kit: Kit, api: Api, reply: Reply) -> None:
    api.heartbeat = 0.3
    for call in ("register", "beat", "start", "finish"):
        api.instead[call] = [reply]
    kit.feed()
    attempt_id = kit.shell("echo once >> $JOURNAL")
    assert kit.send(attempt_id).wait() == "acked"
    assert (api.ended(attempt_id).state, kit.lines()) == ("success", ["once"])
    api.until(lambda: not any(api.instead.values()), "each was asked again")


def test_a_retry_after_is_honoured(kit: Kit, api: Api) -> None:
    kit.feed()
    api.instead["start"] = [Reply(503, BUSY.document, "application/problem+json", (("Retry-After", "2"),))]
    began = time.monotonic()
    assert kit.line("true").state == "success"
    assert time.monotonic() - began >= 2


def test_ends_wait_for_an_api_that_is_away(kit: Kit, api: Api) -> None:
    api.lease = 120
    kit.feed()
    short, long = kit.begin("sleep 0.5; echo 1 > $RUNYARD_OUTPUT"), kit.begin("sleep 3; echo 2 > $RUNYARD_OUTPUT")
    api.stop()
    late = kit.send(kit.shell("echo late >> $JOURNAL"))
    time.sleep(4)
    assert (short.fate, long.fate, late.fate, "late" in kit.lines()) == ("", "", "", False)
    assert kit.feeder.status[0] == "unreachable"
    assert kit.outcomes().count('"outcome": "success"') == 2
    api.start()
    assert {message.wait() for message in (short, long, late)} == {"acked"}
    assert [api.ended(one.attempt_id).finish["output"] for one in (short, long)] == ["1\n", "2\n"]
    assert kit.lines() == ["up", "up", "late"]
    api.until(lambda: kit.feeder.status[0] == "serving", "it is told")


def test_a_start_whose_answer_was_lost_in_an_outage_is_still_ours(kit: Kit, api: Api) -> None:
    """The API counts the attempt as running here: to forget it would leave it to nobody."""
    kit.feed()
    attempt_id = kit.shell("echo once >> $JOURNAL")
    api.lose["start"] = 1_000  # it asks again before the API has stopped
    message = kit.send(attempt_id)
    api.until(lambda: api.row(attempt_id).state == "running", "the API has it")
    api.stop()
    kit.kill_feeder()
    assert message.wait() == "dropped"
    api.lose["start"] = 0
    api.start()
    assert (api.ended(attempt_id).state, kit.lines()) == ("success", ["once"])


def test_a_refused_end_is_kept_told_and_sent_again(kit: Kit, api: Api) -> None:
    kit.feed()
    api.instead["finish"] = [problem(422, "invalid", "It is not acceptable.")] * 2
    attempt_id = kit.shell("echo 7 > $RUNYARD_OUTPUT")
    assert kit.send(attempt_id).wait() == "acked"
    assert api.row(attempt_id).finish == {}
    assert f"the end of {attempt_id}, success, is refused and kept: 422 invalid" in kit.said()
    kit.kill_agent()
    api.until(lambda: len(api.registrations) == 2, "the next agent registers")
    assert [held["attempt_id"] for held in api.registrations[-1]["attempts"]] == [attempt_id]
    api.until(lambda: not api.instead["finish"], "it is sent again")
    kit.kill_agent()
    assert api.ended(attempt_id).finish["output"] == "7\n"


def test_an_end_that_came_too_late_is_done_with(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("sleep 1; echo late")
    api.give_up()
    assert message.wait() == "acked"
    row = api.row(message.attempt_id)
    assert (row.state, row.finish, bytes(row.log)) == ("lost", {}, b"late\n")
    api.until(lambda: not kit.left(), "nothing is left in the spool")
    assert "came too late" in kit.said()


def test_a_slow_api_is_waited_for(kit: Kit, api: Api) -> None:
    for call in ("start", "finish"):
        api.delay[call] = 1
    kit.feed()
    messages = [kit.send(kit.shell("echo once >> $JOURNAL")) for _ in range(4)]
    assert {message.wait() for message in messages} == {"acked"}
    assert (len(kit.lines()), api.calls["start"], api.calls["finish"]) == (4, 4, 4)
    assert kit.feeder.status == ("serving", "")


def test_a_worker_that_the_api_forgot_registers_again_as_the_same(kit: Kit, api: Api) -> None:
    api.heartbeat = 0.3
    kit.feed()
    message = kit.begin("sleep 1.5")
    api.worker = {}
    api.until(lambda: len(api.registrations) == 2, "it registers again")
    first, second = api.registrations
    assert (first["boot_id"], first["token"]) == (second["boot_id"], second["token"])
    assert second["attempts"] == [{"attempt_id": message.attempt_id, "phase": "running"}]
    assert message.wait() == "acked"
    assert api.ended(message.attempt_id).state == "success"


def test_a_start_of_a_worker_that_the_api_forgot_waits_for_its_registration(kit: Kit, api: Api) -> None:
    api.heartbeat, api.lease = 10, 60
    kit.feed()
    api.until(lambda: api.beats, "a heartbeat waits for a directive")
    api.worker = {}
    assert kit.line("true").state == "success"
    assert len(api.registrations) == 2


def test_a_heartbeat_without_a_lease_is_none(kit: Kit, api: Api) -> None:
    api.heartbeat = 0.3
    kit.feed()
    api.instead["beat"] = [Reply(200, {"lease": "long", "heartbeat": 1, "drain": False, "directives": []})]
    api.until(lambda: ("unreachable", "the API said nothing of a lease") in kit.statuses, "it is told")
    api.until(lambda: kit.feeder.status[0] == "serving", "the next one is good")
    assert kit.line("true").state == "success"


def test_directives_that_cannot_be_read_spoil_no_other(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("exec sleep 60")
    good = {"attempt_id": message.attempt_id, "directive": "cancel", "reason": "user", "grace": 0}
    bad = [1, {}, {**good, "reason": "whim"}, {**good, "directive": "dance"}, {**good, "attempt_id": 1}]
    api.instead["beat"] = [Reply(200, {**api.leased(), "drain": False, "directives": [*bad, good]})] * 2
    assert message.wait() == "acked"
    assert api.ended(message.attempt_id).state == "cancelled"
