"""Dramatiq's broker on RabbitMQ, with consumers that take no more than this process can run.

RabbitMQ pushes as many messages as a consumer allows, and each queue has a consumer.  Ours subscribe for the room that
there is, and withdraw when another queue has filled it: what was pushed goes back to where other workers find it.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pika
import structlog
from dramatiq import Consumer
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from executors.queues.delivery import Delivery, unpack
from executors.queues.message import NotOurs
from executors.queues.rabbit_client import MAX_PRIORITY, declare, explain, make_parameters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dramatiq import MessageProxy, Middleware

    from executors.queues.address import Address
    from executors.queues.room import Room

log = structlog.get_logger(__name__)

#: Whoever waits for an answer of a broker that hangs waits about that long.
_HEARTBEAT: Final = 15
#: How long one wait lasts: a consumer that is to stop sees it then.
_WAIT: Final = 1.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0
_FAREWELL: Final = 3.0


class RabbitBroker(RabbitmqBroker):
    """Dramatiq's RabbitMQ broker with our queues and consumers."""

    def __init__(self, address: Address, *, middleware: list[Middleware]) -> None:
        parameters = make_parameters(address, name="runyard worker", heartbeat=_HEARTBEAT)
        super().__init__(host=parameters.host, confirm_delivery=True, max_priority=MAX_PRIORITY, middleware=middleware)
        self.parameters = parameters
        self.address = address
        #: Nothing at RabbitMQ is kept by name for a consumer: what a dead one had is put back when its connection ends.
        self.broker_id = ""
        self._room: Room | None = None

    def begin(self, room: Room, dead: list[str]) -> None:  # noqa: ARG002  # see above
        """Consume from now on, as far as there is *room*."""
        self._room = room

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Make a queue known, without the delayed one and the one for dead letters beside it, which nobody fills."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.queues_pending.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure and queue_name in self.queues_pending:
            declare(self.channel, queue_name)
            self.queues_pending.discard(queue_name)

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        if self._room is None:
            raise RuntimeError("a worker consumes; this process is none")
        return RabbitConsumer(self, queue_name, prefetch, timeout / 1000, self._room)


class _QueueDeleted(Exception):
    """RabbitMQ has ended the subscription by itself."""


class _Handle(NamedTuple):
    """Where a delivery came from: its number means nothing on another connection."""

    connection: pika.BlockingConnection
    channel: Any
    tag: int
    subscription: int


