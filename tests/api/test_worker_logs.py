"""Logs that arrive over HTTP: whole, in order, each byte once, readable while they come and after the end."""

from __future__ import annotations

import asyncio
import base64
import os
import random
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from api.logwriter import LONGEST, MAX_PIECE, LogWriter
from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from tests.api.remote import record_of, running, secret, tail
from tests.api.service import until
from worker import logs

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

    from tests.api.service import Api


def kept(api: Api, attempt_id: str) -> bytes:
    path = logs.path(api.log_dir, attempt_id)
    return path.read_bytes() if path.exists() else b""


def gap(answer: httpx.Response) -> int:
    assert (answer.status_code, answer.json()["code"]) == (409, "log_gap"), answer.text
    found: int = answer.json()["next_offset"]
    return found


async def test_pieces_become_one_log_whatever_comes_twice_or_late(both: Api) -> None:
    worker, attempt_id = await running(both)
    assert gap(await worker.log(attempt_id, 3, b"lo")) == 0
    assert (await worker.log(attempt_id, 0, b"hel")).json() == {"next_offset": 3}
    assert (await worker.log(attempt_id, 0, b"hel")).json() == {"next_offset": 3}
    assert (await worker.log(attempt_id, 1, b"el")).json() == {"next_offset": 3}
    assert (await worker.log(attempt_id, 0, b"hello")).json() == {"next_offset": 5}
    assert gap(await worker.log(attempt_id, 6, b"!")) == 5
    assert (await worker.log(attempt_id, 5, b"")).json() == {"next_offset": 5}
    assert kept(both, attempt_id) == b"hello"
    assert logs.path(both.log_dir, attempt_id).stat().st_mode & 0o777 == 0o600


async def test_what_is_there_is_never_changed(api: Api) -> None:
    worker, attempt_id = await running(api)
    await worker.log(attempt_id, 0, b"first")
    assert (await worker.log(attempt_id, 0, b"SECOND")).json() == {"next_offset": 6}
    assert kept(api, attempt_id) == b"firstD"


async def test_writers_at_once_do_no_harm(api: Api) -> None:
    worker, attempt_id = await running(api)
    whole = random.Random(1).randbytes(60_000)  # noqa: S311  # repeatable is the point
    pieces = [(at, whole[at : at + 7_000]) for at in range(0, len(whole), 3_000)] * 3

    async def send(at: int, piece: bytes) -> None:
        await until(lambda: worker.log(attempt_id, at, piece), lambda answer: answer.status_code == 200)

    await asyncio.gather(*(send(at, piece) for at, piece in pieces))
    assert kept(api, attempt_id) == whole


async def test_an_end_brings_the_tail_of_its_log(both: Api) -> None:
    worker, attempt_id = await running(both)
    await worker.log(attempt_id, 0, b"one\n")
    told = await worker.finish(attempt_id, log=tail(b"ne\ntwo\n", 1), log_size=8)
    assert told.json() == {"accepted": True, "next_offset": 8}
    assert kept(both, attempt_id) == b"one\ntwo\n"
    async with await both.caller("logs") as reader:
        record = await record_of(both, attempt_id)
        from metastore.queries import runs  # noqa: PLC0415  # the one test that reads it as users do

        run = await both.store.read(runs.by_id, record.run)
        assert run is not None
        path = f"/api/v1/dags/{run.dag_id}/runs/{run.run_id}/tasks/roll/logs"
        assert (await reader.get(path)).text == "one\ntwo\n"


async def test_an_end_is_not_held_up_by_its_log(api: Api) -> None:
    worker, attempt_id = await running(api)
    told = await worker.finish(attempt_id, log=tail(b"late", 4), log_size=8)
    assert told.json() == {"accepted": True, "next_offset": 0}
    assert (await worker.log(attempt_id, 0, b"all late")).json() == {"next_offset": 8}


@pytest.mark.parametrize("ended", [Ended.LOST, Ended.SUCCESS])
async def test_a_log_may_come_for_a_day_after_the_end_whatever_became_of_the_attempt(api: Api, ended: Ended) -> None:
    worker, attempt_id = await running(api)
    if ended is Ended.LOST:
        end = End(attempt_id=attempt_id, ended=ended, cause="worker_lost")
        await api.store.write(end_attempt, end, actor="scheduler")
    else:
        await worker.finish(attempt_id)
    api.start()  # another process, or this one a day later
    api.clock.move(timedelta(hours=23))
    assert (await worker.log(attempt_id, 0, b"late")).status_code == 200
    api.clock.move(timedelta(hours=2))
    answer = await worker.log(attempt_id, 4, b"too late")
    assert (answer.status_code, answer.json()["code"]) == (410, "attempt_gone")
    assert kept(api, attempt_id) == b"late"


async def test_only_its_own_key_opens_a_log(both: Api) -> None:
    worker, attempt_id = await running(both)
    worker.keys[attempt_id] = secret()
    assert (await worker.log(attempt_id, 0, b"x")).status_code == 401
    other = "019aaf0a-5b7b-7c7e-8a44-0d3f5e2b9c11"
    worker.keys[other] = secret()
    assert (await worker.log(other, 0, b"x")).status_code == 404
    assert list(both.log_dir.rglob("*.log")) == []


@pytest.mark.parametrize("offset", ["-1", "x", str(2**53 + 1), "1.5", "", "nan"])
async def test_an_offset_is_a_number(api: Api, offset: str) -> None:
    worker, attempt_id = await running(api)
    path = f"/attempts/{attempt_id}/logs?offset={offset}"
    assert (await worker.call("PUT", path, worker.keys[attempt_id], raw=b"x")).status_code == 422
    assert (await worker.call("PUT", path[: path.index("?")], worker.keys[attempt_id], raw=b"x")).status_code == 422


