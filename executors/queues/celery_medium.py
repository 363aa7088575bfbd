"""Publishing for Celery's workers, to either broker."""

from __future__ import annotations

import json
import socket
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from amqp.exceptions import AMQPError, MessageNacked  # type: ignore[import-untyped]  # it has no types
from kombu.exceptions import OperationalError

from executors.queues import amqp_words
from executors.queues.celery_app import MAX_PRIORITY, celery_queue, make_app, prefix_of_queues
from executors.queues.medium import LATE, Away, Where
from executors.queues.message import NAME, body

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redis import Redis

    from executors.queues.address import Address
    from executors.queues.medium import Parcel

_CONFIRM_SECONDS: Final = 4.0
#: Of how many attempts it is remembered where they were published to.
_REMEMBERED: Final = 20_000
#: A list that is longer is not looked through.
_LONGEST: Final = 5_000
#: What a library would print instead of the arguments, which are a secret.
_INSTEAD: Final = "(hidden)"


class CeleryMedium:
    """A broker that Celery's workers listen to."""

    def __init__(self, address: Address, prefix: str) -> None:
        self.address = address
        self._prefix = prefix
        self._app = make_app(address, prefix)
        self._redis = _client(address) if address.kind == "redis" else None
        self._connection: Any = None
        self._producer: Any = None
        self._queues: OrderedDict[str, str] = OrderedDict()

    def probe(self) -> None:
        """Ask for something, and write where that can be done without a message: one that answers may be full."""
        try:
            connection = self._open()
            if self._redis is not None:
                self._redis.sadd(self._key(_INDEX), celery_queue(self._prefix, "default"))
            else:
                connection.heartbeat_check()
                connection.default_channel.basic_qos(0, 0, False)  # noqa: FBT003  # it has no names
        except Exception as error:  # noqa: BLE001  # kombu passes on what four libraries raise
            raise self._lose(error) from None

    def publish(self, parcels: Sequence[Parcel], has_time: Callable[[], bool]) -> Mapping[str, str]:
        refused: dict[str, str] = {}
        #: Why nothing can be published to a queue.
        shut: dict[str, str] = {}
        for parcel in sorted(parcels, key=lambda one: -one.priority):
            name = celery_queue(self._prefix, parcel.queue)
            if name in shut:
                refused[parcel.attempt_id] = shut[name]
            elif not has_time():
                refused[parcel.attempt_id] = LATE
            else:
                why = self._send(name, parcel)
                if why is not None:
                    refused[parcel.attempt_id] = shut[name] = f"the queue {name}: {why}"
        return refused

    def _send(self, name: str, parcel: Parcel) -> str | None:
        """Publish one message, once more where the connection was lost since the last one; return why not."""
        was_open = self._connection is not None
        try:
            return self._send_once(name, parcel)
        except Exception as error:  # noqa: BLE001  # as above
            away = self._lose(error)
            if not was_open:
                raise away from None
        try:
            return self._send_once(name, parcel)
        except Exception as error:  # noqa: BLE001  # as above
            raise self._lose(error) from None

    def _send_once(self, name: str, parcel: Parcel) -> str | None:
        self._open()
        try:
            self._app.send_task(
                NAME,
                kwargs=body(parcel.attempt_id, parcel.ticket),
                task_id=parcel.attempt_id,
                queue=name,
                producer=self._producer,
                retry=False,
                ignore_result=True,
                argsrepr=_INSTEAD,
                kwargsrepr=_INSTEAD,
                priority=min(max(parcel.priority, 0), MAX_PRIORITY),
                confirm_timeout=_CONFIRM_SECONDS,
            )
        except Exception as error:
            if not _is_about_a_queue(error):
                raise
            why = self.address.scrub(explain(error))
            self.close()  # its channel is closed; a new connection is the simplest way to a new one
            return why
        self._queues[parcel.attempt_id] = name
        if len(self._queues) > _REMEMBERED:
            self._queues.popitem(last=False)
        return None

    def locate(self, attempt_ids: Sequence[str]) -> Mapping[str, Where]:
        try:
            if self.address.kind == "redis":
                return self._locate_in_lists(attempt_ids)
            names = {name for each in attempt_ids if (name := self._queues.get(each))}
            empty = {name for name in names if self._is_empty(name)}
        except Exception as error:  # noqa: BLE001  # as above
            raise self._lose(error) from None
        return {each: Where.NOT_THERE if self._queues.get(each) in empty else Where.UNSURE for each in attempt_ids}

    def _locate_in_lists(self, attempt_ids: Sequence[str]) -> dict[str, Where]:
        """Look through the lists, which are short: what is offered is what can start now.

        What a worker has taken is in a hash of its own, as long as nobody puts it back.  A dead worker does not, so
        that this says nothing.
        """
        assert self._redis is not None  # noqa: S101  # the address says that it is one
        client: Any = self._redis
        self._redis.sadd(self._key(_INDEX), *(set(self._queues.values()) or {celery_queue(self._prefix, "default")}))
        names = [name.decode() for name in client.smembers(self._key(_INDEX))]
        lists = [client.lrange(self._key(name), 0, _LONGEST) for name in names]
        taken = client.hvals(self._key("unacked"))
        if any(len(one) > _LONGEST for one in lists) or len(taken) > _LONGEST:
            return dict.fromkeys(attempt_ids, Where.UNSURE)
        waiting = {_task_id(item) for one in lists for item in one}
        held = {_task_id(item) for item in taken}
        return {
            each: Where.THERE if each in waiting else Where.UNSURE if each in held else Where.NOT_THERE
            for each in attempt_ids
        }

    def _key(self, name: str) -> str:
        return f"{prefix_of_queues(self._prefix)}:{name}"

    def waiting(self, queue: str) -> int:
        """Return how many messages lie in *queue*, taken by nobody; raise Away."""
        name = celery_queue(self._prefix, queue)
        try:
            if self._redis is not None:
                return int(self._redis.llen(self._key(name)))
            return int(self._open().default_channel.queue_declare(queue=name, passive=True).message_count)
        except Exception as error:  # noqa: BLE001  # as above
            raise self._lose(error) from None

    def _is_empty(self, name: str) -> bool:
        """Whether nothing lies in a queue of RabbitMQ's, and nobody has anything from it."""
        try:
            found = self._open().default_channel.queue_declare(queue=name, passive=True)
        except AMQPError as error:
            if getattr(error, "reply_code", 0) != amqp_words.NOT_FOUND:
                raise
            self.close()
            return True
        return bool(found.message_count == 0 and found.consumer_count == 0)

    def forget(self, attempt_ids: Sequence[str]) -> None:
        """Do nothing: the metastore refuses the start."""

    def close(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if self._redis is not None:
            self._redis.connection_pool.disconnect()
        if connection is not None:
            with suppress(Exception):  # it may be closed already, in more ways than one
                connection.collect(socket_timeout=1)

    def _open(self) -> Any:
        if self._connection is None:
            connection = self._app.connection_for_write()
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            self._connection = connection
            self._producer = self._app.amqp.Producer(connection)
        return self._connection

    def _lose(self, error: Exception) -> Away:
        """Forget the connection; return why."""
        reason = self.address.scrub(explain(error))
        self.close()
        return Away(reason)


def _client(address: Address) -> Redis:
    from executors.queues.redis_client import make_client  # noqa: PLC0415  only with a Redis

    return make_client(address)


#: Beside the keys of kombu's, which has none that says so: which lists there are.
_INDEX: Final = "runyard-queues"


def _task_id(item: bytes) -> str:
    """Return which task a list's or a hash's item is about; "" where that is nothing of Celery's."""
    try:
        found = json.loads(item)
        message = found[0] if isinstance(found, list) else found
        return str(message["headers"]["id"])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return ""


def _is_about_a_queue(error: BaseException) -> bool:
    """Whether a channel was closed, and not a connection: another queue may do."""
    while isinstance(error, OperationalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MessageNacked):
        return True
    if not isinstance(error, AMQPError):
        return False
    code = int(getattr(error, "reply_code", None) or 0)
    is_login = "login" in str(error).lower()
    return code in _OF_A_QUEUE and not is_login


_OF_A_QUEUE: Final = (403, 404, 405, 406, 506)


def explain(error: BaseException) -> str:
    """Return why the broker cannot be used; the caller takes out secrets."""
    while isinstance(error, OperationalError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, MessageNacked):
        return "RabbitMQ does not take it: it is full"
    said = " ".join(str(error).split())
    if isinstance(error, AMQPError) and getattr(error, "reply_code", None):
        return amqp_words.of(int(error.reply_code), said)
    if type(error).__module__.startswith("redis"):
        from executors.queues import redis_errors  # noqa: PLC0415  only with a Redis

        return redis_errors.explain(error)  # type: ignore[arg-type]  # it is one of Redis's
    words = {socket.gaierror: "its host name is not known", TimeoutError: "it does not answer"}
    for kind, reason in words.items():
        if isinstance(error, kind):
            return f"{reason} ({said})"
    return f"it cannot be reached ({said or type(error).__name__})"
