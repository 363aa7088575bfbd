"""The brokers between scheduler and workers, and what can happen to them and to a message in them."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import pika

from executors.queues.address import Address
from executors.queues.celery_app import celery_queue
from executors.queues.celery_medium import CeleryMedium
from executors.queues.delivery import pack
from executors.queues.medium import Parcel
from executors.queues.message import queue_name
from tests.brokers import PASSWORD, RabbitServer, RedisServer
from tests.proxy import Proxy

if TYPE_CHECKING:
    from pathlib import Path

PREFIX = "runyard"
#: Every queue that a scenario names.
QUEUES = ("default", "left", "right", "nobody")
_NOBODY = "00000000-0000-7000-8000-000000000000"


def _message(actor: str = "runyard_run_v1", **kwargs: object) -> bytes:
    fields = {
        "queue_name": f"{PREFIX}.default",
        "actor_name": actor,
        "args": [],
        "kwargs": kwargs,
        "options": {},
        "message_id": _NOBODY,
        "message_timestamp": 0,
    }
    return json.dumps(fields).encode()


#: No message of ours: not JSON, half of one, without what it needs or with more, of another version, for another actor.
GARBAGE = (
    b"\x00\xff",
    _message(v=1, attempt_id=_NOBODY, ticket="t")[:60],
    _message(v=1),
    _message(v=1, attempt_id="../../etc/passwd", ticket="t"),
    _message(v=1, attempt_id=_NOBODY, ticket="t", api_url="http://127.0.0.1:1/"),
    _message(v=99, attempt_id=_NOBODY, ticket="t"),
    _message("somebody_else"),
    b"[" * 10_000,
)


class Medium(Protocol):
    """One kind of broker, as long as the tests of this process last; scenarios take turns with it."""

    name: str
    #: A message whose worker process died lies there for days, unless somebody sends it again.
    keeps_what_the_dead_held: bool

    def open(self) -> None: ...

    def close(self) -> None: ...

    @property
    def url(self) -> str:
        """Where scheduler and workers find it: behind a wire that can be cut."""
        ...

    def send(self, queue: str, attempt_id: str, ticket: str) -> None:
        """Put a message there, whatever is there already."""
        ...

    def send_raw(self, queue: str, data: bytes) -> None: ...

    def drop(self, queue: str, attempt_id: str) -> None:
        """Take a message out that nobody has taken yet."""
        ...

    def messages(self) -> list[str]:
        """Return what is there of messages, wherever they are."""
        ...

    def held(self) -> list[str]:
        """Return what is with workers, and stays there for a while when they die."""
        ...

    def flush(self) -> None: ...

    def restart(self) -> None: ...

    def throttle(self, *, on: bool) -> None: ...

    def cut(self) -> None: ...

    def partition(self, *, on: bool) -> None: ...

    def clear(self) -> None:
        """Be as new for the next scenario, its workers still connected."""
        ...


class _Behind:
    """A server behind a wire."""

    _wire: Proxy
    keeps_what_the_dead_held = False

    @property
    def url(self) -> str:
        return self._wire.url

    def cut(self) -> None:
        self._wire.cut()

    def partition(self, *, on: bool) -> None:
        if on:
            self._wire.refuse()
        else:
            self._wire.heal()


class RedisMedium(_Behind):
    """A Redis that writes down what it is told before it answers."""

    name = "redis"

    def __init__(self, folder: Path) -> None:
        self._server = RedisServer(folder, aof=True, password=PASSWORD)

    def open(self) -> None:
        self._server.start()
        self._wire = Proxy(self._server.url)
        self._wire.__enter__()

    def close(self) -> None:
        self._wire.__exit__(None, None, None)
        self._server.close()

    def send(self, queue: str, attempt_id: str, ticket: str) -> None:
        name = queue_name(PREFIX, queue)
        self._push(name, attempt_id, pack(name, attempt_id, ticket))

    def send_raw(self, queue: str, data: bytes) -> None:
        self._push(queue_name(PREFIX, queue), f"raw-{hash(data)}", data)

    def _push(self, name: str, message_id: str, data: bytes) -> None:
        with self._server.client() as client:
            client.hset(f"{PREFIX}:{name}.msgs", message_id, data)
            client.rpush(f"{PREFIX}:{name}", message_id)

    def drop(self, queue: str, attempt_id: str) -> None:
        name = queue_name(PREFIX, queue)
        with self._server.client() as client:
            assert client.lrem(f"{PREFIX}:{name}", 1, attempt_id) == 1
            client.hdel(f"{PREFIX}:{name}.msgs", attempt_id)

    def messages(self) -> list[str]:
        found: list[str] = []
        with self._server.client() as client:
            for queue in QUEUES:
                key = f"{PREFIX}:{queue_name(PREFIX, queue)}"
                found += [one.decode() for one in client.lrange(key, 0, -1)]
                found += [one.decode() for one in client.hkeys(f"{key}.msgs")]
        return sorted(set(found))

    def held(self) -> list[str]:
        with self._server.client() as client:
            keys = client.keys(f"{PREFIX}:__acks__.*")
            return [one.decode() for key in keys for one in client.smembers(key)]

    def flush(self) -> None:
        self._server.flushall()

    def restart(self) -> None:
        self._server.kill()
        self._server.start()

    def throttle(self, *, on: bool) -> None:
        with self._server.client() as client:
            client.config_set("maxmemory", "1" if on else "0")

    def clear(self) -> None:
        self._wire.heal()
        self._server.start()
        self.throttle(on=False)
        with self._server.client() as client:
            client.flushall()


class RabbitMedium(_Behind):
    """A RabbitMQ with a virtual host of this process's own."""

    name = "rabbitmq"

    def __init__(self, folder: Path) -> None:
        self._server = RabbitServer(folder)

    def open(self) -> None:
        self._server.start()
        self._vhost = self._server.borrow()
        self._wire = Proxy(self._server.url(self._vhost))
        self._wire.__enter__()

    def close(self) -> None:
        self._wire.__exit__(None, None, None)
        self._server.close()

    def send(self, queue: str, attempt_id: str, ticket: str) -> None:
        name = queue_name(PREFIX, queue)
        self._publish(name, pack(name, attempt_id, ticket, 0))

    def send_raw(self, queue: str, data: bytes) -> None:
        self._publish(queue_name(PREFIX, queue), data)

    def _publish(self, name: str, data: bytes) -> None:
        with self._channel() as channel:
            channel.basic_publish("", name, data, pika.BasicProperties(delivery_mode=2))

    def drop(self, queue: str, attempt_id: str) -> None:
        del attempt_id  # it is the only one that waits
        with self._channel() as channel:
            assert channel.queue_purge(self._name(queue)).method.message_count == 1

    def messages(self) -> list[str]:
        found = []
        for queue in self._queues():
            with self._channel() as channel, suppress(pika.exceptions.ChannelClosedByBroker):
                count = channel.queue_declare(queue, passive=True).method.message_count
                found += [f"{count} in {queue}"] if count else []
        return found

    def held(self) -> list[str]:
        return []  # who dies has its connection closed, and everything goes back

    def flush(self) -> None:
        """Lose the queues themselves, with what waits in them and what workers have from them."""
        for queue in self._queues():
            self._server.api("DELETE", f"/queues/{quote(self._vhost, safe='')}/{quote(queue, safe='')}")

    def restart(self) -> None:
        self._server.settle()
        self._server.kill()
        self._server.start()

    def throttle(self, *, on: bool) -> None:
        self._server.ctl("set_vm_memory_high_watermark", "0.0000001" if on else "0.6")

    def clear(self) -> None:
        self._wire.heal()
        self._server.start()
        for queue in self._queues():
            with self._channel() as channel:
                channel.queue_purge(queue)

    def drop_connections(self) -> None:
        self._server.drop_connections(self._vhost)

    def queues(self) -> list[dict[str, Any]]:
        """Return what the management says of each queue."""
        found: list[dict[str, Any]] = self._server.api("GET", f"/queues/{quote(self._vhost, safe='')}")
        return found

    def _name(self, queue: str) -> str:
        return queue_name(PREFIX, queue)

    def _queues(self) -> list[str]:
        return [one["name"] for one in self.queues() if not one["exclusive"]]  # those are between a worker and itself

    def _channel(self) -> Any:
        return _Channel(self._server.url(self._vhost))