class RabbitConsumer(Consumer):
    """Takes messages of one queue as far as there is room; survives an outage by itself.

    A connection belongs to the thread that iterates; the others leave what they want in its mailbox.
    """

    def __init__(self, broker: RabbitBroker, queue_name: str, prefetch: int, wait: float, room: Room) -> None:
        self._broker = broker
        self._queue = queue_name
        self._prefetch = prefetch
        self._wait = min(wait, _WAIT)
        self._room = room
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        self._deliveries: Iterator[tuple[Any, Any, bytes]] | None = None
        #: Grows with every subscription; how many messages the present one may still bring.
        self._subscription = 0
        self._allowed = 0
        self._pause = 0.0
        room.on_change(self._wake)

    def __next__(self) -> MessageProxy | None:
        try:
            return self._next()
        except Exception as error:  # noqa: BLE001  # pika also fails with what it asserts about a dying connection
            self._wait_out(error)
            return None

    def _next(self) -> MessageProxy | None:
        if self._connection is None:
            self._connect()
        free = self._room.free
        if self._deliveries is not None and free > self._allowed == 0:
            self._withdraw()  # to come again, and allow more
        if self._deliveries is None:
            if not free:
                # Room or an acknowledgement ends this wait.
                self._connection.process_data_events(time_limit=self._wait)  # type: ignore[union-attr]
                return None
            self._subscribe(min(free, self._prefetch))
        try:
            method, _, body = next(self._deliveries)  # type: ignore[arg-type]  # it has just been made
        except StopIteration:
            raise _QueueDeleted("its queue was deleted") from None
        if method is None:
            if not self._room.is_open and self._deliveries is not None:
                self._withdraw()
            return None
        return self._receive(method.delivery_tag, body)

    def _receive(self, tag: int, body: bytes) -> MessageProxy | None:
        self._allowed -= 1
        try:
            offer = unpack(body)
        except NotOurs as why:
            log.warning("a message was thrown away", queue=self._queue, reason=str(why), bytes=len(body))
            self._channel.basic_ack(tag)
            self._allowed += 1
            return None
        if not self._room.take(1):
            self._channel.basic_nack(tag, requeue=True)
            self._withdraw()
            return None
        assert self._connection is not None  # noqa: S101  # somebody has just delivered over it
        handle = _Handle(self._connection, self._channel, tag, self._subscription)
        return Delivery(self._queue, offer, handle, self._settle)

    def _connect(self) -> None:
        self._connection = pika.BlockingConnection(self._broker.parameters)
        self._channel = self._connection.channel()
        declare(self._channel, self._queue)
        if self._pause:
            log.info("the broker is back", broker=self._broker.address.shown, queue=self._queue)
            self._pause = 0.0

    def _subscribe(self, count: int) -> None:
        self._channel.basic_qos(prefetch_count=count)
        self._subscription += 1
        self._allowed = count
        self._deliveries = self._channel.consume(self._queue, inactivity_timeout=self._wait)

    def _withdraw(self) -> None:
        """Have nothing more pushed, and put back what is on its way."""
        self._deliveries = None
        self._channel.cancel()

    def ack(self, message: MessageProxy) -> None:
        if isinstance(message, Delivery):
            message.settle()

    nack = ack  # Dramatiq's own retries and dead letters are not used

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        for message in messages:
            if isinstance(message, Delivery):
                message.goes_back = True
                message.settle()

    def _settle(self, message: Delivery) -> None:
        handle: _Handle = message.handle
        with suppress(Exception):  # that connection is closed: RabbitMQ has put the message back
            handle.connection.add_callback_threadsafe(partial(self._answer, handle, goes_back=message.goes_back))
        self._room.give()

    def _answer(self, handle: _Handle, *, goes_back: bool) -> None:
        if goes_back:
            handle.channel.basic_nack(handle.tag, requeue=True)
        else:
            handle.channel.basic_ack(handle.tag)
        if handle.subscription == self._subscription:
            self._allowed += 1

    def _wake(self) -> None:
        connection = self._connection
        if connection is not None:
            with suppress(Exception):  # it is being closed
                connection.add_callback_threadsafe(_nothing)

    def close(self) -> None:
        """Say what was to be said, and hang up: RabbitMQ puts back what was not acknowledged."""
        self._room.forget(self._wake)
        # A broker that hangs would not let us go before its heartbeat is missed.
        farewell = threading.Thread(target=self._hang_up, daemon=True)
        farewell.start()
        farewell.join(_FAREWELL)

    def _wait_out(self, error: Exception) -> None:
        if not self._pause:
            reason = self._broker.address.scrub(explain(error))
            log.warning("the broker is away", broker=self._broker.address.shown, queue=self._queue, reason=reason)
        self._hang_up()
        self._pause = min(max(_FIRST_PAUSE, self._pause * 2), _LONGEST_PAUSE)
        time.sleep(self._pause)

    def _hang_up(self) -> None:
        connection, self._connection, self._channel, self._deliveries = self._connection, None, None, None
        self._subscription += 1
        if connection is not None:
            with suppress(Exception):  # it may be closed already, in more ways than one
                said = threading.Event()
                connection.add_callback_threadsafe(said.set)
                while not said.is_set():
                    connection.process_data_events(time_limit=0)
                connection.close()


def _nothing() -> None:
    """Only end a wait."""
