"""Logs of remote attempts: whole, in order, once, whatever their size and whatever becomes of a piece."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.worker.remote_api import HTML, problem
from worker.logs import CAP

if TYPE_CHECKING:
    from tests.unit.worker.remote_api import Api
    from tests.unit.worker.remote_kit import Kit

#: A line with its number, a million times: 8 MB in which nothing is twice.
COUNT = "i=0; seq -f %07.0f 1 1000000"
DIGEST = hashlib.sha256(b"".join(b"%07d\n" % number for number in range(1, 1_000_001))).hexdigest()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 300_000])
def test_a_log_of_any_size_is_whole(kit: Kit, api: Api, size: int) -> None:
    kit.feed()
    row = kit.line(f"head -c {size} /dev/zero")
    assert api.whole(row.attempt_id) == bytes(size)
    assert (api.calls["log"] == 0) == (size <= 65_536)
    api.until(lambda: not kit.left(), "nothing is left in the spool")


def test_a_long_log_is_ahead_of_its_finish(kit: Kit) -> None:
    kit.feed()
    row = kit.line(COUNT)
    assert digest(bytes(row.log)) == DIGEST


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("lost", id="answers are lost"),
        pytest.param("gap", id="the store lost the end"),
        pytest.param("short", id="pieces are cut"),
        pytest.param("html", id="a proxy answers"),
        pytest.param("busy", id="the store is away"),
    ],
)
def test_a_log_survives_trouble_with_its_pieces(kit: Kit, api: Api, trouble: str) -> None:
    kit.feed()
    attempt_id = kit.shell(f"sleep 1; {COUNT}; echo up >> $JOURNAL; sleep 1.5; echo end")
    row = api.row(attempt_id)
    if trouble == "lost":
        api.lose["log"] = 3
    elif trouble == "short":
        api.takes = 700_001
    elif trouble == "html":
        api.instead["log"] = [HTML, HTML]
    elif trouble == "busy":
        api.instead["log"] = [problem(503, "log_store_away")] * 2
    message = kit.send(attempt_id)
    if trouble == "gap":
        api.until(lambda: len(row.log) > 2_000_000, "some of it is there")
        with api.lock:
            del row.log[1_500_000:]
    assert message.wait() == "acked"
    assert digest(api.whole(attempt_id)[:-4]) == DIGEST
    assert bytes(row.log[-4:]) == b"end\n"


@pytest.mark.parametrize("answer", [problem(401, "bad_credential"), problem(413, "log_too_long")], ids=["401", "413"])
def test_a_log_that_is_refused_for_good_is_given_up_and_its_end_is_not(kit: Kit, api: Api, answer: object) -> None:
    kit.feed()
    api.instead["log"] = [answer] * 50  # type: ignore[list-item]  # it is one
    row = kit.line(f"{COUNT}; sleep 1; echo 7 > $RUNYARD_OUTPUT")
    assert row.finish["output"] == "7\n"
    assert "is given up" in kit.said()
    api.until(lambda: not kit.left(), "nothing is left in the spool")


def test_a_log_whose_file_is_taken_away_holds_up_nothing(kit: Kit, api: Api) -> None:
    kit.feed()
    api.delay["log"] = 0.5
    message = kit.begin(f"{COUNT}; sleep 2")
    api.until(lambda: api.calls["log"], "it is sent")
    (kit.home / "agent" / "attempts" / f"{message.attempt_id}.log").unlink()
    assert message.wait(60) == "acked"
    assert api.ended(message.attempt_id).state == "success"


def test_200_megabytes_are_capped_and_cost_no_memory(kit: Kit, api: Api) -> None:
    kit.feed()
    kit.line("true")
    before = peak(kit.agent)
    row = kit.line("head -c 200000000 /dev/zero; echo end", timeout=90)
    log = api.whole(row.attempt_id, 90)
    assert log[:CAP] == bytes(CAP)
    assert b"[runyard] 132,891,140 bytes of output were dropped: a log holds at most 67,108,864 bytes\n" in log[CAP:]
    assert row.finish["log_dropped"] == 132_891_140
    assert peak(kit.agent) - before < 24 * 1024 * 1024
    assert kit.line("true").state == "success"


def test_many_logs_at_once_do_not_mix_and_do_not_hold_up_starts(kit: Kit, api: Api) -> None:
    kit.slots = 6
    kit.feed()
    api.delay["log"] = 0.2
    lines = [f"for i in 1 2 3; do head -c 500000 /dev/zero | tr '\\0' {mark}; sleep 0.6; done" for mark in "abcde"]
    messages = [kit.send(kit.shell(line)) for line in lines]
    for _ in range(5):
        assert kit.line("true").state == "success"
    for message, mark in zip(messages, b"abcde", strict=True):
        message.wait(60)
        assert set(api.whole(message.attempt_id)) == {mark}
        assert len(api.row(message.attempt_id).log) == 1_500_000


def peak(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no peak in /proc")
