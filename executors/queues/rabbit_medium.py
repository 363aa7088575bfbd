"""Publishing to RabbitMQ, for Dramatiq's workers: a message counts as sent when it is confirmed."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pika
from pika import exceptions

from executors.queues.delivery import pack
from executors.queues.medium import LATE, Away, Where
from executors.queues.message import queue_name
from executors.queues.rabbit_client import MAX_PRIORITY, declare, explain, is_missing, make_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from executors.queues.address import Address
    from executors.queues.medium import Parcel

#: Short, so that a broker that hangs is known to hang.
_HEARTBEAT: Final = 10
#: Of how many attempts it is remembered where they were published to.
_REMEMBERED: Final = 20_000


class RabbitMedium:
    """A RabbitMQ that is used as a mailbox of many queues."""

    def __init__(self, address: Address, prefix: str) -> None:
        self.address = address
        self._prefix = prefix
        self._parameters = make_parameters(address, name="runyard scheduler", heartbeat=_HEARTBEAT)
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        #: The queues that are there, as far as this connection knows.
        self._declared: set[str] = set()
        self._queues: OrderedDict[str, str] = OrderedDict()

    def probe(self) -> None:
        """Answer heartbeats, and ask for something, so that a broker that hangs is found out."""
        try:
            self._open().basic_qos(prefetch_count=0)
        except Exception as error:  # noqa: BLE001  # pika also fails with what it asserts about a dying connection
            raise self._lose(error) from None

    def publish(self, parcels: Sequence[Parcel], has_time: Callable[[], bool]) -> Mapping[str, str]:
        refused: dict[str, str] = {}
        #: Why nothing can be published to a queue.
        shut: dict[str, str] = {}
        for parcel in sorted(parcels, key=lambda one: -one.priority):
            name = queue_name(self._prefix, parcel.queue)
            if name in shut:
                refused[parcel.attempt_id] = shut[name]
            elif not has_time():
                refused[parcel.attempt_id] = LATE
            else:
                try:
                    self._send(name, parcel)
                except exceptions.NackError:
                    refused[parcel.attempt_id] = f"RabbitMQ does not take it: the queue {name} is full"
                except exceptions.AMQPChannelError as error:
                    refused[parcel.attempt_id] = shut[name] = self.address.scrub(f"the queue {name}: {explain(error)}")
                    self._channel = None
        return refused

    def _send(self, name: str, parcel: Parcel) -> None:
        """Publish one message; once more where the connection was lost since the last one, or the queue."""
        was_open = self._connection is not None
        try:
            self._send_once(name, parcel)
        except exceptions.UnroutableError:
            self._declared.discard(name)
            self._send_once(name, parcel)
        except exceptions.AMQPChannelError:
            raise
        except Exception as error:  # noqa: BLE001  # as above
            away = self._lose(error)
            if not was_open:
                raise away from None
            try:
                self._send_once(name, parcel)
            except exceptions.AMQPChannelError:
                raise
            except Exception as another:  # noqa: BLE001  # as above
                raise self._lose(another) from None

    def _send_once(self, name: str, parcel: Parcel) -> None:
        channel = self._open()
        if name not in self._declared:
            declare(channel, name)
            self._declared.add(name)
        priority = min(max(parcel.priority, 0), MAX_PRIORITY)
        channel.basic_publish(
            exchange="",
            routing_key=name,
            body=pack(name, parcel.attempt_id, parcel.ticket, priority),
            properties=pika.BasicProperties(delivery_mode=2, priority=priority, message_id=parcel.attempt_id),
            mandatory=True,
        )
        self._queues[parcel.attempt_id] = name
        if len(self._queues) > _REMEMBERED:
            self._queues.popitem(last=False)

    def locate(self, attempt_ids: Sequence[str]) -> Mapping[str, Where]:
        """Say what RabbitMQ proves: nothing of a single message, but something of a queue that is empty or gone."""
        empty = {name: self._is_empty(name) for name in {self._queues.get(each, "") for each in attempt_ids} if name}
        return {
            each: Where.NOT_THERE if empty.get(self._queues.get(each, "")) else Where.UNSURE for each in attempt_ids
        }

    def _is_empty(self, name: str) -> bool:
        """Whether nothing lies in a queue, and nobody has anything from it."""
        try:
            found = self._open().queue_declare(queue=name, passive=True).method
        except exceptions.ChannelClosedByBroker as error:
            self._channel = None
            self._declared.discard(name)
            return is_missing(error)
        except Exception as error:  # noqa: BLE001  # as above
            raise self._lose(error) from None
        return bool(found.message_count == 0 and found.consumer_count == 0)

    def forget(self, attempt_ids: Sequence[str]) -> None:
        """Do nothing: a message cannot be taken out of the middle of a queue."""

    def close(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            with suppress(Exception):  # it may be closed already, in more ways than one
                connection.close()

    def _open(self) -> Any:
        """Return a channel that confirms what was published."""
        if self._connection is None:
            self._connection = pika.BlockingConnection(self._parameters)
            self._declared.clear()
            self._channel = None
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def _lose(self, error: Exception) -> Away:
        """Forget the connection; return why."""
        reason = self.address.scrub(explain(error))
        self.close()
        return Away(reason)
