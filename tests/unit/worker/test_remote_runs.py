"""A remote agent in fair weather: what it runs, says and keeps to itself."""

from __future__ import annotations

import json
import os
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from executors.feed import HomeTaken
from tests.unit.worker.remote_api import KEY, problem, ticket_of
from worker import linux

if TYPE_CHECKING:
    from tests.unit.worker.remote_api import Api
    from tests.unit.worker.remote_kit import Kit


def test_a_small_task_costs_two_calls(kit: Kit, api: Api) -> None:
    kit.feed()
    row = kit.line("echo hello; echo '[1]' > $RUNYARD_OUTPUT")
    assert (row.state, row.finish["output"], bytes(row.log)) == ("success", "[1]\n", b"hello\n")
    assert {name: api.calls[name] for name in ("start", "finish", "log", "output")} == {
        "start": 1, "finish": 1, "log": 0, "output": 0,
    }  # fmt: skip
    api.until(lambda: not kit.left(), "nothing is left in the spool")


def test_it_registers_as_what_the_feeder_said(kit: Kit, api: Api) -> None:
    kit.feed()
    worker = dict(api.worker)
    assert (kit.home / "agent" / "id").read_text() == worker.pop("worker_id")
    assert (worker.pop("pid"), worker.pop("host"), len(worker.pop("token"))) == (kit.agent, os.uname().nodename, 43)
    assert len(worker.pop("boot_id")) == 32
    assert worker.pop("boot_number") == int((kit.home / "agent" / "boots").read_text())
    assert worker.pop("version")
    assert worker == {
        "protocol": 1, "name": "w", "executor": "dramatiq", "queues": ["default"], "slots": 4, "attempts": [],
    }  # fmt: skip


def test_an_end_says_what_happened(kit: Kit) -> None:
    kit.feed()
    failed = kit.line("exit 3").finish
    killed = kit.line("kill -9 $$").finish
    late = kit.run(argv=["sleep", "60"], timeout=0.2, kill_grace=0.1).finish
    assert (failed["outcome"], failed["exit_code"], failed["error"]) == ("failed", 3, "exit code 3")
    assert (killed["outcome"], killed["signal"], killed["error"]) == ("failed", 9, "killed by SIGKILL")
    assert late["outcome"] == "timed_out"
    assert failed["started_at"] <= failed["ended_at"] <= failed["sent_at"] <= time.time()


