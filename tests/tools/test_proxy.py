"""The wire of the tests breaks when, and only when, it is told to."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.redis


@pytest.fixture
def wire(redis_url: str) -> Iterator[Proxy]:
    with Proxy(redis_url) as wire:
        yield wire


def _client(wire: Proxy) -> redis.Redis:
    never = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(wire.url, socket_timeout=0.5, socket_connect_timeout=5, retry=never)


def test_bytes_pass(wire: Proxy) -> None:
    with _client(wire) as client:
        client.set("large", b"x" * 3_000_000)
        assert client.strlen("large") == 3_000_000
    assert wire.connections == 1


def test_a_cut_ends_connections_and_new_ones_work(wire: Proxy) -> None:
    port = urlsplit(wire.url).port
    with socket.create_connection(("127.0.0.1", port), 10) as conn:
        conn.sendall(b"PING\r\n")
        assert conn.recv(100) == b"+PONG\r\n"
        wire.cut()
        with suppress(ConnectionResetError):
            assert conn.recv(100) == b""
    with _client(wire) as client:
        assert client.ping()


def test_a_port_that_refuses_takes_connections_again_once_healed(wire: Proxy) -> None:
    with _client(wire) as client:
        client.ping()
        wire.refuse()
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()
        wire.heal()
        assert client.ping()


def test_what_was_held_arrives_once_it_is_healed(wire: Proxy, redis_url: str) -> None:
    with _client(wire) as client, redis.Redis.from_url(redis_url) as direct:
        client.ping()
        wire.hold()
        with pytest.raises(redis.TimeoutError):
            client.set("late", 1)
        assert direct.get("late") is None
        wire.heal()
        with _client(wire) as another:
            assert another.ping()


def test_a_black_hole_loses_what_it_swallows(wire: Proxy, redis_url: str) -> None:
    with _client(wire) as client, redis.Redis.from_url(redis_url) as direct:
        client.ping()
        wire.swallow()
        with pytest.raises(redis.TimeoutError):
            client.set("lost", 1)
        wire.heal()
        assert client.ping()
        assert direct.get("lost") is None


def test_a_slow_wire_brings_everything(wire: Proxy) -> None:
    with _client(wire) as client:
        client.ping()
        wire.slow(1.0)
        with pytest.raises(redis.TimeoutError):
            client.ping()
        wire.heal()
        assert client.ping()
