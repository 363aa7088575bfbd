"""Calls that travel together: which of them do, and what becomes of each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.worker.remote_api import KEY
from worker import bundles
from worker.bundles import Bundles
from worker.http_door import Answer, Outage, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.worker.remote_api import Api
    from tests.unit.worker.remote_kit import Kit

Result = Answer | Outage
GONE = {"code": "attempt_gone", "title": "", "detail": "It is over."}


class Lane:
    """Requests as they would be sent, and who waits for them."""

    def __init__(self) -> None:
        self.sent: list[tuple[Request, Callable[[Result], None]]] = []

    def send(self, request: Request, then: Callable[[Result], None]) -> None:
        self.sent.append((request, then))

    @property
    def paths(self) -> list[str]:
        return [request.path for request, _ in self.sent]

    async def answer(self, result: Result) -> None:
        """Answer the request that has waited longest."""
        _, then = self.sent.pop(0)
        then(result)
        await asyncio.sleep(0)


class Desk:
    """Somebody who makes calls."""

    def __init__(self) -> None:
        self.lane = Lane()
        self.bundles = Bundles(asyncio.get_running_loop(), self.lane)
        self.bundles.aim("an-api-key")
        self.results: dict[str, Result] = {}

    def call(self, name: str, word: str = "start", *, weight: float = 100, body: bytes = b'{"n": 1}') -> None:
        def then(result: Result) -> None:
            assert name not in self.results
            self.results[name] = result

        request = Request(
            method="POST", path=f"/attempts/{name}/{word}", secret=f"s-{name}", body=lambda: body, weight=weight
        )
        self.bundles.send(request, then)

    async def call_together(self, *names: str) -> None:
        """Make calls that wait for another one, and go in one request once that is answered."""
        for name in ("first", *names):
            self.call(name)
        await self.lane.answer(Answer(200, {}))


def told(*answers: dict[str, Any], status: int = 200, after: int | None = None) -> list[dict[str, Any]]:
    return [{"status": status, "answer": one, "retry_after": after} for one in answers]


@pytest.fixture
async def desk() -> Desk:
    return Desk()


async def test_who_has_one_thing_to_say_says_it_at_once_and_by_itself(desk: Desk) -> None:
    desk.call("a")
    assert desk.lane.paths == ["/attempts/a/start"]
    await desk.lane.answer(Answer(200, {"x": 1}))
    assert desk.results == {"a": Answer(200, {"x": 1})}
    desk.call("b", "finish")
    assert desk.lane.paths == ["/attempts/b/finish"]


async def test_what_comes_meanwhile_goes_together_and_each_gets_its_own_answer(desk: Desk) -> None:
    desk.call("a")
    for name, word in (("b", "finish"), ("c", "start"), ("d", "finish"), ("e", "start")):
        desk.call(name, word, body=json.dumps({"of": name}).encode())
    assert desk.lane.paths == ["/attempts/a/start"]
    await desk.lane.answer(Answer(200, {}))
    ((request, _),) = desk.lane.sent
    assert (request.method, request.path, request.secret) == ("POST", "/attempts", "an-api-key")
    assert json.loads(request.body()) == {
        "starts": [{"attempt_id": n, "ticket": f"s-{n}", "of": n} for n in "ce"],
        "finishes": [{"attempt_id": n, "key": f"s-{n}", "of": n} for n in "bd"],
    }
    starts = told({"task": 1}) + told(GONE, status=410)
    finishes = told({"detail": "Busy."}, status=503, after=7) + told({"accepted": True})
    await desk.lane.answer(Answer(200, {"starts": starts, "finishes": finishes}))
    busy = desk.results.pop("b")
    assert isinstance(busy, Outage)
    assert (busy.after, busy.is_sent, "503 Busy." in busy.why) == (7.0, True, True)
    del desk.results["a"]
    assert desk.results == {
        "c": Answer(200, {"task": 1}), "d": Answer(200, {"accepted": True}), "e": Answer(410, GONE),
    }  # fmt: skip


async def test_what_an_answer_leads_to_goes_with_the_next(desk: Desk) -> None:
    await desk.call_together("b", "c")
    desk.call("d")
    assert desk.lane.paths == ["/attempts"], "one request at a time"
    await desk.lane.answer(Answer(200, {"starts": told({}, {}), "finishes": []}))
    assert desk.lane.paths == ["/attempts/d/start"]


async def test_what_is_held_up_waits_for_no_longer_than_a_moment(desk: Desk) -> None:
    desk.call("slow")
    desk.call("b")
    await asyncio.sleep(2 * bundles._PATIENCE)
    assert desk.lane.paths == ["/attempts/slow/start", "/attempts/b/start"]
    desk.call("c")
    desk.call("d")
    await asyncio.sleep(2 * bundles._PATIENCE)
    assert desk.lane.paths[2:] == ["/attempts"]


async def test_what_is_large_does_not_wait_and_holds_nobody_up(desk: Desk) -> None:
    desk.call("large", "finish", weight=0)
    desk.call("a")
    assert desk.lane.paths == ["/attempts/large/finish", "/attempts/a/start"]


async def test_no_more_bytes_go_in_one_than_proxies_take(desk: Desk) -> None:
    desk.call("a")
    desk.call("too-much", weight=bundles._HEAVIEST + 1)
    assert desk.lane.paths == ["/attempts/a/start", "/attempts/too-much/start"]
    for name in "bcd":
        desk.call(name, weight=bundles._HEAVIEST * 0.45)
    await desk.lane.answer(Answer(200, {}))
    assert len(json.loads(desk.lane.sent[1][0].body())["starts"]) == 2
    await asyncio.sleep(2 * bundles._PATIENCE)
    assert desk.lane.paths[2] == "/attempts/d/start"


async def test_no_more_than_fit_go_in_one(desk: Desk) -> None:
    desk.call("first")
    for n in range(bundles._MOST + 2):
        desk.call(f"n{n}")
    await desk.lane.answer(Answer(200, {}))
    assert len(json.loads(desk.lane.sent[0][0].body())["starts"]) == bundles._MOST
    await asyncio.sleep(2 * bundles._PATIENCE)
    assert len(json.loads(desk.lane.sent[1][0].body())["starts"]) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {"code": "route_not_found"}),
        Answer(405, {"code": "method_not_allowed"}),
        Answer(401, {"code": "unauthenticated"}),
        Answer(422, {"code": "invalid"}),
        Answer(200, {}),
        Answer(200, {"starts": told({}), "finishes": []}),
        Answer(200, {"starts": told({}, {}), "finishes": told({})}),
        Answer(200, {"starts": [{"status": 200, "answer": {}}, {"status": "200", "answer": {}}], "finishes": []}),
        Answer(200, {"starts": [{"status": 200, "answer": {}}, {"status": 200, "answer": []}], "finishes": []}),
    ],
)
async def test_where_several_are_not_taken_they_go_one_by_one(desk: Desk, answer: Answer) -> None:
    await desk.call_together("b", "c")
    desk.call("d")
    await desk.lane.answer(answer)
    assert desk.lane.paths == [f"/attempts/{n}/start" for n in "bcd"]
    desk.call("e")
    assert desk.lane.paths[3:] == ["/attempts/e/start"], "for a while"
    for _ in range(4):
        await desk.lane.answer(Answer(200, {"x": 1}))
    assert [desk.results[n] for n in "bcde"] == 4 * [Answer(200, {"x": 1})]
    desk.bundles.aim("another-key")
    for name in "fgh":
        desk.call(name)
    await desk.lane.answer(Answer(200, {}))
    assert desk.lane.paths == ["/attempts"], "who has a new key tries it"


async def test_an_outage_is_that_of_each_and_the_next_tries_go_one_by_one(desk: Desk) -> None:
    await desk.call_together("b", "c")
    await desk.lane.answer(Outage("reset", is_sent=True))
    assert desk.results["b"] == desk.results["c"] == Outage("reset", is_sent=True)
    desk.call("d")
    desk.call("e")
    assert desk.lane.paths == ["/attempts/d/start", "/attempts/e/start"]


async def test_what_one_makes_of_its_answer_is_nothing_to_the_others(desk: Desk) -> None:
    desk.call("a")

    def trips(result: Result) -> None:
        raise RuntimeError(result)

    trap = Request(method="POST", path="/attempts/b/start", secret=KEY, weight=1, body=lambda: b'{"n":1}')
    desk.bundles.send(trap, trips)
    desk.call("c")
    await desk.lane.answer(Answer(200, {}))
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["exception"]))
    await desk.lane.answer(Answer(200, {"starts": told({}, {"x": 1}), "finishes": []}))
    assert desk.results["c"] == Answer(200, {"x": 1})
    assert len(said) == 1
    desk.call("d")
    assert desk.lane.paths == ["/attempts/d/start"]


async def test_what_was_refused_under_an_earlier_key_says_nothing_about_this_one(desk: Desk) -> None:
    await desk.call_together("b", "c")
    desk.bundles.aim("another-key")
    await desk.lane.answer(Answer(401, {"code": "unauthenticated"}))
    assert desk.lane.paths == ["/attempts/b/start", "/attempts/c/start"]
    for name in "def":
        desk.call(name)
    await desk.lane.answer(Answer(200, {}))
    await desk.lane.answer(Answer(200, {}))
    await desk.lane.answer(Answer(200, {}))
    assert desk.lane.paths == ["/attempts"]


async def test_nobody_makes_us_wait_for_ever(desk: Desk) -> None:
    await desk.call_together("b", "c")
    starts = told({}, status=503, after=10**400) + told({}, status=429)
    await desk.lane.answer(Answer(200, {"starts": starts, "finishes": []}))
    first, second = desk.results["b"], desk.results["c"]
    assert isinstance(first, Outage)
    assert isinstance(second, Outage)
    assert (first.after, second.after) == (600.0, 0.0)


def run_four(kit: Kit, api: Api) -> None:
    """Run four tasks at once through an API that answers slowly enough for calls to meet."""
    kit.feed()
    api.delay = {"start": 0.02, "finish": 0.02, "together": 0.02}
    messages = [kit.send(kit.shell("exec true")) for _ in range(4)]
    assert [message.wait() for message in messages] == 4 * ["acked"]
    assert {api.row(message.attempt_id).state for message in messages} == {"success"}
    assert {len(api.row(message.attempt_id).finish) > 0 for message in messages} == {True}


def test_a_busy_worker_makes_fewer_requests_than_calls(kit: Kit, api: Api) -> None:
    run_four(kit, api)
    assert (api.calls["start"], api.calls["finish"]) == (4, 4)
    assert api.calls["together"] > 0


def test_a_lost_answer_to_several_loses_nothing(kit: Kit, api: Api) -> None:
    api.lose["together"] = 1
    run_four(kit, api)
    assert api.lose["together"] == 0


def test_a_task_that_puts_a_pipe_in_place_of_its_log_holds_nobody_up(kit: Kit, api: Api) -> None:
    kit.feed()
    go = f"{kit.journal}.go"
    wait = f"echo up >> $JOURNAL; while [ ! -e {go} ]; do sleep 0.01; done"
    swap = "log=../$(basename $PWD).log; rm -f $log; mkfifo $log;"
    messages = [kit.send(kit.shell(f"echo hi; sleep 0.2; {swap if number == 1 else ''} {wait}")) for number in range(4)]
    api.until(lambda: len(kit.lines()) == 4, "all of them run")
    api.delay = {"start": 0.05, "finish": 0.05, "together": 0.05}
    Path(go).touch()
    assert [message.wait() for message in messages] == 4 * ["acked"]
    assert {api.row(message.attempt_id).state for message in messages} == {"success"}
