"""The worker protocol: one attempt, started once, ended once, with what comes in between."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dag.outcomes import Ended
from metastore.commands.attempts import End, end_attempt
from metastore.queries import tasks
from tests.api.remote import TASK, Worker, a_worker, admit, hex_id, offer, record_of, running, secret, ticket_of
from tests.api.service import pointers, until
from tests.api.test_worker_protocol import cancel
from worker.protocol import MAX_DEPTH, MAX_OUTPUT

if TYPE_CHECKING:
    from tests.api.service import Api

TWO = {"roll": TASK, "report": TASK | {"depends_on": ["roll"]}, "other": TASK}


async def output_of(api: Api, attempt_id: str) -> Any:
    text = await api.store.read(tasks.output, (await record_of(api, attempt_id)).instance)
    return None if text is None else json.loads(text)


class TestStart:
    async def test_the_ticket_starts_it_once_and_says_what_to_run(self, both: Api) -> None:
        worker = await a_worker(both)
        attempt_id = await offer(both, {"roll": TASK | {"command": ["echo", "a"], "env": {"X": "1"}}}, run_id="r")
        answer = await worker.start(attempt_id)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        task = told["task"]
        assert (task["dag_id"], task["run_id"], task["task_id"], task["try_number"]) == ("dice", "r", "roll", 1)
        assert (task["kind"], task["argv"], task["env"]) == ("command", ["echo", "a"], {"X": "1"})
        assert told["stop"] is None
        record = await record_of(both, attempt_id)
        assert (record.state, record.placed_on) == ("running", worker.worker_id)

    async def test_the_same_supervisor_is_answered_again_and_another_is_not(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        again = await worker.start(attempt_id)
        assert (again.status_code, again.json()["task"]["task_id"]) == (200, "roll")
        other = await a_worker(both)
        answer = await other.start(attempt_id)
        assert (answer.status_code, answer.json()["code"]) == (409, "attempt_conflict")
        worker.keys[attempt_id] = secret()
        assert (await worker.start(attempt_id)).status_code == 401

    async def test_of_many_at_once_one_gets_it(self, both: Api) -> None:
        found = [await a_worker(both) for _ in range(6)]
        attempt_id = await offer(both)
        answers = await asyncio.gather(*(worker.start(attempt_id) for worker in found))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]

    @pytest.mark.parametrize("change", ["another", "altered", "none", "truncated", "longer"])
    async def test_a_ticket_that_is_not_its_own_opens_nothing(self, both: Api, change: str) -> None:
        worker = await a_worker(both)
        attempt_id, other = await offer(both, dag_id="a"), await offer(both, dag_id="b")
        good = await ticket_of(both, attempt_id)
        ticket = {
            "another": await ticket_of(both, other),
            "altered": good[:10] + ("A" if good[10] != "A" else "B") + good[11:],
            "none": "rt1." + "A" * 43,
            "truncated": good[:-1],
            "longer": good + "A",
        }[change]
        body = {"protocol": 1, "boot_id": worker.boot_id, "key": secret(), "worker_id": worker.worker_id}
        answer = await worker.call("POST", f"/attempts/{attempt_id}/start", ticket, json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_credential")
        assert ticket not in answer.text
        assert (await record_of(both, attempt_id)).state == "queued"

    async def test_who_may_not_have_it_is_told_why(self, both: Api) -> None:
        worker = await a_worker(both)
        attempt_id = await offer(both)
        stranger = Worker(both, worker.key)
        answer = await stranger.start(attempt_id)
        assert (answer.status_code, answer.json()["code"]) == (404, "worker_unknown")
        answer = await worker.start(attempt_id, boot_id=hex_id())
        assert (answer.status_code, answer.json()["code"]) == (410, "worker_superseded")
        other = await a_worker(both, queues=["gpu"])
        answer = await other.start(attempt_id)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "default" in answer.json()["detail"]
        assert (await worker.start(attempt_id)).status_code == 200

    async def test_what_is_over_is_gone(self, both: Api) -> None:
        worker = await a_worker(both)
        attempt_id = await offer(both)
        await cancel(both, attempt_id)
        answer = await worker.start(attempt_id)
        assert (answer.status_code, answer.json()["code"]) == (410, "attempt_gone")
        nobody = "019aaf0a-5b7b-7c7e-8a44-0d3f5e2b9c11"
        answer = await worker.start(nobody)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    async def test_what_cannot_run_is_refused_for_good(self, both: Api) -> None:
        worker = await a_worker(both)
        first = await offer(
            both, {"roll": TASK, "use": TASK | {"command": ["x", "${outputs.roll.total}"], "depends_on": ["roll"]}}
        )
        await worker.start(first)
        await worker.finish(first, output="7")
        second = await admit(both, "use")
        answer = await worker.start(second)
        assert (answer.status_code, answer.json()["code"]) == (410, "attempt_gone")
        assert "outputs.roll" in answer.json()["detail"]
        assert (await record_of(both, second)).state not in {"queued", "running"}

    async def test_a_cancel_that_came_before_the_answer_says_not_to_begin(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        await cancel(both, attempt_id)
        told = (await worker.start(attempt_id)).json()
        assert told["stop"] == {"reason": "user", "grace": told["task"]["kill_grace"]}

    async def test_another_protocol_is_told_apart(self, api: Api) -> None:
        worker = await a_worker(api)
        attempt_id = await offer(api)
        answer = await worker.start(attempt_id, protocol=2)
        assert (answer.status_code, answer.json()["code"]) == (409, "worker_protocol")

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"boot_id": None}, "/boot_id"),
            ({"key": "short"}, "/key"),
            ({"key": 7}, "/key"),
            ({"worker_id": "w"}, "/worker_id"),
            ({"x": 1}, "/x"),
        ],
    )
    async def test_what_a_start_says_is_checked(self, api: Api, change: dict[str, Any], place: str) -> None:
        worker = await a_worker(api)
        answer = await worker.start(await offer(api), **change)
        assert [pointer for pointer, _ in pointers(answer)] == [place]
        assert answer.status_code == 422


class TestAlone:
    """A supervisor that is registered nowhere: its one attempt has a lease of its own."""

    async def alone(self, api: Api) -> tuple[Worker, str]:
        await a_worker(api)  # without one there is no room in the queue
        worker = Worker(api, await api.key("work"))
        attempt_id = await offer(api)
        answer = await worker.start(attempt_id, worker_id=None)
        assert answer.status_code == 200, answer.text
        return worker, attempt_id

    async def test_its_heartbeats_renew_its_lease(self, both: Api) -> None:
        worker, attempt_id = await self.alone(both)
        assert (await record_of(both, attempt_id)).placed_on == f"attempt:{attempt_id}"
        told = (await worker.beat_attempt(attempt_id)).json()
        assert (told["directive"], told["reason"], told["grace"]) == ("continue", None, None)
        assert (await worker.finish(attempt_id)).json()["accepted"] is True
        answer = await worker.beat_attempt(attempt_id)
        assert (answer.status_code, answer.json()["code"]) == (410, "attempt_gone")

    async def test_it_hears_of_a_cancel_while_it_waits(self, both: Api) -> None:
        worker, attempt_id = await self.alone(both)
        waits = asyncio.create_task(worker.beat_attempt(attempt_id, 10))
        listeners = both.app.state.services.heartbeats._directives._listeners

        async def listens() -> bool:
            return f"attempt:{attempt_id}" in listeners

        await until(listens)
        began = time.monotonic()
        await cancel(both, attempt_id)
        told = (await waits).json()
        assert time.monotonic() - began < 5
        assert (told["directive"], told["reason"]) == ("cancel", "user")
        assert (await worker.beat_attempt(attempt_id, stopping="user")).json()["directive"] == "continue"
        assert (await worker.finish(attempt_id, outcome="cancelled")).json()["accepted"] is True

    async def test_another_key_or_process_is_refused(self, both: Api) -> None:
        worker, attempt_id = await self.alone(both)
        assert (await worker.beat_attempt(attempt_id, boot_id=hex_id())).status_code == 410
        worker.keys[attempt_id] = secret()
        answer = await worker.beat_attempt(attempt_id)
        assert (answer.status_code, answer.json()["code"]) == (401, "bad_credential")


class TestOutput:
    async def test_a_staged_output_is_seen_with_the_end_and_not_before(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        for value in ({"total": 1}, {"total": 7, "ä": [None, 1.5, "\0"]}):
            assert (await worker.output(attempt_id, value)).status_code == 204
        assert await output_of(both, attempt_id) is None
        await worker.finish(attempt_id)
        assert await output_of(both, attempt_id) == {"total": 7, "ä": [None, 1.5, "\0"]}
        assert (await worker.output(attempt_id, 1)).status_code == 410

    async def test_what_comes_with_the_end_wins(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        await worker.output(attempt_id, 1)
        await worker.finish(attempt_id, output="[2]")
        assert await output_of(both, attempt_id) == [2]

    async def test_a_failed_attempt_leaves_no_output(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        await worker.output(attempt_id, 1)
        await worker.finish(attempt_id, outcome="failed", exit_code=1)
        assert await output_of(both, attempt_id) is None

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"", 422),
            (b"{", 422),
            (b"NaN", 422),
            (b"1e999", 422),
            (b"\xff", 422),
            (b'"\\ud800"', 422),
            (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), 422),
            (b"[" * 500_000, 422),
            (b"9" * 500_000, 422),
            (b'"' + b"x" * (MAX_OUTPUT - 1) + b'"', 413),
            (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, 204),
            (b'"' + b"x" * (MAX_OUTPUT - 2) + b'"', 204),
        ],
    )
    async def test_an_output_is_json_that_everybody_reads_alike(self, api: Api, raw: bytes, status: int) -> None:
        worker, attempt_id = await running(api)
        headers = {"Authorization": f"Bearer {worker.keys[attempt_id]}", "Content-Type": "application/json"}
        async with api.client() as client:
            answer = await client.put(f"/worker/v1/attempts/{attempt_id}/output", content=raw, headers=headers)
        assert answer.status_code == status, answer.text[:300]
        if status == 413:
            return
        answer = await worker.finish(attempt_id, output=raw.decode("utf-8", "surrogateescape").replace("\udcff", "\\x"))
        assert answer.status_code == (200 if status == 204 else 422), answer.text[:300]


class TestInputs:
    async def test_an_upstream_output_can_be_read_and_nothing_else(self, both: Api) -> None:
        worker = await a_worker(both)
        roll = await offer(both, TWO)
        await worker.start(roll)
        assert (await worker.input(roll, "other")).status_code == 404
        await worker.finish(roll, output='{"total": 7}')
        report = await admit(both, "report")
        await worker.start(report)
        answer = await worker.input(report, "roll")
        assert (answer.status_code, answer.json()) == (200, {"total": 7})
        for task_id in ("other", "report", "nobody"):
            assert (await worker.input(report, task_id)).status_code == 404
        worker.keys[report] = worker.keys[roll]
        assert (await worker.input(report, "roll")).status_code == 401

    async def test_no_output_is_null(self, api: Api) -> None:
        worker = await a_worker(api)
        roll = await offer(api, TWO)
        await worker.start(roll)
        await worker.finish(roll)
        report = await admit(api, "report")
        await worker.start(report)
        assert (await worker.input(report, "roll")).json() is None


class TestFinish:
    async def test_the_first_end_counts_and_is_accepted_again(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        for _ in range(3):
            assert (await worker.finish(attempt_id, outcome="failed", exit_code=3)).json()["accepted"] is True
        assert (await worker.finish(attempt_id)).json()["accepted"] is False
        record = await record_of(both, attempt_id)
        assert (record.state, record.exit_code) == ("failed", 3)

    async def test_an_attempt_that_was_given_up_ends_no_more(self, both: Api) -> None:
        worker, attempt_id = await running(both)
        end = End(attempt_id=attempt_id, ended=Ended.LOST, cause="worker_lost")
        await both.store.write(end_attempt, end, actor="scheduler")
        assert (await worker.finish(attempt_id)).json() == {"accepted": False, "next_offset": None}
        assert (await record_of(both, attempt_id)).state == "lost"

    @pytest.mark.parametrize("hours", [0, 1, -1, 24 * 365])
    async def test_a_worker_whose_clock_is_wrong_tells_the_right_times(self, api: Api, hours: int) -> None:
        worker, attempt_id = await running(api)
        now = api.clock.now()
        wrong = now.timestamp() + 3600 * hours
        await worker.finish(attempt_id, started_at=wrong - 3, ended_at=wrong - 1, sent_at=wrong)
        record = await record_of(api, attempt_id)
        assert record.started_at is not None
        assert record.ended_at is not None
        assert abs((record.ended_at - now).total_seconds() + 1) < 5
        assert (record.ended_at - record.started_at) == pytest.approx(timedelta(seconds=2), abs=timedelta(seconds=0.01))

    @pytest.mark.parametrize(
        "change",
        [
            {"started_at": 0, "ended_at": 0, "sent_at": 253_402_300_000},
            {"started_at": 253_402_300_000, "ended_at": 0, "sent_at": 0},
            {"started_at": 253_402_300_000, "ended_at": 253_402_300_000, "sent_at": 0},
            {"error": "a\0b\x1b[31m\ud83d\ude00" + "x" * 60_000, "outcome": "failed"},
            {"log_size": 2**53, "log_dropped": 2**53},
            {"exit_code": -(2**31), "signal": 255, "outcome": "failed"},
        ],
    )
    async def test_odd_ends_are_taken(self, both: Api, change: dict[str, Any]) -> None:
        worker, attempt_id = await running(both)
        raw = json.dumps(worker.end(**change)).encode()
        headers = {"Authorization": f"Bearer {worker.keys[attempt_id]}", "Content-Type": "application/json"}
        async with both.client() as client:
            answer = await client.post(f"/worker/v1/attempts/{attempt_id}/finish", content=raw, headers=headers)
        assert (answer.status_code, answer.json().get("accepted")) == (200, True), answer.text
        record = await record_of(both, attempt_id)
        assert record.ended_at is not None
        assert record.ended_at <= both.clock.now() + timedelta(seconds=60)

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"outcome": "won"}, "/outcome"),
            ({"outcome": None}, "/outcome"),
            ({"exit_code": 2**31}, "/exit_code"),
            ({"exit_code": "0"}, "/exit_code"),
            ({"exit_code": 1.5}, "/exit_code"),
            ({"signal": 0}, "/signal"),
            ({"signal": 10**40}, "/signal"),
            ({"error": None}, "/error"),
            ({"error": "x" * 70_000}, "/error"),
            ({"output": 7}, "/output"),
            ({"output": "{"}, "/output"),
            ({"output": "NaN"}, "/output"),
            ({"log_size": -1}, "/log_size"),
            ({"log_size": 2**64}, "/log_size"),
            ({"log_dropped": -1}, "/log_dropped"),
            ({"started_at": -1}, "/started_at"),
            ({"ended_at": 1e300}, "/ended_at"),
            ({"sent_at": "now"}, "/sent_at"),
            ({"sent_at": True}, "/sent_at"),
            ({"log": {"offset": 0, "data": "%%%"}}, "/log/data"),
            ({"log": {"offset": 0, "data": "QQ"}}, "/log/data"),
            ({"log": {"offset": 0, "data": "\x88é"}}, "/log/data"),
            ({"log": {"offset": 0, "data": "A" * 90_000}}, "/log/data"),
            ({"log": {"offset": -1, "data": ""}}, "/log/offset"),
            ({"log": []}, "/log"),
            ({"boot_id": "x"}, "/boot_id"),
            ({"more": True}, "/more"),
        ],
    )
    async def test_what_an_end_says_is_checked(self, api: Api, change: dict[str, Any], place: str) -> None:
        worker, attempt_id = await running(api)
        answer = await worker.finish(attempt_id, **change)
        assert answer.status_code == 422, answer.text
        assert [pointer for pointer, _ in pointers(answer)] == [place]
        assert (await record_of(api, attempt_id)).state == "running"

    @pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
    async def test_a_time_that_is_no_number_is_refused(self, api: Api, number: bytes) -> None:
        worker, attempt_id = await running(api)
        raw = json.dumps(worker.end(sent_at=4711)).encode().replace(b"4711", number)
        headers = {"Authorization": f"Bearer {worker.keys[attempt_id]}", "Content-Type": "application/json"}
        async with api.client() as client:
            answer = await client.post(f"/worker/v1/attempts/{attempt_id}/finish", content=raw, headers=headers)
        assert answer.status_code in {400, 422}, answer.text

    async def test_an_output_of_a_mebibyte_fits_into_an_end_however_it_is_written(self, api: Api) -> None:
        worker, attempt_id = await running(api)
        text = json.dumps("é" * (MAX_OUTPUT // 2 - 1), ensure_ascii=False)
        assert len(text.encode()) == MAX_OUTPUT
        assert (await worker.finish(attempt_id, output=text)).status_code == 200
        assert await output_of(api, attempt_id) == json.loads(text)

    async def test_the_key_of_another_attempt_ends_nothing(self, both: Api) -> None:
        worker = await a_worker(both)
        one, other = await offer(both, dag_id="a"), await offer(both, dag_id="b")
        for attempt_id in (one, other):
            await worker.start(attempt_id)
        worker.keys[one] = worker.keys[other]
        for app in (both.app, both.start()):  # one that has met the keys, one that has not
            both.app = app
            answer = await worker.finish(one)
            assert (answer.status_code, answer.json()["code"]) == (401, "bad_credential")
        assert (await record_of(both, one)).state == "running"