async def test_a_piece_and_a_log_have_their_bounds(api: Api) -> None:
    worker, attempt_id = await running(api)
    assert (await worker.log(attempt_id, 0, b"x" * MAX_PIECE)).status_code == 200
    answer = await worker.log(attempt_id, MAX_PIECE, b"x" * (MAX_PIECE + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    path = logs.path(api.log_dir, attempt_id)
    os.truncate(path, LONGEST - 1)  # a hole: nobody has to send 64 MiB
    assert (await worker.log(attempt_id, LONGEST - 1, b"x")).json() == {"next_offset": LONGEST}
    answer = await worker.log(attempt_id, LONGEST, b"x")
    assert (answer.status_code, answer.json()["code"]) == (413, "log_too_long")
    assert LONGEST > logs.CAP + 100  # the line about what was dropped fits


async def test_a_store_that_takes_nothing_asks_to_come_again_and_ends_are_accepted_all_the_same(api: Api) -> None:
    worker, attempt_id = await running(api)
    away = api.log_dir.rename(api.log_dir.with_name("unmounted"))
    answer = await worker.log(attempt_id, 0, b"x")
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "log_store_away", True)
    assert int(answer.headers["retry-after"]) > 0
    assert str(api.log_dir) not in answer.text
    assert (await worker.finish(attempt_id, log=tail(b"x"), log_size=1)).json() == {"accepted": True, "next_offset": 0}
    away.rename(api.log_dir)
    assert (await worker.log(attempt_id, 0, b"x")).json() == {"next_offset": 1}


class Full(LogWriter):
    """A log store on the one device that is always full."""

    def _open(self, attempt_id: str) -> int:
        assert attempt_id
        return os.open("/dev/full", os.O_WRONLY)


async def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    full = Full(tmp_path)
    written = await full.write("019aaf0a-5b7b-7c7e-8a44-0d3f5e2b9c11", 0, b"x")
    full.close()
    assert written.refused is not None
    assert written.refused.status_code == 503
    assert "No space left" in written.refused.detail


async def test_links_are_not_followed(api: Api, tmp_path: Path) -> None:
    worker, attempt_id = await running(api)
    secret_file = tmp_path / "secret"
    secret_file.write_text("secret")
    path = logs.path(api.log_dir, attempt_id)
    path.parent.mkdir()
    path.symlink_to(secret_file)
    assert (await worker.log(attempt_id, 0, b"x" * 10)).status_code == 503
    path.unlink()
    path.parent.rmdir()
    path.parent.symlink_to(tmp_path)
    assert (await worker.log(attempt_id, 0, b"x" * 10)).status_code == 503
    assert secret_file.read_text() == "secret"
    assert not (tmp_path / path.name).exists()


async def test_a_log_is_bytes_of_any_kind(api: Api) -> None:
    worker, attempt_id = await running(api)
    raw = bytes(range(256)) * 10 + b"\0\xff\xfe"
    await worker.log(attempt_id, 0, raw)
    assert kept(api, attempt_id) == raw
    answer = await worker.call(
        "PUT", f"/attempts/{attempt_id}/logs?offset=0", worker.keys[attempt_id], json={"log": "text"}
    )
    assert answer.status_code == 415


LOGS = "/api/v1/dags/dice/runs/r/tasks/roll/logs?follow=true"


async def test_a_followed_log_goes_on_until_its_last_bytes_have_come(both: Api) -> None:
    worker, attempt_id = await running(both, run_id="r")
    async with both.stream(LOGS, await both.key("logs")) as stream:
        assert await stream.status() == 200
        await worker.log(attempt_id, 0, b"one\n")
        assert await stream.piece() == b"one\n"
        await worker.finish(attempt_id, log_size=9)
        await worker.log(attempt_id, 4, b"two\n")
        assert await stream.piece() == b"two\n"
        await worker.log(attempt_id, 8, b"!")
        assert await stream.rest() == b"!"


async def test_the_last_bytes_are_not_waited_for_for_ever(api: Api) -> None:
    worker, attempt_id = await running(api, run_id="r")
    await worker.log(attempt_id, 0, b"one\n")
    await worker.finish(attempt_id, log_size=9)
    key = await api.key("logs")
    async with api.stream(LOGS, key) as stream:
        assert await stream.piece() == b"one\n"
        api.clock.move(timedelta(seconds=16))
        assert await stream.rest() == b""
    api.clock.move(timedelta(hours=1))
    async with api.stream(LOGS, key) as stream:
        assert await stream.rest() == b"one\n"


async def test_a_log_of_which_nothing_has_come_yet_is_waited_for_as_well(api: Api) -> None:
    worker, attempt_id = await running(api, run_id="r")
    await worker.finish(attempt_id, log_size=4)
    async with api.stream(LOGS, await api.key("logs")) as stream:
        assert await stream.status() == 200
        await worker.log(attempt_id, 0, b"one\n")
        assert await stream.rest() == b"one\n"
    async with await api.caller("logs") as reader:
        assert (await reader.get(LOGS)).text == "one\n"


def test_a_tail_of_64_kib_fits() -> None:
    from api.schemas.worker_attempts import MAX_TAIL, LogTail  # noqa: PLC0415  # the one test of its bound

    data = base64.b64encode(b"x" * MAX_TAIL).decode()
    assert LogTail(offset=0, data=data).data == data
