"""The events of a run: pages, streams, and how streams end."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from metastore.commands.keys import revoke_key
from tests.api.service import SOON, pointers, take, until

if TYPE_CHECKING:
    from metastore.records import RunRecord
    from tests.api.service import Api

EVENTS = "/api/v1/dags/dice/runs/r/events"
SSE = {"accept": "text/event-stream"}


async def a_run(api: Api) -> RunRecord:
    await api.put("dice")
    await api.flow.slots()
    return await api.flow.create(dag_id="dice", run_id="r")


async def test_events_are_numbered_without_a_gap(both: Api) -> None:
    run = await a_run(both)
    await both.flow.finish_all(await both.flow.begin(run))
    async with await both.caller("read") as reader:
        events = (await reader.get(EVENTS)).json()["items"]
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        assert (events[0]["kind"], events[-1]["kind"]) == ("run.queued", "run.success")
        rest = (await reader.get(f"{EVENTS}?after=2")).json()["items"]
        assert rest == events[2:]
        assert (await reader.get(f"{EVENTS}?after=2147483647")).json()["items"] == []
        assert (await reader.get(f"{EVENTS}?after=-1")).status_code == 422


async def test_a_stream_tells_what_happens_as_it_happens_and_ends_with_the_run(both: Api) -> None:
    run = await a_run(both)
    key = await both.key("read")
    async with both.stream(EVENTS, key, SSE) as stream:
        assert await stream.status() == 200
        headers = await stream.headers()
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store"
        events = stream.events()
        (first,) = await take(events, 1)
        assert (first["id"], first["event"]) == ("1", "run.queued")
        admitted = await both.flow.begin(run)
        (second,) = await take(events, 1)
        assert (second["id"], second["event"]) == ("2", "run.running")
        await both.flow.finish_all(admitted)
        rest = [event async for event in events]
    assert [event["id"] for event in rest[:-1]] == [str(n) for n in range(3, len(rest) + 2)]
    assert rest[-2]["event"] == "run.success"
    assert (rest[-1]["event"], "id" in rest[-1]) == ("end", False)
    assert json.loads(rest[-1]["data"])["state"] == "success"
    async with both.client(key) as reader:
        listed = (await reader.get(EVENTS)).json()["items"]
    assert [json.loads(event["data"]) for event in (first, second, *rest[:-1])] == listed


async def test_a_stream_resumes_after_the_last_event_that_was_read(both: Api) -> None:
    run = await a_run(both)
    await both.flow.finish_all(await both.flow.begin(run))
    key = await both.key("read")
    async with both.stream(EVENTS, key, SSE) as stream:
        whole = [event async for event in stream.events()]
    for number in range(len(whole)):
        async with both.stream(EVENTS, key, SSE | {"last-event-id": str(number)}) as stream:
            assert [event async for event in stream.events()] == whole[number:]
    async with both.stream(f"{EVENTS}?after=2", key, SSE) as stream:
        assert [event async for event in stream.events()] == whole[2:]


@pytest.mark.parametrize("bad", ["-1", "x", "1.5", "٣", "9" * 30, " "])
async def test_a_last_event_id_that_is_none_is_refused(api: Api, bad: str) -> None:
    await a_run(api)
    async with await api.caller("read") as reader:
        answer = await reader.get(EVENTS, headers=[(b"Accept", b"text/event-stream"), (b"Last-Event-ID", bad.encode())])
    assert (answer.status_code, pointers(answer)[0][1]) == (422, "bad_event_id")


async def test_an_idle_stream_says_that_it_is_alive(api: Api) -> None:
    await a_run(api)
    key = await api.key("read")
    async with api.stream(EVENTS, key, SSE) as stream:
        events = stream.events()
        await take(events, 1)
        api.clock.move(api.settings.heartbeat)
        assert await take(events, 1) == [{"": " alive"}]


async def test_a_stream_ends_soon_after_its_key_was_revoked(api: Api) -> None:
    await a_run(api)
    key = await api.key("read")
    async with api.stream(EVENTS, key, SSE) as stream:
        events = stream.events()
        await take(events, 1)
        await api.store.write(revoke_key, key.key_id, "system")
        api.clock.move(timedelta(seconds=60))
        assert await stream.piece() is None


async def test_a_stream_ends_when_the_service_stops_and_after_an_hour(api: Api) -> None:
    await a_run(api)
    key = await api.key("read")
    for end in (lambda: api.clock.move(timedelta(hours=1)), api.app.state.services.streams.stop):
        async with api.stream(EVENTS, key, SSE) as stream:
            await take(stream.events(), 1)
            end()
            rest = await stream.rest()
        assert b"event: end" not in rest


async def test_streams_are_bounded_by_key_and_in_all_and_give_their_slots_back(api: Api) -> None:
    await a_run(api)
    api.start(streams_per_key=2, streams=3)
    one, two = await api.key("read"), await api.key("read")
    async with (
        api.stream(EVENTS, one, SSE) as a,
        api.stream(EVENTS, one, SSE) as b,
        api.client(one) as first,
        api.client(two) as second,
    ):
        assert [await a.status(), await b.status()] == [200, 200]
        answer = await first.get(EVENTS, headers=SSE)
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_streams")
        assert int(answer.headers["retry-after"]) > 0
        assert (await first.get(EVENTS)).status_code == 200
        async with api.stream(EVENTS, two, SSE) as c:
            assert await c.status() == 200
            assert (await second.get(EVENTS, headers=SSE)).status_code == 429
        await b.close()
        async with api.stream(EVENTS, one, SSE) as again:
            assert await again.status() == 200
    assert api.app.state.services.streams._open.total() == 0


async def test_a_reader_who_takes_nothing_is_dropped(api: Api) -> None:
    await a_run(api)
    api.start(reader_patience=timedelta(milliseconds=50))
    stuck = await api.key("read")
    streams = api.app.state.services.streams

    async def never(*_: object) -> Any:
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "method": "GET",
        "path": EVENTS,
        "query_string": b"",
        "headers": [
            (b"host", b"localhost"),
            (b"accept", b"text/event-stream"),
            (b"authorization", f"Bearer {stuck.text}".encode()),
        ],
    }
    async with asyncio.timeout(SOON):
        await api.app(scope, never, never)
    assert streams._open.total() == 0


async def test_a_stream_of_a_deleted_dag_ends(api: Api) -> None:
    run = await a_run(api)
    key = await api.key("admin")
    async with api.stream(EVENTS, key, SSE) as stream, api.client(key) as admin:
        await take(stream.events(), 1)
        await api.flow.cancel(run)
        await until(lambda: api.flow.run(run), lambda now: now.state == "cancelled")
        await admin.delete("/api/v1/dags/dice")
        assert await stream.rest() is not None