def test_a_log_arrives_while_its_task_runs(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("for i in 1 2 3; do echo $i; sleep 1; done")
    row = api.row(message.attempt_id)
    api.until(lambda: row.log == b"1\n", "its first line is there")
    assert row.state == "running"
    message.wait()
    assert api.whole(message.attempt_id) == b"1\n2\n3\n"


def test_a_cancel_arrives_at_once(kit: Kit, api: Api) -> None:
    api.heartbeat, api.lease = 10, 60
    kit.feed()
    message = kit.begin("exec sleep 100")
    began = time.monotonic()
    api.cancel(message.attempt_id)
    assert message.wait() == "acked"
    assert time.monotonic() - began < 9
    assert (api.ended(message.attempt_id).state, api.calls["beat"] < 8) == ("cancelled", True)


def test_a_directive_for_an_attempt_whose_end_is_on_its_way_is_told_once(kit: Kit, api: Api) -> None:
    kit.feed()
    api.instead["finish"] = [problem(503, "unavailable")] * 100
    message = kit.begin("exit 0")
    api.until(lambda: kit.has_end(message), "it has ended by itself")
    before = len(api.beats)
    api.cancel(message.attempt_id)
    api.until(lambda: len(api.beats) > before + 1, "heartbeats go on")
    api.instead.clear()
    assert message.wait() == "acked"
    assert api.ended(message.attempt_id).state == "success"
    said = [one["stopping"] for beat in api.beats[before:] for one in beat["attempts"]]
    assert set(said) <= {None, "user"}
    assert said.count(None) <= 1


def test_what_was_cancelled_before_its_start_is_told_never_runs(kit: Kit, api: Api) -> None:
    kit.feed()
    attempt_id = kit.shell("echo never >> $JOURNAL")
    api.row(attempt_id).stop = "user"
    assert kit.send(attempt_id).wait() == "acked"
    assert (api.ended(attempt_id).state, kit.lines()) == ("cancelled", [])


def test_an_attempt_that_cannot_start_is_acknowledged(kit: Kit, api: Api) -> None:
    kit.feed()
    gone, taken, unknown = kit.shell("echo gone >> $JOURNAL"), kit.shell("echo taken >> $JOURNAL"), "0190-unknown"
    api.cancel(gone)
    api.row(taken).state, api.row(taken).boot_id = "running", "0" * 32
    for attempt_id in (gone, taken, unknown):
        assert kit.send(attempt_id).wait() == "acked"
    assert kit.lines() == []
    assert kit.run(argv=["true"]).state == "success"
    assert '"begun": "0190-unknown"' in kit.outcomes()
    assert '"answered": "0190-unknown"' in kit.outcomes()


FORGED = [
    pytest.param("rt1.forged", id="made up"),
    pytest.param("", id="none"),
    pytest.param("rt1.x\r\nX-Evil: 1", id="one that would be a header"),
    pytest.param("rt1." + "x" * 2000, id="a long one"),
    pytest.param("rt1.ü", id="no ASCII"),
]


@pytest.mark.parametrize("ticket", FORGED)
def test_a_forged_ticket_starts_nothing(kit: Kit, api: Api, ticket: str) -> None:
    kit.feed()
    attempt_id = kit.shell("echo never >> $JOURNAL")
    assert kit.send(attempt_id, ticket).wait() == "acked"
    assert (kit.lines(), api.row(attempt_id).state) == ([], "queued")
    assert kit.send(attempt_id).wait() == "acked"
    assert kit.lines() == ["never"]


def test_a_forged_ticket_does_not_end_the_wait_of_the_right_one(kit: Kit, api: Api) -> None:
    kit.feed()
    api.delay["start"] = 0.5
    attempt_id = kit.shell("echo once >> $JOURNAL; sleep 0.5")
    forged = kit.send(attempt_id, "rt1.forged")
    right = kit.send(attempt_id)
    assert (forged.wait(), right.wait()) == ("acked", "acked")
    assert (api.ended(attempt_id).state, kit.lines()) == ("success", ["once"])


@pytest.mark.parametrize("attempt_id", ["../../x", "a/b", "", "x" * 100, "ü", "a\nb", "-a"])
def test_an_id_that_is_none_reaches_no_path_and_no_api(kit: Kit, api: Api, attempt_id: str) -> None:
    kit.feed()
    assert kit.send(attempt_id, "rt1.x").wait() == "acked"
    assert api.calls["start"] == 0
    assert kit.run(argv=["true"]).state == "success"


def test_a_message_that_comes_twice_runs_once(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("sleep 0.5")
    again = [kit.send(message.attempt_id) for _ in range(3)]
    assert [one.wait() for one in (message, *again)] == ["acked"] * 4
    assert kit.send(message.attempt_id).wait() == "acked"
    assert (kit.lines(), api.calls["start"]) == (["up"], 1)


def test_no_more_run_at_once_than_there_are_slots(kit: Kit, api: Api) -> None:
    kit.slots = 2
    kit.feed()
    line = "echo + >> $JOURNAL; sleep 0.2; echo - >> $JOURNAL"
    messages = [kit.send(kit.shell(line)) for _ in range(8)]
    assert {message.wait() for message in messages} == {"acked"}
    running, most = 0, 0
    for mark in kit.lines():
        running += 1 if mark == "+" else -1
        most = max(most, running)
    assert most == 2
    assert api.calls["start"] == 8


def test_secrets_are_for_nobody_to_see(kit: Kit, api: Api) -> None:
    kit.feed()
    script = "cat /proc/$PPID/environ /proc/$PPID/cmdline; env; cat ../outcomes >/dev/null; sleep 0.3"
    attempt_id = api.queue(argv=None, shell=script)
    message = kit.send(attempt_id)
    api.until(lambda: api.row(attempt_id).key, "it started")
    secrets = [KEY, ticket_of(attempt_id), api.worker["token"], api.row(attempt_id).key]
    shown = b"".join(
        (Path("/proc") / str(pid) / name).read_bytes() for pid in kit.processes() for name in ("environ", "cmdline")
    )
    message.wait()
    shown += api.whole(attempt_id) + kit.said().encode() + repr([kit.feeder._worker, kit.feeder._runs]).encode()
    assert [secret for secret in secrets if secret.encode() in shown] == []
    files = [*(kit.home / "agent").iterdir(), *(kit.home / "agent" / "attempts").iterdir()]
    open_to_others = [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077]
    assert open_to_others == []


def test_the_agent_cannot_be_looked_into(kit: Kit) -> None:
    group = os.getgid()
    if os.getuid() == 0:
        os.setresgid(12345, 12345, -1)  # so that root's own processes can be told from what is given to root
    try:
        kit.feed()
    finally:
        os.setresgid(group, group, -1)
    agent, zygote = (Path(f"/proc/{pid}/mem").stat() for pid in (kit.agent, linux.descendants(kit.agent)[0]))
    # What nobody but root may read belongs to root: that is how the kernel says it.
    assert (agent.st_uid, agent.st_gid) == (0, 0)
    assert (zygote.st_uid, zygote.st_gid) != (0, 0)


def test_one_process_feeds_a_home(kit: Kit) -> None:
    kit.feed()
    pid = os.fork()
    if pid == 0:
        try:
            kit.feed(wait=False)
        except HomeTaken as error:
            os._exit(7 if "RUNYARD_HOME" in str(error) else 8)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert kit.run(argv=["true"]).state == "success"


@pytest.mark.parametrize("size", [70_000, 1024 * 1024 - 2])
def test_an_output_of_any_size_rides_in_its_finish(kit: Kit, size: int) -> None:
    kit.feed()
    row = kit.run(kind="python", call=None, source=f"def main():\n    return '\"' * {size // 2}\n", argv=None)
    assert row.state == "success", row.finish["error"]
    assert json.loads(row.finish["output"]) == '"' * (size // 2)


def test_an_output_that_is_too_large_fails_its_task(kit: Kit) -> None:
    kit.feed()
    row = kit.line("head -c 2000000 /dev/zero | tr '\\0' 1 > $RUNYARD_OUTPUT")
    assert (row.state, row.finish["output"]) == ("failed", None)
    assert "at most 1,048,576" in row.finish["error"]


def test_a_key_that_is_refused_is_told_with_its_reason_and_tried_again(kit: Kit) -> None:
    kit.key = "runyard_wrong"
    feeder = kit.feed(wait=False)
    state, detail = feeder.wait_for_answer(30)
    assert (state, detail) == ("refused", "401 unauthenticated: A valid API key is needed.")
    message = kit.send(kit.shell("echo up >> $JOURNAL"))
    kit.feeder.close()
    assert message.wait() == "dropped"
    kit.key = KEY
    kit.feed()
    assert kit.run(argv=["true"]).state == "success"
    assert kit.lines() == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        pytest.param((409, "worker_protocol"), "409 worker_protocol", id="another protocol"),
        pytest.param((403, "forbidden"), "403 forbidden", id="a queue that the key does not serve"),
        pytest.param((422, "invalid"), "422 invalid", id="a field"),
        pytest.param((404, "route_not_found"), "404 route_not_found", id="an API without workers"),
    ],
)
def test_a_registration_that_is_refused_is_told(kit: Kit, api: Api, reply: tuple[int, str], told: str) -> None:
    api.instead["register"] = [problem(*reply, "because")]
    feeder = kit.feed(wait=False)
    assert feeder.wait_for_answer(30) == ("refused", f"{told}: because")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://x", "must be like"),
        ("http://u:secret@x", "no user"),
        ("http://x?y", "no query"),
        ("http://[x", "cannot"),
        ("", "must be like"),
    ],
)
def test_an_url_that_cannot_be_used_is_refused_without_repeating_it(kit: Kit, url: str, told: str) -> None:
    feeder = kit.feed(wait=False)
    feeder.wait_for_answer(30)
    kit.kill_feeder()
    kit.url = url
    feeder = kit.feed(wait=False)
    state, detail = feeder.wait_for_answer(30)
    assert state == "refused"
    assert told in detail
    assert "secret" not in detail


def test_sigterm_to_the_agent_requeues_what_runs_and_another_one_takes_over(kit: Kit, api: Api) -> None:
    kit.feed()
    message = kit.begin("exec sleep 100")
    os.kill(kit.agent, signal.SIGTERM)
    assert message.wait() == "acked"
    assert api.ended(message.attempt_id).state == "drained"
    assert kit.run(argv=["true"]).state == "success"
    assert api.worker["boot_id"] != api.row(message.attempt_id).boot_id
