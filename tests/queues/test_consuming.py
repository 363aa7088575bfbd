from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pika
import pytest
import redis

from executors.base import Phase
from executors.queues.delivery import pack
from tests.proxy import Proxy
from tests.queues.desk import TICKET, Hands, all_accepted, executor_at, ids, launches, phases, until, working

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.brokers import RabbitServer, RedisServer


def _message(**changed: Any) -> bytes:
    fields = {
        "queue_name": "runyard.default",
        "actor_name": "runyard_run_v1",
        "args": [],
        "kwargs": {"v": 1, "attempt_id": "01a203c8-3a72-7bed-b8bb-8ecb011a1b1f", "ticket": TICKET},
        "options": {},
        "message_id": "1",
        "message_timestamp": 1,
    }
    return json.dumps({**fields, **changed}).encode()


POISON = [
    b"",
    b"not json",
    b"\xff\xfe\x00",
    b"[" * 50_000,
    _message(kwargs={"v": 2, "attempt_id": "x", "ticket": "y"}),
    _message(actor_name="runyard_run_v2", queue_name="other"),
    _message(actor_name="somebody_elses", options={"eta": 9e99}),
    _message(args=["x"], kwargs=None, options=None),
    _message(kwargs={"v": 1, "attempt_id": "no-attempt", "ticket": "rt1.c2VjcmV0"}),
]


@pytest.fixture
def waiting(broker_url: str) -> Callable[[str], int]:
    """How many messages lie in a queue, taken by nobody."""
    if broker_url.startswith("redis"):
        return lambda queue: _length(broker_url, queue)
    return lambda queue: _declare_passively(broker_url, queue)


def _length(url: str, queue: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.llen(f"runyard:runyard.{queue}"))


