"""What the scripts do, key by key: who holds what, and what becomes of what the dead held."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from executors.queues.address import Address
from executors.queues.delivery import pack
from executors.queues.redis_broker import HEARTBEAT_TIMEOUT, Keys, QueueBroker, RedisConsumer
from executors.queues.redis_client import make_client
from executors.queues.room import Room
from runyard.world import SystemClock
from tests.proxy import Proxy
from tests.queues.desk import TICKET, ids, launches

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.redis

QUEUE = "runyard.default"
BEATS = "runyard:__heartbeats__"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def keys(redis_url: str) -> Iterator[Keys]:
    with make_client(Address.read(redis_url)) as client:
        yield Keys(client, "runyard")


def _publish(keys: Keys, count: int) -> list[str]:
    batch = ids(launches(count))
    keys.publish(QUEUE, [(each, pack(QUEUE, each, TICKET)) for each in batch])
    return list(batch)


def _list(client: redis.Redis) -> Any:
    return client.lrange(f"runyard:{QUEUE}", 0, -1)


def _messages(client: redis.Redis) -> Any:
    return client.hlen(f"runyard:{QUEUE}.msgs")


def _die(client: redis.Redis, worker: str, seconds: float) -> None:
    """Let Redis have heard of *worker* that long ago."""
    client.zadd(BEATS, {worker: (time.time() - seconds) * 1000})


def test_a_message_is_there_once_however_often_it_is_published(keys: Keys, client: redis.Redis) -> None:
    for _ in range(2):
        keys.publish(QUEUE, [("a", b"first"), ("b", b"first")])
    assert _list(client) == ["a", "b"]
    assert keys.fetch(QUEUE, "worker", 5) == [("a", b"first"), ("b", b"first")]
    keys.publish(QUEUE, [("a", b"second")])
    assert _list(client) == []
    keys.ack(QUEUE, "worker", "a")
    keys.publish(QUEUE, [("a", b"third")])
    assert keys.fetch(QUEUE, "worker", 5) == [("a", b"third")]


def test_what_is_acknowledged_leaves_nothing_behind(keys: Keys, client: redis.Redis) -> None:
    batch = _publish(keys, 3)
    for message_id, _ in keys.fetch(QUEUE, "worker", 3):
        keys.ack(QUEUE, "worker", message_id)
    assert keys.locate(batch) == set()
    assert set(client.keys("*")) == {"runyard:__queues__", BEATS}


def test_what_a_dead_worker_held_is_put_back_when_its_time_is_over(keys: Keys, client: redis.Redis) -> None:
    batch = _publish(keys, 3)
    keys.fetch(QUEUE, "dead", 2)
    _die(client, "dead", HEARTBEAT_TIMEOUT - 5)
    assert keys.rescue() == 0
    assert keys.locate(batch) == set(batch)
    _die(client, "dead", HEARTBEAT_TIMEOUT + 1)
    assert keys.rescue() == 2
    assert sorted(_list(client)) == sorted(batch)
    assert client.zscore(BEATS, "dead") is None


def test_a_worker_that_was_only_slow_may_still_acknowledge(keys: Keys, client: redis.Redis) -> None:
    (one,) = _publish(keys, 1)
    keys.fetch(QUEUE, "slow", 1)
    keys.rescue("slow")
    keys.ack(QUEUE, "slow", one)
    assert _list(client) == []
    assert _messages(client) == 0
    (one,) = _publish(keys, 1)
    keys.fetch(QUEUE, "slow", 1)
    keys.rescue("slow")
    keys.fetch(QUEUE, "other", 1)
    keys.ack(QUEUE, "slow", one)
    assert keys.locate([one]) == {one}, "the other one has it now"
    keys.ack(QUEUE, "other", one)
    assert keys.locate([one]) == set()


def test_what_was_put_back_comes_first(keys: Keys, client: redis.Redis) -> None:
    first, second = _publish(keys, 2)
    keys.fetch(QUEUE, "worker", 1)
    keys.put_back(QUEUE, "worker", [first])
    keys.put_back(QUEUE, "worker", [first])
    assert _list(client) == [first, second]


def test_a_message_that_was_lost_by_half_is_lost(keys: Keys, client: redis.Redis) -> None:
    batch = _publish(keys, 2)
    client.delete(f"runyard:{QUEUE}")  # as by a Redis that evicts keys
    assert keys.locate(batch) == set()
    keys.publish(QUEUE, [(batch[0], b"again")])
    assert _list(client) == [batch[0]]


def test_what_nobody_has_taken_can_be_forgotten(keys: Keys) -> None:
    taken, waiting = _publish(keys, 2)
    keys.fetch(QUEUE, "worker", 1)
    keys.forget([taken, waiting, "never"])
    assert keys.locate([taken, waiting]) == {taken}


def test_heartbeats_are_by_the_clock_of_redis(keys: Keys, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)  # of a worker whose clock is an hour off
    keys.fetch(QUEUE, "worker", 0)
    heard = client.zscore(BEATS, "worker")
    assert isinstance(heard, float)
    assert abs(heard / 1000 - now) < 60
    assert keys.rescue() == 0
    assert client.zscore(BEATS, "worker") is not None


def test_the_next_process_of_a_place_puts_back_at_once_what_the_last_one_held(redis_url: str, keys: Keys) -> None:
    batch = _publish(keys, 4)
    keys.fetch(QUEUE, "killed", 2)
    with _consumer(redis_url, dead=["killed", "one before"]) as consumer:
        assert sorted(_take(consumer, 4)) == sorted(batch)


def test_messages_whose_arrival_was_lost_on_the_way_are_fetched_again(redis_url: str, keys: Keys) -> None:
    with Proxy(redis_url) as wire, _consumer(wire.url) as consumer:
        assert next(consumer) is None  # connected
        wire.swallow()
        batch = _publish(keys, 2)
        assert next(consumer) is None  # Redis has given them, and nobody has got them
        wire.heal()
        assert sorted(_take(consumer, 2)) == sorted(batch)


def test_a_message_in_a_threads_hands_is_not_put_back_by_doubt(redis_url: str, keys: Keys) -> None:
    with Proxy(redis_url) as wire, _consumer(wire.url) as consumer:
        (held,) = _publish(keys, 1)
        assert _take(consumer, 1) == [held]
        wire.cut()
        wire.refuse()
        assert next(consumer) is None
        wire.heal()
        (other,) = _publish(keys, 1)
        assert _take(consumer, 1) == [other]
        assert next(consumer) is None


def test_an_id_that_is_no_text_is_thrown_away_and_holds_up_nothing(
    redis_url: str, keys: Keys, client: redis.Redis
) -> None:
    with _consumer(redis_url) as consumer:
        for number in range(7):  # more than there is room for
            client.hset(f"runyard:{QUEUE}.msgs", b"\xff\xfe%d" % number, b"poison")
            client.rpush(f"runyard:{QUEUE}", b"\xff\xfe%d" % number)
        batch = _publish(keys, 2)
        assert sorted(_take(consumer, 2)) == sorted(batch)
        assert _messages(client) == 2


class _consumer:  # noqa: N801  # it is called like a function
    """A consumer without a worker around it."""

    def __init__(self, url: str, dead: list[str] | None = None) -> None:
        self._url, self._dead = url, dead or []

    def __enter__(self) -> RedisConsumer:
        address = Address.read(self._url)
        self._client = make_client(address)
        broker = QueueBroker(self._client, address, namespace="runyard", clock=SystemClock(), middleware=[])
        broker.begin(Room(5), self._dead)
        consumer = broker.consume(QUEUE, prefetch=5, timeout=1000)
        assert isinstance(consumer, RedisConsumer)
        return consumer

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _take(consumer: RedisConsumer, count: int) -> list[str]:
    deadline = time.monotonic() + 30
    taken: list[str] = []
    while len(taken) < count:
        assert time.monotonic() < deadline
        message = next(consumer)
        if message is not None:
            taken.append(message.message_id)
    return taken
