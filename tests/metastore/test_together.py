"""Calls that share transactions: who shares, what an error costs the others, and starts and ends of attempts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select

from dag.errors import NotFound, Unavailable
from dag.outcomes import Ended
from metastore.commands.admission import Outlet
from metastore.commands.attempts import End, Ending, EndNoted, NotStarted, Started, Starting, move_attempts
from metastore.models.limits import limits
from metastore.models.runs import runs
from metastore.settings import DatabaseSettings
from metastore.together import Together
from metastore.wire import Timeouts
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metastore.store import Store, Tx
    from tests.world import FakeClock, SeededEntropy


class Book:
    """A command that writes down who shared a transaction."""

    def __init__(self) -> None:
        self.shared: list[list[str]] = []

    def __call__(self, tx: Tx, keys: Sequence[str]) -> list[str | Exception]:
        found: list[str | Exception] = []
        for key in keys:
            if key == "nobody":
                found.append(NotFound("key", key))
                continue
            tx.conn.execute(insert(limits), {"key": key})
            if key == "poison":
                msg = "boom"
                raise RuntimeError(msg)
            found.append(key)
        self.shared.append(list(keys))
        return found

    __name__ = "book"


async def keys_of(store: Store) -> set[str]:
    return set(await store.read(lambda conn: list(conn.execute(select(limits.c.key)).scalars())))


async def test_what_comes_while_one_is_on_its_way_shares_the_next(store: Store) -> None:
    book = Book()
    together: Together[str, str] = Together(store, book, most=3)
    assert await asyncio.gather(*(together.do(key) for key in "abcdef")) == list("abcdef")
    assert [sorted(keys) for keys in book.shared] == [["a", "b", "c"], ["d", "e", "f"]]
    assert await together.do("g") == "g"


async def test_what_is_wrong_with_one_is_its_own_answer(store: Store) -> None:
    book = Book()
    together: Together[str, str] = Together(store, book, most=8)
    found = await asyncio.gather(*(together.do(key) for key in ("a", "nobody", "b")), return_exceptions=True)
    assert [str(one) for one in found] == ["a", str(NotFound("key", "nobody")), "b"]
    assert book.shared == [["a", "nobody", "b"]]


async def test_one_that_cannot_be_written_costs_the_others_nothing(store: Store) -> None:
    book = Book()
    together: Together[str, str] = Together(store, book, most=8)
    a, poison, b = await asyncio.gather(*(together.do(key) for key in ("a", "poison", "b")), return_exceptions=True)
    assert (a, b) == ("a", "b")
    assert isinstance(poison, RuntimeError)
    assert await keys_of(store) >= {"a", "b"}
    assert "poison" not in await keys_of(store)


async def test_two_about_the_same_go_one_after_the_other(store: Store) -> None:
    seen: list[list[str]] = []

    def note(_: Tx, keys: Sequence[str]) -> list[str | Exception]:
        seen.append(list(keys))
        return list(keys)

    together: Together[str, str] = Together(store, note, most=8, key=lambda key: key[0])
    await asyncio.gather(*(together.do(key) for key in ("a1", "b1", "a2", "a3", "c1")))
    assert seen == [["a1", "b1", "c1"], ["a2"], ["a3"]]


async def test_a_caller_that_goes_away_takes_nothing_back(store: Store) -> None:
    together: Together[str, str] = Together(store, Book(), most=8)
    gone = asyncio.create_task(together.do("a"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await together.do("b") == "b"
    assert await keys_of(store) >= {"a", "b"}


async def test_a_metastore_that_is_away_is_told_to_all_and_asked_once() -> None:
    asked = 0

    class Away:
        async def write(self, *_: Any) -> Any:
            nonlocal asked
            asked += 1
            msg = "away"
            raise Unavailable(msg)

    together: Together[str, str] = Together(Away(), Book(), most=8)  # type: ignore[arg-type]  # all that is asked of it
    found = await asyncio.gather(*(together.do(key) for key in "abc"), return_exceptions=True)
    assert [type(one) for one in found] == [Unavailable] * 3
    assert asked == 1


def start_of(flow: Flow, attempt_id: str) -> Starting:
    return Starting(attempt_id=attempt_id, boot_id=flow.boot, placed_on=flow.agent)


def end_of(flow: Flow, attempt_id: str, ended: Ended = Ended.SUCCESS, *, more: bool = False, **told: Any) -> Ending:
    error = None if ended is Ended.SUCCESS else "it went wrong"
    end = End(attempt_id=attempt_id, ended=ended, boot_id=flow.boot, error=error, **told)
    return Ending(end=end, outlets=[Outlet("local", flow.agent, flow.boot if more else None)])


@pytest.fixture
async def flow(store: Store, clock: FakeClock) -> Flow:
    flow = Flow(store, clock)
    await flow.slots(8)
    return flow


async def test_starts_and_ends_of_several_runs_are_written_together(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {}, "c": {"depends_on": ["a", "b"]}})
    one, first = await flow.trigger()
    other, second = await flow.trigger()
    answers = await flow.store.write(move_attempts, [start_of(flow, admitted.attempt_id) for admitted in first])
    assert all(isinstance(answer, Started) for answer in answers)
    calls: list[Starting | Ending] = [
        end_of(flow, first[0].attempt_id, output="1"),
        start_of(flow, second[0].attempt_id),
        end_of(flow, first[1].attempt_id, output="2"),
        start_of(flow, "nothing"),
    ]
    ended, started, too, nothing = await flow.store.write(move_attempts, calls)
    assert isinstance(ended, EndNoted)
    assert isinstance(too, EndNoted)
    # Both ends have made it ready; it is admitted once, and told once.
    assert [admitted.labels["task_id"] for admitted in ended.admitted] == ["c"]
    assert not too.admitted
    assert isinstance(started, Started)
    assert isinstance(nothing, NotStarted)
    assert await flow.states(one) == {"a": "success", "b": "success", "c": "queued"}
    assert (await flow.states(other))["a"] == "running"
    assert set((await flow.used()).values()) <= {0, 2, 3}
    await flow.store.write(move_attempts, [start_of(flow, ended.admitted[0].attempt_id)])
    await flow.store.write(move_attempts, [end_of(flow, ended.admitted[0].attempt_id)])
    assert (await flow.run(one)).state == "success"


async def test_of_ends_that_share_a_transaction_one_gets_the_started_tasks(flow: Flow) -> None:
    await flow.slots(2)
    await flow.put({name: {} for name in "abcd"})
    run, admitted = await flow.trigger()
    for one in admitted:
        await flow.start(one.attempt_id)
    ids = [one.attempt_id for one in admitted]
    first, second = await flow.store.write(move_attempts, [end_of(flow, ids[0]), end_of(flow, ids[1], more=True)])
    assert not first.admitted  # type: ignore[union-attr]  # it was an end
    assert [one.body is not None for one in second.admitted] == [True, True]  # type: ignore[union-attr]  # as above
    assert sorted((await flow.states(run)).values()) == ["running", "running", "success", "success"]


async def test_of_two_failures_of_a_run_that_fails_fast_both_are_told_as_they_were(flow: Flow) -> None:
    await flow.put({name: {} for name in "abc"}, fail_fast=True)
    run, admitted = await flow.trigger()
    for one in admitted:
        await flow.start(one.attempt_id)
    by_name = {one.labels["task_id"]: one.attempt_id for one in admitted}
    calls = [end_of(flow, by_name[name], Ended.FAILED) for name in "ab"]
    answers = await flow.store.write(move_attempts, calls)
    assert [isinstance(answer, EndNoted) and answer.accepted for answer in answers] == [True, True]
    assert await flow.states(run) == {"a": "failed", "b": "failed", "c": "cancelling"}


@pytest.mark.postgres
async def test_a_run_that_somebody_holds_keeps_nobody_else_waiting(
    postgres_url: str, clock: FakeClock, entropy: SeededEntropy
) -> None:
    from metastore.postgres import PostgresStore  # noqa: PLC0415  # not for tests that do without Postgres

    timeouts = Timeouts(lock=0.3, patience=20)
    store = await PostgresStore.open(DatabaseSettings(postgres_url), clock=clock, entropy=entropy, timeouts=timeouts)
    flow = Flow(store, clock)
    await flow.slots(8)
    await flow.put({"a": {}})
    (held, [a]), (_, [b]) = await flow.trigger(), await flow.trigger()
    together: Together[Starting | Ending, Any] = Together(store, move_attempts, most=8)

    async with store._engine.connect() as holder:
        await holder.execute(select(runs.c.id).where(runs.c.id == held.id).with_for_update())
        waiting = asyncio.create_task(together.do(start_of(flow, a.attempt_id)))
        free = asyncio.create_task(together.do(start_of(flow, b.attempt_id)))
        assert isinstance(await asyncio.wait_for(free, 10), Started)
        assert isinstance(await asyncio.wait_for(together.do(end_of(flow, b.attempt_id)), 10), EndNoted)
        assert not waiting.done()
    assert isinstance(await asyncio.wait_for(waiting, 20), Started)
    await store.close()