def _declare_passively(url: str, queue: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        found = connection.channel().queue_declare(f"runyard.{queue}", passive=True)
        return int(found.method.message_count)


def put(url: str, messages: Sequence[bytes]) -> None:
    """Put *messages* into the queue ``default`` as anybody can who can write to the broker."""
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            client.sadd("runyard:__queues__", "runyard.default")
            for number, message in enumerate(messages):
                client.hset("runyard:runyard.default.msgs", f"poison-{number}", message)
                client.rpush("runyard:runyard.default", f"poison-{number}")
        return
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for message in messages:
            channel.basic_publish("", "runyard.default", message)


async def test_a_worker_takes_as_many_messages_as_it_has_threads(
    broker_url: str, waiting: Callable[[str], int]
) -> None:
    batch = launches(9)
    async with executor_at(broker_url) as (executor, _):
        await executor.launch(batch)
        with working(broker_url, threads=3, hands=Hands(holds=True)) as hands:
            await until(lambda: hands.busy == 3)
            await asyncio.sleep(0.5)
            assert (hands.busy, waiting("default")) == (3, 6)
            hands.let_go()
            await until(lambda: hands.have(batch))
            assert hands.most == 3


async def test_the_threads_are_shared_by_all_queues_and_the_rest_is_left_to_others(
    broker_url: str, waiting: Callable[[str], int]
) -> None:
    batches = [launches(5, queue) for queue in ("a", "b", "c")]
    async with executor_at(broker_url) as (executor, _):
        with working(broker_url, queues=("a", "b", "c"), threads=4, hands=Hands(holds=True)) as hands:
            for batch in batches:
                assert all_accepted(await executor.launch(batch))
            await until(lambda: hands.busy == 4)
            await until(lambda: sum(waiting(queue) for queue in ("a", "b", "c")) == 11)
            with working(broker_url, queues=("a", "b", "c"), threads=3) as others:
                await until(lambda: len(others.given) == 11)
            assert hands.most == 4
            assert sorted(hands.attempts + others.attempts) == sorted(each for batch in batches for each in ids(batch))


async def test_a_message_that_comes_is_fetched_at_once(broker_url: str) -> None:
    async with executor_at(broker_url) as (executor, _):
        with working(broker_url) as hands:
            await asyncio.sleep(3)  # long enough for anything that polls to have become slow
            loop = asyncio.get_running_loop()
            lags = []
            for _ in range(5):
                batch = launches(1)
                before = loop.time()
                await executor.launch(batch)
                await until(lambda: hands.have(batch))  # noqa: B023  # it is called here
                lags.append(loop.time() - before)
                await asyncio.sleep(0.6)
            assert min(lags) < 0.2


async def test_nothing_is_taken_while_the_hands_are_not_ready(broker_url: str, waiting: Callable[[str], int]) -> None:
    batch = launches(3)
    async with executor_at(broker_url) as (executor, _):
        with working(broker_url, hands=Hands(is_open=False)) as hands:
            await executor.launch(batch)
            await asyncio.sleep(1.5)
            assert (hands.given, waiting("default")) == ([], 3)
            hands.room.open()
            await until(lambda: hands.have(batch))
            hands.room.close()
            await asyncio.sleep(1.5)
            await executor.launch(launches(1))
            await until(lambda: waiting("default") == 1)
            assert len(hands.given) == 3


async def test_what_was_not_started_goes_to_another_worker(broker_url: str) -> None:
    batch = launches(3)
    async with executor_at(broker_url) as (executor, _):
        with working(broker_url) as full:
            full.drops = True
            await executor.launch(batch)
            with working(broker_url) as other:
                await until(lambda: other.have(batch))
        assert full.given == []


async def test_a_worker_that_stops_puts_back_what_it_has_not_begun(broker_url: str) -> None:
    batch = launches(6)
    async with executor_at(broker_url) as (executor, _):
        with working(broker_url, threads=2, hands=Hands(holds=True)) as first:
            await executor.launch(batch)
            await until(lambda: first.busy == 2)
        assert first.drained
        with working(broker_url) as second:
            await until(lambda: len(second.given) == 4)
        assert sorted(first.attempts + second.attempts) == sorted(ids(batch))


async def test_a_message_that_comes_twice_takes_one_thread(broker_url: str) -> None:
    (one,) = batch = launches(1)
    async with executor_at(broker_url) as (executor, _):
        with working(broker_url, threads=3, hands=Hands(holds=True)) as hands:
            await executor.launch(batch)
            await until(lambda: hands.busy == 1)
            put(broker_url, [pack("runyard.default", one.attempt_id, TICKET)] * 4)
            after = launches(1)
            await executor.launch(after)
            await until(lambda: hands.have(after))
            await asyncio.sleep(0.5)
            assert sorted(hands.attempts) == sorted(ids([*batch, *after]))


async def test_poison_is_thrown_away_and_delays_nobody(
    broker_url: str, waiting: Callable[[str], int], capfd: pytest.CaptureFixture[str]
) -> None:
    good = launches(2)
    async with executor_at(broker_url) as (executor, _):
        await executor.launch(good[:1])
        put(broker_url, POISON)
        with working(broker_url, threads=1) as hands:
            await executor.launch(good[1:])
            async with asyncio.timeout(2.5):  # less than what Dramatiq's own consumer sleeps after one of them
                await until(lambda: hands.have(good))
            await until(lambda: waiting("default") == 0)
            assert hands.attempts == ids(good)
    said = capfd.readouterr()
    assert (said.out + said.err).count("a message was thrown away") == len(POISON)
    assert "c2VjcmV0" not in said.out + said.err


async def test_an_outage_is_survived_by_what_runs_and_by_the_worker(broker_url: str) -> None:
    batch = launches(2)
    with Proxy(broker_url) as wire:
        async with executor_at(broker_url) as (executor, _):
            with working(wire.url, threads=2, hands=Hands(holds=True)) as hands:
                await executor.launch(batch)
                await until(lambda: hands.busy == 2)
                wire.refuse()
                await asyncio.sleep(1)
                hands.let_go()
                await until(lambda: hands.busy == 0)
                wire.heal()
                more = launches(4)
                await executor.launch(more)
                await until(lambda: hands.have([*batch, *more]))
        # RabbitMQ gives again what was not acknowledged; with Redis the acknowledgement comes late.
        again = len(hands.given) - 6
        assert again == 0 if broker_url.startswith("redis") else again <= 2


async def test_a_broker_that_hangs_does_not_hold_up_the_end_of_a_worker(broker_url: str) -> None:
    with Proxy(broker_url) as wire:
        with working(wire.url) as hands:
            async with executor_at(broker_url) as (executor, _):
                batch = launches(1)
                await executor.launch(batch)
                await until(lambda: hands.have(batch))
            wire.swallow()
            await asyncio.sleep(0.5)
            loop = asyncio.get_running_loop()
            before = loop.time()
        assert loop.time() - before < 60


async def test_observe_tells_the_truth(broker_url: str) -> None:
    exact = broker_url.startswith("redis")
    batch, never = launches(3), launches(1)
    async with executor_at(broker_url) as (executor, _):
        await executor.launch(batch)
        assert await phases(executor, batch) == {Phase.PENDING if exact else Phase.UNKNOWN}
        assert await phases(executor, never) == {Phase.GONE if exact else Phase.UNKNOWN}
        with working(broker_url, threads=3, hands=Hands(holds=True)) as hands:
            await until(lambda: hands.busy == 3)
            assert await phases(executor, batch) == {Phase.PENDING if exact else Phase.UNKNOWN}
            hands.let_go()
            if exact:
                await _until_gone(executor, batch)
        await _until_gone(executor, batch)


@pytest.mark.redis
async def test_a_redis_that_lost_everything_says_so_and_a_worker_goes_on(
    redis_server: RedisServer, redis_url: str
) -> None:
    batch = launches(50)
    async with executor_at(redis_url) as (executor, _):
        await executor.launch(batch)
        redis_server.flushall()
        assert await phases(executor, batch) == {Phase.GONE}
        with working(redis_url, hands=Hands(holds=True)) as hands:
            await executor.launch(batch)
            await until(lambda: hands.busy == 2)
            redis_server.flushall()
            assert await phases(executor, batch) == {Phase.GONE}
            await executor.launch(batch)
            hands.let_go()
            await until(lambda: hands.have(batch))


@pytest.mark.rabbitmq
async def test_a_queue_that_is_not_there_proves_that_its_messages_are_not(
    rabbit_server: RabbitServer, rabbit_url: str
) -> None:
    batch = launches(3)
    vhost = quote(urlsplit(rabbit_url).path[1:].replace("%20", " "), safe="")
    async with executor_at(rabbit_url) as (executor, _):
        with working(rabbit_url, hands=Hands(holds=True)) as hands:
            await executor.launch(batch)
            await until(lambda: hands.busy == 2)
            assert await phases(executor, batch) == {Phase.UNKNOWN}
        rabbit_server.api("DELETE", f"/queues/{vhost}/runyard.default")
        assert await phases(executor, batch) == {Phase.GONE}
        with working(rabbit_url) as hands:
            await executor.launch(batch)
            await until(lambda: hands.have(batch))
            rabbit_server.api("DELETE", f"/queues/{vhost}/runyard.default")
            more = launches(3)
            await executor.launch(more)
            await until(lambda: hands.have(more))


@pytest.mark.rabbitmq
async def test_rabbitmq_gives_the_greater_priority_first(rabbit_url: str) -> None:
    batch = launches(4)
    priorities = [0, 5, -3, 99]
    async with executor_at(rabbit_url) as (executor, _):
        for one, priority in zip(batch, priorities, strict=True):
            await executor.launch([_with_priority(one, priority)])
        with working(rabbit_url, threads=1) as hands:
            await until(lambda: hands.have(batch))
        order = [ids(batch).index(each) for each in hands.attempts]  # type: ignore[arg-type]  # they are attempt ids
        assert order[:2] == [3, 1]


async def _until_gone(executor: Any, batch: Sequence[Any]) -> None:
    for _ in range(300):
        if await phases(executor, batch) == {Phase.GONE}:
            return
        await asyncio.sleep(0.1)
    pytest.fail("they are not gone")


def _with_priority(launch: Any, priority: int) -> Any:
    return type(launch)(launch.attempt_id, queue=launch.queue, priority=priority, ticket=launch.ticket)
