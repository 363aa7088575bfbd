"""Logs: raw bytes as text, followed while they grow, never another file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from api.logtext import CHUNK, LogFile
from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from tests.api.service import take
from worker import logs

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api.service import Api

LOGS = "/api/v1/dags/dice/runs/r/tasks/roll/logs"


async def running(api: Api) -> str:
    """Return the id of an attempt of ``roll`` that runs."""
    await api.put("dice", {"tasks": {"roll": {"command": ["true"], "retries": 3, "retry_delay": "PT0S"}}})
    await api.flow.slots()
    (one,) = await api.flow.begin(await api.flow.create(dag_id="dice", run_id="r"))
    await api.flow.start(one.attempt_id)
    return str(one.attempt_id)


def write(api: Api, attempt_id: str, raw: bytes) -> Path:
    path = logs.path(api.log_dir, attempt_id)
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(raw)
    return path


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", ""),
        (b"plain\n", "plain\n"),
        ("grüße 💥\n".encode(), "grüße 💥\n"),
        (b"a\0b", r"a\x00b"),
        (b"\xff\xfe", r"\xff\xfe"),
        (b"cut \xf0\x9f\x92", r"cut \xf0\x9f\x92"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
        (b"\x1b[31mred\r\n", "\x1b[31mred\r\n"),
        ("é".encode("latin-1") + "é".encode(), r"\xe9é"),
    ],
)
async def test_bytes_become_text_that_hides_nothing(api: Api, raw: bytes, text: str) -> None:
    write(api, await running(api), raw)
    async with await api.caller("logs") as reader:
        answer = await reader.get(LOGS)
    assert answer.content == text.encode()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["runyard-try-number"] == "1"


async def test_a_character_on_the_border_of_two_pieces_stays_whole(tmp_path: Path) -> None:
    attempt_id = "019aaf0a-5b7b-7c7e-8a44-0d3f5e2b9c11"
    whole = "x" * (CHUNK - 2) + "💥" + "é" * CHUNK
    path = logs.path(tmp_path, attempt_id)
    path.parent.mkdir()
    path.write_bytes(whole.encode())
    file = LogFile(tmp_path, attempt_id)
    found = b""
    while piece := await file.read():
        found += piece
    found += file.rest()
    file.close()
    assert found.decode() == whole


async def end_with_a_log(api: Api, attempt_id: str, size: int) -> None:
    end = End(attempt_id=attempt_id, ended=Ended.SUCCESS, boot_id=api.flow.boot, log_size=size)
    await api.store.write(end_attempt, end, [api.flow.outlet])


@pytest.mark.parametrize("query", ["", "?follow=true", "?tail=1", "?offset=3"])
async def test_a_log_that_was_written_elsewhere_is_missed_and_not_empty(api: Api, query: str) -> None:
    attempt_id = await running(api)
    await end_with_a_log(api, attempt_id, 7)
    async with await api.caller("logs") as reader:
        answer = await reader.get(LOGS + query)
        assert (answer.status_code, answer.json()["code"]) == (404, "log_not_here")
        assert "7 bytes" in answer.json()["detail"]
        assert "RUNYARD_LOG_STORE" in answer.json()["hint"]
        write(api, attempt_id, b"a word\n")
        assert (await reader.get(LOGS)).text == "a word\n"


async def test_an_attempt_that_wrote_nothing_has_an_empty_log(api: Api) -> None:
    await end_with_a_log(api, await running(api), 0)
    async with await api.caller("logs") as reader:
        answer = await reader.get(LOGS)
        assert (answer.status_code, answer.text) == (200, "")


async def test_a_followed_log_that_is_written_elsewhere_says_so_at_the_end(api: Api) -> None:
    attempt_id = await running(api)
    async with api.stream(f"{LOGS}?follow=true", await api.key("logs")) as stream:
        assert await stream.status() == 200
        await end_with_a_log(api, attempt_id, 7)
        text = (await stream.rest()).decode()
    assert text.startswith("[runyard] ")
    assert "7 bytes" in text
    assert "RUNYARD_LOG_STORE" in text


async def test_a_followed_log_grows_and_ends_with_its_attempt(both: Api) -> None:
    attempt_id = await running(both)
    key = await both.key("logs")
    async with both.stream(f"{LOGS}?follow=true", key) as stream:
        assert await stream.status() == 200
        write(both, attempt_id, b"one\n")
        assert await stream.piece() == b"one\n"
        write(both, attempt_id, b"t\xc3")
        assert await stream.piece() == b"t"
        write(both, attempt_id, b"\xa9\n")
        assert await stream.piece() == "é\n".encode()
        write(both, attempt_id, b"end\xf0")
        await both.flow.end(attempt_id)
        assert await stream.rest() == b"end\\xf0"


async def test_a_followed_log_comes_as_events_when_asked(api: Api) -> None:
    attempt_id = await running(api)
    write(api, attempt_id, b"one\ntwo\n")
    key = await api.key("logs")
    async with api.stream(f"{LOGS}?follow=true", key, {"accept": "text/event-stream"}) as stream:
        events = stream.events()
        (piece,) = await take(events, 1)
        assert (piece["event"], json.loads(piece["data"])) == ("log", {"text": "one\ntwo\n"})
        await api.flow.end(attempt_id, Ended.FAILED)
        (end,) = [event async for event in events]
        assert (end["event"], json.loads(end["data"])) == ("end", {"state": "failed"})


async def test_each_attempt_has_its_own_log_and_the_last_is_shown(both: Api) -> None:
    first = await running(both)
    write(both, first, b"first\n")
    await both.flow.end(first, Ended.FAILED)
    await both.flow.advance(await both.flow.create(dag_id="dice", run_id="other"))
    async with await both.caller("logs") as reader:
        assert (await reader.get(LOGS)).text == "first\n"
        assert (await reader.get(f"{LOGS}?try=1")).text == "first\n"
        answer = await reader.get(f"{LOGS}?try=2")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_attempt")


async def test_a_task_without_an_attempt_has_no_log_and_says_so(api: Api) -> None:
    await api.put("dice")
    await api.flow.slots()
    await api.flow.begin(await api.flow.create(dag_id="dice", run_id="r"))
    async with await api.caller("logs") as reader:
        answer = await reader.get("/api/v1/dags/dice/runs/r/tasks/report/logs")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_attempt")
        for query in ("try=0", "try=x", "try=99999999999", "offset=-1", "tail=-1", "tail=10001", "follow=perhaps"):
            assert (await reader.get(f"{LOGS}?{query}")).status_code == 422, query


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("tail=2", "three\nfour\n"),
        ("tail=0", ""),
        ("tail=99", "one\ntwo\nthree\nfour\n"),
        ("offset=4", "two\nthree\nfour\n"),
        ("offset=999", ""),
    ],
)
async def test_a_part_of_a_log_can_be_asked_for(api: Api, query: str, text: str) -> None:
    write(api, await running(api), b"one\ntwo\nthree\nfour\n")
    async with await api.caller("logs") as reader:
        assert (await reader.get(f"{LOGS}?{query}")).text == text


async def test_links_are_not_followed(api: Api, tmp_path: Path) -> None:
    attempt_id = await running(api)
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = logs.path(api.log_dir, attempt_id)
    path.parent.mkdir()
    path.symlink_to(secret)
    async with await api.caller("logs") as reader:
        answer = await reader.get(LOGS)
        assert "secret" not in answer.text
        path.unlink()
        path.parent.rmdir()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / path.name).write_text("secret")
        path.parent.symlink_to(elsewhere)
        assert "secret" not in (await reader.get(LOGS)).text


@pytest.mark.parametrize("bad", ["../../etc/passwd", "", "019aaf0a", "x" * 36, "019AAF0A-5B7B-7C7E-8A44-0D3F5E2B9C11"])
def test_a_path_is_made_from_an_attempt_id_only(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ValueError, match="not an attempt id"):
        LogFile(tmp_path, bad)
