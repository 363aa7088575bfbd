"""Kombu's Redis as a Celery worker of ours has it: what a connection that breaks leaves with the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kombu
import pytest
import redis as redis_library
from kombu.transport import redis

from executors.queues.celery_redis import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.redis


_untyped: Any = kombu
_CLOSED = "Connection closed by server."


def connect(url: str) -> Any:
    return _untyped.Connection(url, transport=Transport)


def left(url: str) -> tuple[int, int]:
    """Return how many messages are in the queue, and with consumers."""
    with redis_library.Redis.from_url(url) as client:
        return client.llen("work"), client.hlen("unacked")


def lost_reply(append: Callable[..., Any]) -> Callable[..., Any]:
    """Return kombu's *append* with Redis' answer lost: it holds the message, and the consumer does not know."""

    def lost(self: Any, message: Any, delivery_tag: str) -> Any:
        append(self, message, delivery_tag)
        del self._delivered[delivery_tag]
        raise redis_library.ConnectionError(_CLOSED)

    return lost


def consume(url: str, errors: tuple[type[Exception], ...] = (), rounds: int = 3) -> list[Any]:
    """Take what there is, and acknowledge it."""
    taken: list[Any] = []

    def take(body: Any, message: Any) -> None:
        taken.append(body)
        message.ack()

    queue = _untyped.Queue("work", _untyped.Exchange("work"), routing_key="work")
    with connect(url) as connection, connection.Consumer(queue, callbacks=[take]):
        for _ in range(rounds):
            try:
                connection.drain_events(timeout=0.3)
            except TimeoutError:
                continue
            except errors:
                break
    return taken


@pytest.fixture
def url(redis_url: str) -> str:
    with connect(redis_url) as connection:
        connection.SimpleQueue("work").put({"task": 1})
    assert left(redis_url) == (1, 0)
    return redis_url


def test_what_is_taken_and_acknowledged_is_gone(url: str) -> None:
    assert consume(url) == [{"task": 1}]
    assert left(url) == (0, 0)


def test_what_was_taken_when_the_connection_broke_goes_back_into_its_queue(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(redis.QoS, "append", lost_reply(redis.QoS.append))
        consume(url, (redis_library.ConnectionError,))
    assert left(url) == (0, 1), "Redis holds it for a consumer that does not know of it"
    assert consume(url) == [{"task": 1}]
    assert left(url) == (0, 0)


def test_an_acknowledgement_that_nobody_heard_is_said_by_the_next_connection(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise redis_library.ConnectionError(_CLOSED)

    with monkeypatch.context() as patch:
        patch.setattr(redis.QoS, "ack", gone)
        assert consume(url, rounds=1) == [{"task": 1}]
        assert left(url) == (0, 1)
    assert consume(url) == []
    assert left(url) == (0, 0)
