"""The worker protocol: several starts and ends in one request, each judged as if it came by itself."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from api.logwriter import LogWriter, Written
from api.routers import worker_moves
from api.schemas.worker_attempts import MAX_MOVES, MOST_MOVES
from tests.api.remote import TASK, Worker, a_worker, admit, offer, record_of, secret, tail, ticket_of
from tests.api.service import pointers
from tests.api.test_worker_attempts import TWO
from tests.api.test_worker_protocol import cancel

if TYPE_CHECKING:
    import httpx
    import pytest
    from starlette.responses import Response

    from api.dependencies import Services
    from api.schemas.worker_attempts import AttemptStart
    from tests.api.service import Api

NOBODY = "019aaf0a-5b7b-7c7e-8a44-0d3f5e2b9c11"


async def a_start(worker: Worker, attempt_id: str, **more: Any) -> dict[str, Any]:
    key = worker.keys.setdefault(attempt_id, secret())
    own = {"protocol": 1, "boot_id": worker.boot_id, "key": key, "worker_id": worker.worker_id}
    return {"attempt_id": attempt_id, "ticket": await ticket_of(worker.api, attempt_id)} | own | more


def an_end(worker: Worker, attempt_id: str, **more: Any) -> dict[str, Any]:
    return {"attempt_id": attempt_id, "key": worker.keys[attempt_id]} | worker.end() | more


async def move(worker: Worker, **lists: Any) -> httpx.Response:
    return await worker.call("POST", "/attempts", worker.key.text, json=lists)


def statuses(answer: httpx.Response) -> tuple[list[int], list[int]]:
    assert answer.status_code == 200, answer.text
    told = answer.json()
    return [one["status"] for one in told["starts"]], [one["status"] for one in told["finishes"]]


async def test_each_has_the_answer_that_it_would_have_by_itself(both: Api) -> None:
    worker = await a_worker(both)
    first = await offer(both, TWO, run_id="r")
    other = await offer(both, {"roll": TASK}, dag_id="b")
    await worker.start(first)
    answer = await move(
        worker,
        starts=[await a_start(worker, other)],
        finishes=[an_end(worker, first, output="7", log_size=3, log=tail(b"abc"))],
    )
    assert statuses(answer) == ([200], [200])
    told = answer.json()
    alone = (await worker.start(other)).json()
    started = told["starts"][0]["answer"]
    assert (started["task"], started["stop"], started.keys()) == (alone["task"], None, alone.keys())
    assert told["finishes"] == [{"status": 200, "answer": {"accepted": True, "next_offset": 3}, "retry_after": None}]
    assert (await record_of(both, first)).state == "success"
    assert (await record_of(both, other)).state == "running"
    assert await admit(both, "report")


async def test_what_is_wrong_with_one_is_its_own(both: Api) -> None:
    worker = await a_worker(both)
    good, over, forged, ended = [await offer(both, dag_id=name) for name in ("a", "b", "c", "d")]
    await cancel(both, over)
    await worker.start(ended)
    starts = [
        await a_start(worker, over),
        await a_start(worker, good),
        await a_start(worker, forged, ticket="rt1." + "A" * 43),
        await a_start(worker, forged, ticket="Bearer \n"),
        await a_start(worker, NOBODY),
        await a_start(worker, good) | {"attempt_id": "../keys"},
        await a_start(worker, forged, protocol=2),
        await a_start(worker, forged, worker_id="f" * 32),
    ]
    finishes = [
        an_end(worker, ended, output="NaN"),
        an_end(worker, ended, key=secret()),
        an_end(worker, ended) | {"attempt_id": NOBODY},
        an_end(worker, ended) | {"attempt_id": "\0"},
        an_end(worker, ended),
    ]
    answer = await move(worker, starts=starts, finishes=finishes)
    assert statuses(answer) == ([410, 200, 401, 401, 404, 401, 409, 404], [422, 401, 404, 404, 200])
    told = answer.json()
    assert [one["answer"].get("code") for one in told["starts"]] == [
        "attempt_gone", None, "bad_credential", "bad_credential", "not_found", "bad_credential", "worker_protocol",
        "worker_unknown",
    ]  # fmt: skip
    assert [problem["pointer"] for problem in told["finishes"][0]["answer"]["errors"]] == ["/output"]
    for one in [*starts, *finishes]:
        assert one["key"] not in answer.text
    assert ((await record_of(both, good)).state, (await record_of(both, forged)).state) == ("running", "queued")
    assert (await record_of(both, ended)).state == "success"


async def test_a_log_store_that_hangs_holds_up_nothing_for_long(both: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await a_worker(both)
    ended, other = await offer(both, dag_id="a"), await offer(both, dag_id="b")
    await worker.start(ended)
    over = threading.Event()

    def hang(_: LogWriter, *_args: object) -> Written:
        over.wait(20)
        return Written(0)

    monkeypatch.setattr(LogWriter, "_write", hang)
    began = time.monotonic()
    end = an_end(worker, ended, log=tail(b"abc"), log_size=3)
    answer = await move(worker, starts=[await a_start(worker, other)], finishes=[end])
    took = time.monotonic() - began
    over.set()
    assert statuses(answer) == ([200], [200])
    assert answer.json()["finishes"][0]["answer"] == {"accepted": True, "next_offset": 0}
    assert took < 5


async def test_an_error_of_ours_is_that_of_one(
    both: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = await a_worker(both)
    ids = [await offer(both, dag_id=name) for name in "ab"]
    starts = [await a_start(worker, attempt_id) for attempt_id in ids]
    real = vars(worker_moves)["start_attempt"]

    async def breaks(service: Services, attempt_id: str, body: AttemptStart) -> Response:
        if attempt_id == ids[0]:
            raise RuntimeError("a mistake of ours")
        response: Response = await real(service, attempt_id, body)
        return response

    monkeypatch.setattr(worker_moves, "start_attempt", breaks)
    answer = await move(worker, starts=starts)
    assert statuses(answer) == ([500, 200], [])
    assert answer.json()["starts"][0]["answer"]["code"] == "internal_error"
    assert "mistake" not in answer.text
    assert "a mistake of ours" in capsys.readouterr().out


async def test_it_may_come_again_and_at_the_same_time(both: Api) -> None:
    worker = await a_worker(both)
    ids = [await offer(both, dag_id=f"d{n}") for n in range(4)]
    starts = [await a_start(worker, attempt_id) for attempt_id in ids]
    for answer in await asyncio.gather(*(move(worker, starts=starts, finishes=[]) for _ in range(3))):
        assert statuses(answer) == ([200] * 4, [])
    finishes = [an_end(worker, attempt_id) for attempt_id in ids]
    for answer in await asyncio.gather(*(move(worker, starts=[], finishes=finishes) for _ in range(3))):
        assert statuses(answer) == ([], [200] * 4)
        assert all(one["answer"]["accepted"] for one in answer.json()["finishes"])


async def test_one_attempt_may_be_started_and_ended_in_one(both: Api) -> None:
    worker = await a_worker(both)
    attempt_id = await offer(both)
    start = await a_start(worker, attempt_id)
    answer = await move(worker, starts=[start, start], finishes=[an_end(worker, attempt_id)])
    begun, ended = statuses(answer)
    assert begun == [200, 200]
    # Which of the two comes first is not promised; an end that comes before its start is asked for again.
    if ended != [200] or not answer.json()["finishes"][0]["answer"]["accepted"]:
        assert statuses(await move(worker, finishes=[an_end(worker, attempt_id)])) == ([], [200])
    assert (await record_of(both, attempt_id)).state == "success"


async def test_a_request_that_does_not_fit_moves_nothing(both: Api) -> None:
    worker = await a_worker(both)
    attempt_id = await offer(both)
    good = await a_start(worker, attempt_id)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"starts": [good, good | {"more": 1}]}, "/starts/1/more"),
        ({"starts": [good], "finishes": [{}]}, "/finishes/0/attempt_id"),
        ({"starts": [good] * (MOST_MOVES + 1)}, "/starts"),
        ({"starts": [good], "beats": []}, "/beats"),
        ({"starts": [good | {"ticket": 7}]}, "/starts/0/ticket"),
        ({"starts": [good | {"attempt_id": "x" * 2000}]}, "/starts/0/attempt_id"),
    ]
    for lists, place in cases:
        answer = await move(worker, **lists)
        assert answer.status_code == 422, (place, answer.text)
        assert place in [pointer for pointer, _ in pointers(answer)]
    long = await worker.call("POST", "/attempts", worker.key.text, json={"starts": [good], "x": "y" * MAX_MOVES})
    assert long.status_code == 413
    assert (await record_of(both, attempt_id)).state == "queued"
    assert statuses(await move(worker)) == ([], [])


async def test_it_needs_a_key_for_work_and_the_credential_of_each(both: Api) -> None:
    worker = await a_worker(both)
    attempt_id = await offer(both)
    start = await a_start(worker, attempt_id)
    for credential, status in [
        ((await both.key("read", "trigger", "define", "logs")).text, 403),
        (worker.token, 401),
        (start["ticket"], 401),
        (start["key"], 401),
    ]:
        answer = await worker.call("POST", "/attempts", credential, json={"starts": [start]})
        assert answer.status_code == status
    stranger = Worker(both, await both.key("work"), keys={attempt_id: secret()})
    answer = await move(stranger, starts=[await a_start(stranger, attempt_id)])
    assert statuses(answer) == ([404], [])
    assert (await record_of(both, attempt_id)).state == "queued"