class _Channel:
    """A channel of a test's own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> Any:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        return self._connection.channel()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


class _Celery:
    """How messages look where Celery puts them there and takes them."""

    def _celery_send(self, url: str, queue: str, attempt_id: str, ticket: str) -> None:
        sender = CeleryMedium(Address.read(url), PREFIX)
        assert not sender.publish([Parcel(attempt_id, queue, 0, ticket)], lambda: True)
        sender.close()


class CeleryRedis(RedisMedium, _Celery):
    """The same Redis with Celery's messages."""

    name = "celery on redis"
    keeps_what_the_dead_held = True

    def send(self, queue: str, attempt_id: str, ticket: str) -> None:
        self._celery_send(self._server.url, queue, attempt_id, ticket)

    def send_raw(self, queue: str, data: bytes) -> None:
        with self._server.client() as client:
            client.lpush(self._key(queue), data)

    def drop(self, queue: str, attempt_id: str) -> None:
        with self._server.client() as client:
            items = [one for one in client.lrange(self._key(queue), 0, -1) if attempt_id.encode() in one]
            assert len(items) == 1
            client.lrem(self._key(queue), 1, items[0])

    def messages(self) -> list[str]:
        with self._server.client() as client:
            items = [one for queue in QUEUES for one in client.lrange(self._key(queue), 0, -1)]
            return _attempts_in([*items, *client.hvals(f"{PREFIX}-celery:unacked")])

    def held(self) -> list[str]:
        with self._server.client() as client:
            return _attempts_in(client.hvals(f"{PREFIX}-celery:unacked"))

    def _key(self, queue: str) -> str:
        return f"{PREFIX}-celery:{celery_queue(PREFIX, queue)}"


class CeleryRabbit(RabbitMedium, _Celery):
    """The same RabbitMQ with Celery's messages."""

    name = "celery on rabbitmq"

    def send(self, queue: str, attempt_id: str, ticket: str) -> None:
        self._celery_send(self._server.url(self._vhost), queue, attempt_id, ticket)

    def send_raw(self, queue: str, data: bytes) -> None:
        self._publish(celery_queue(PREFIX, queue), data)

    def _name(self, queue: str) -> str:
        return celery_queue(PREFIX, queue)


def _attempts_in(items: list[bytes]) -> list[str]:
    return sorted(
        {
            found
            for item in items
            for found in re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", item.decode(errors="replace"))
        }
    )
