"""Workers of Celery's; one at a time, since what a worker of Celery's knows of itself belongs to its process."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
import time
import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pika
import pytest
import redis

from executors.base import Phase
from executors.queues.address import Address
from executors.queues.celery_medium import CeleryMedium
from executors.queues.celery_worker import NoTickets, Stall
from executors.queues.hands import Once
from executors.queues.message import NAME, body
from tests.proxy import Proxy
from tests.queues.celery_desk import working
from tests.queues.desk import TICKET, Hands, all_accepted, executor_at, ids, launches, phases, until
from tests.world import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.brokers import RedisServer

QUEUE = "runyard-celery.default"


def _task(task: str = NAME, args: Any = (), kwargs: Any = None, **changed: Any) -> dict[str, Any]:
    """A message of Celery's, as it lies in a list of Redis."""
    content = json.dumps([args, kwargs, {}]).encode()
    return {
        "body": base64.b64encode(content).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": "1",
            "root_id": "1",
            "retries": 0,
            "argsrepr": "",
            "kwargsrepr": "",
        },
        "properties": {
            "correlation_id": "1",
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "body_encoding": "base64",
            "delivery_tag": f"tag-{time.monotonic_ns()}",
        },
        **changed,
    }


ATTEMPT = "01a203c8-3a72-7bed-b8bb-8ecb011a1b1f"
SECRET = "rt1.c2VjcmV0"  # noqa: S105  # nobody's
#: What no worker may stumble over.
POISON: list[Any] = [
    _task("somebody_elses", kwargs=body(ATTEMPT, SECRET)),
    _task("runyard_run_v2", kwargs=body(ATTEMPT, SECRET)),
    _task(kwargs={"v": 2, "attempt_id": ATTEMPT, "ticket": SECRET}),
    _task(args=[ATTEMPT], kwargs=body(ATTEMPT, SECRET)),
    _task(kwargs={"v": 1, "attempt_id": "no-attempt", "ticket": SECRET}),
    _task(kwargs={}),
    _task(kwargs=None),
    _task(kwargs=body(ATTEMPT, SECRET), body=base64.b64encode(f"not json {SECRET}".encode()).decode()),
    _task(kwargs=body(ATTEMPT, SECRET), headers={}),
    _task(kwargs=body(ATTEMPT, SECRET), **{"content-type": "application/x-python-serialize"}),
]
#: What is no message of kombu's; only at Redis, since RabbitMQ knows what a message is.
RAW = [b"", b"not json", b"\xff\xfe", b"[]", b"null", b'{"body": 1}', b'{"properties": {}}', b"[" * 50_000]


def put(url: str, messages: Sequence[Any]) -> None:
    if url.startswith("redis"):
        with redis.Redis.from_url(url) as client:
            for message in messages:
                data = message if isinstance(message, bytes) else json.dumps(message)
                client.lpush(f"runyard-celery:{QUEUE}", data)
        return
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for message in messages:
            properties = pika.BasicProperties(
                content_type=message["content-type"], content_encoding="utf-8", headers=message["headers"] or None
            )
            channel.basic_publish("", QUEUE, base64.b64decode(message["body"]), properties)


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged meanwhile, as a worker writes it."""
    found: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(logging.Formatter().format(record))

    handler = Handler()
    handler.addFilter(NoTickets())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield found
    root.removeHandler(handler)
    root.setLevel(level)


async def test_what_is_launched_is_run_with_its_ticket_and_acknowledged(broker_url: str, lines: list[str]) -> None:
    batch = launches(20)
    async with executor_at(broker_url, "celery") as (executor, _):
        assert all_accepted(await executor.launch(batch))
        with working(broker_url, threads=4) as hands:
            await until(lambda: hands.have(batch))
            if broker_url.startswith("redis"):
                await _until_gone(executor, batch)
        await _until_gone(executor, batch)
    assert sorted(hands.attempts) == sorted(ids(batch))
    assert {ticket for _, ticket in hands.given} == {TICKET}
    assert not [line for line in lines if TICKET in line]


async def test_one_thread_after_the_other_does_not_wait_for_the_loop(broker_url: str) -> None:
    batch = launches(30)
    async with executor_at(broker_url, "celery") as (executor, _):
        with working(broker_url, threads=1) as hands:
            first = launches(1)
            await executor.launch(first)
            await until(lambda: hands.have(first))
            await executor.launch(batch)
            before = time.monotonic()
            await until(lambda: hands.have(batch))
            assert time.monotonic() - before < 15, "Celery's loop sleeps for up to a second"


async def test_a_worker_takes_as_many_messages_as_it_has_threads(broker_url: str) -> None:
    batches = [launches(4, queue) for queue in ("a", "b")]
    async with executor_at(broker_url, "celery") as (executor, _):
        for batch in batches:
            await executor.launch(batch)
        with working(broker_url, queues=("a", "b"), threads=3, hands=Hands(holds=True)) as hands:
            await until(lambda: hands.busy == 3)
            await asyncio.sleep(1)
            assert hands.busy == 3
            if broker_url.startswith("redis"):
                found = await executor.observe([each for batch in batches for each in ids(batch)])
                assert [one.phase for one in found].count(Phase.PENDING) == 5
            hands.let_go()
            await until(lambda: all(hands.have(batch) for batch in batches))
            assert hands.most == 3


async def test_poison_is_thrown_away_and_ends_no_worker(broker_url: str, lines: list[str]) -> None:
    good = launches(2)
    async with executor_at(broker_url, "celery") as (executor, _):
        await executor.launch(good[:1])
        put(broker_url, [*POISON, *(RAW if broker_url.startswith("redis") else [])])
        with working(broker_url, threads=1) as hands:
            await executor.launch(good[1:])
            await until(lambda: hands.have(good))
            await asyncio.sleep(1)
            assert hands.attempts == ids(good)
    assert not [line for line in lines if "c2VjcmV0" in line]


async def test_the_tasks_that_celery_brings_along_are_not_for_whoever_can_write_to_the_broker(
    broker_url: str, lines: list[str]
) -> None:
    other: dict[str, Any] = {"task": "celery.accumulate", "args": [], "kwargs": {}, "options": {}}
    good = launches(1)
    async with executor_at(broker_url, "celery") as (executor, _):
        with working(broker_url, threads=1) as hands:
            await executor.launch(good)
            await until(lambda: hands.have(good))
            put(
                broker_url,
                [
                    _task("celery.accumulate", args=[1], kwargs={}),
                    _task("celery.starmap", args=[other, [[1]]], kwargs={}),
                    _task("celery.chunks", args=[other, [[1]], 1], kwargs={}),  # it sends another one
                ],
            )
            await until(lambda: sum("unregistered task" in line for line in lines) == 3)
    assert not [line for line in lines if "celery." in line and "succeeded" in line]


async def test_a_small_message_does_not_become_a_large_one(redis_url: str) -> None:
    packed = _task(kwargs=body(ATTEMPT, SECRET))
    packed["body"] = base64.b64encode(zlib.compress(base64.b64decode(packed["body"]))).decode()
    packed["headers"]["compression"] = "application/x-gzip"
    good = launches(1)
    async with executor_at(redis_url, "celery") as (executor, _):
        with working(redis_url, threads=1) as hands:
            put(redis_url, [packed])
            await executor.launch(good)
            await until(lambda: hands.have(good))
            assert hands.attempts == ids(good)


async def test_what_was_not_started_is_put_back(broker_url: str) -> None:
    batch = launches(2)
    async with executor_at(broker_url, "celery") as (executor, _):
        await executor.launch(batch)
        full = Hands()
        full.drops = True
        with working(broker_url, hands=full):
            await asyncio.sleep(2)
        assert full.given == []
        with working(broker_url) as hands:
            await until(lambda: hands.have(batch))


async def test_a_message_that_comes_twice_takes_one_thread(broker_url: str) -> None:
    (one,) = batch = launches(1)
    async with executor_at(broker_url, "celery") as (executor, _):
        with working(broker_url, threads=3, hands=Hands(holds=True)) as hands:
            await executor.launch(batch)
            await until(lambda: hands.busy == 1)
            put(broker_url, [_task(kwargs=body(one.attempt_id, TICKET)) for _ in range(4)])
            after = launches(1)
            await executor.launch(after)
            await until(lambda: hands.have(after))
            assert sorted(hands.attempts) == sorted(ids([*batch, *after]))


async def test_an_outage_is_survived(broker_url: str) -> None:
    batch = launches(2)
    with Proxy(broker_url) as wire:
        async with executor_at(broker_url, "celery") as (executor, _):
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
                await until(lambda: hands.have([*batch, *more]), 60)


async def test_after_an_outage_the_free_threads_are_used_while_the_others_go_on(broker_url: str) -> None:
    with Proxy(broker_url) as wire:
        async with executor_at(broker_url, "celery") as (executor, _):
            with working(wire.url, threads=3, hands=Hands(holds=True)) as hands:
                await executor.launch(launches(1))
                await until(lambda: hands.busy == 1)
                wire.refuse()
                await asyncio.sleep(3)
                wire.heal()
                await executor.launch(launches(2))
                await until(lambda: hands.busy == 3)


async def test_a_worker_that_takes_nothing_of_what_waits_is_found(broker_url: str) -> None:
    address = Address.read(broker_url)
    clock, medium = FakeClock(), CeleryMedium(address, "runyard")
    hands = Hands(holds=True)
    once = Once(hands)
    stall = Stall(medium, ["default"], once, 2, clock)
    async with executor_at(broker_url, "celery") as (executor, _):
        await executor.launch(launches(3))

        def lasts() -> float:
            clock.move(timedelta(seconds=10))
            return stall.lasts()

        assert [lasts() for _ in range(3)] == [0, 0, 10], "nobody listens"
        threads = [threading.Thread(target=once.run, args=(each, "ticket")) for each in ("a", "b")]
        for thread in threads:
            thread.start()
        await until(lambda: hands.busy == 2)
        assert [lasts() for _ in range(3)] == [0, 0, 0], "it has no thread for them"
        hands.let_go()
        for thread in threads:
            thread.join()
        assert [lasts() for _ in range(3)] == [0, 10, 20]
        with working(broker_url) as others:
            await until(lambda: len(others.given) == 3)
        assert lasts() == 0, "nothing waits"
    medium.close()


@pytest.mark.redis
async def test_observe_at_redis_tells_the_truth(redis_server: RedisServer, redis_url: str) -> None:
    batch, never = launches(3), launches(1)
    async with executor_at(redis_url, "celery") as (executor, _):
        await executor.launch(batch)
        assert await phases(executor, batch) == {Phase.PENDING}
        assert await phases(executor, never) == {Phase.GONE}
        put(redis_url, RAW)
        assert await phases(executor, batch) == {Phase.PENDING}
        async with executor_at(redis_url, "celery") as (another, _):
            assert await phases(another, batch) == {Phase.PENDING}
        with working(redis_url, threads=3, hands=Hands(holds=True)) as hands:
            await until(lambda: hands.busy == 3)
            assert await phases(executor, batch) == {Phase.UNKNOWN}, "a worker that died would never give them back"
        redis_server.flushall()
        assert await phases(executor, batch) == {Phase.GONE}


async def _until_gone(executor: Any, batch: Sequence[Any]) -> None:
    for _ in range(300):
        if await phases(executor, batch) == {Phase.GONE}:
            return
        await asyncio.sleep(0.1)
    pytest.fail("they are not gone")
