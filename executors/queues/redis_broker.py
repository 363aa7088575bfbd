"""Dramatiq's broker on Redis, with messages that are there once, and consumers that are woken.

Dramatiq looks for messages at intervals that grow to a second, and finds what a dead worker held by chance
(``maintenance``).  Here a consumer waits in Redis itself, so that a message is fetched when it comes and an idle worker
asks once a second; and what a dead worker held is put back on time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
import structlog
from dramatiq import Consumer
from dramatiq.brokers.redis import RedisBroker

from executors.queues import redis_scripts
from executors.queues.delivery import Delivery, unpack
from executors.queues.message import NotOurs
from executors.queues.redis_errors import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dramatiq import Message, MessageProxy, Middleware

    from dag.world import Clock
    from executors.queues.address import Address
    from executors.queues.room import Room

log = structlog.get_logger(__name__)

#: A worker that Redis has not heard of for so long is dead: what it held is put back.
HEARTBEAT_TIMEOUT: Final = 60.0
#: How often a consumer looks for dead workers, and is heard of while it has no room.
_MAINTENANCE: Final = 10.0
#: How long one wait lasts: a consumer that is to stop sees it then.
_WAIT: Final = 1.0
#: How often to look where Redis cannot wake us.
_POLL: Final = 0.05
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0


class QueueBroker(RedisBroker):
    """Dramatiq's Redis broker with our scripts, ids and consumers."""

    def __init__(
        self,
        client: redis.Redis,
        address: Address,
        *,
        namespace: str,
        clock: Clock,
        middleware: list[Middleware],
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]  # it has no annotations
            client=client,
            namespace=namespace,
            middleware=middleware,
            # Nothing of Dramatiq's own maintenance is left but for who calls it by name.
            maintenance_chance=50_000,
            heartbeat_timeout=int(HEARTBEAT_TIMEOUT * 1000),
        )
        self.address = address
        self.clock = clock
        self._room: Room | None = None
        #: What processes are called that died, and were in our place.
        self._dead: list[str] = []
        self.keys = Keys(client, namespace)

    def begin(self, room: Room, dead: list[str]) -> None:
        """Consume from now on, as far as there is *room*, and first what *dead* consumers had taken."""
        self._room = room
        self._dead = dead

    def rescue(self) -> None:
        """Put back what dead workers hold."""
        if rescued := self.keys.rescue(*self._dead):
            log.warning("put back what dead workers held", messages=rescued)
        self._dead = []

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known, without the delayed one beside it: nobody fills it, and it would be polled."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Publish *message* under its own id, once."""
        if delay is not None:
            raise ValueError("Runyard delays nothing at the broker: what is in a queue can start now")
        self.emit_before("enqueue", message, delay)
        self.keys.publish(message.queue_name, [(message.message_id, message.encode())])
        self.emit_after("enqueue", message, delay)
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        if self._room is None:
            raise RuntimeError("a worker consumes; this process is none")
        return RedisConsumer(self, queue_name, prefetch, timeout / 1000, self._room)

    def close(self) -> None:
        self.client.close()


class Keys:
    """The scripts, with names and types."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._beginning = f"{namespace}:"
        self._publish = client.register_script(redis_scripts.PUBLISH)
        self._fetch = client.register_script(redis_scripts.FETCH)
        self._ack = client.register_script(redis_scripts.ACK)
        self._keep = client.register_script(redis_scripts.KEEP)
        self._put_back = client.register_script(redis_scripts.PUT_BACK)
        self._rescue = client.register_script(redis_scripts.RESCUE)
        self._locate = client.register_script(redis_scripts.LOCATE)
        self._forget = client.register_script(redis_scripts.FORGET)

    def publish(self, queue: str, messages: Iterable[tuple[str, bytes]]) -> None:
        self._call(self._publish, queue, *(part for message in messages for part in message))

    def fetch(self, queue: str, worker: str, most: int) -> list[tuple[str, bytes]]:
        found = self._call(self._fetch, queue, worker, most)
        return [(found[i].decode(errors="surrogateescape"), found[i + 1]) for i in range(0, len(found), 2)]

    def ack(self, queue: str, worker: str, message_id: str) -> None:
        self._call(self._ack, queue, worker, message_id)

    def put_back(self, queue: str, worker: str, message_ids: Iterable[str]) -> None:
        self._call(self._put_back, queue, worker, *message_ids)

    def keep(self, queue: str, worker: str, message_ids: Iterable[str]) -> None:
        self._call(self._keep, queue, worker, *message_ids)

    def rescue(self, *workers: str) -> int:
        """Put back what dead workers hold: *workers*, and those that have not been heard of."""
        rescued: int = self._call(self._rescue, int(HEARTBEAT_TIMEOUT * 1000), *workers)
        return rescued

    def locate(self, message_ids: Iterable[str]) -> set[str]:
        return {found.decode() for found in self._call(self._locate, *message_ids)}

    def forget(self, message_ids: Iterable[str]) -> None:
        self._call(self._forget, *message_ids)

    def _call(self, script: Callable[..., Any], *args: object) -> Any:
        return script(keys=[self._beginning], args=args)


class RedisConsumer(Consumer):
    """Takes messages of one queue as far as there is room; survives an outage by itself."""

    def __init__(self, broker: QueueBroker, queue_name: str, prefetch: int, wait: float, room: Room) -> None:
        self._broker = broker
        self._keys = broker.keys
        self._queue = queue_name
        self._list = f"{broker.namespace}:{queue_name}"
        self._prefetch = prefetch
        self._wait = min(wait, _WAIT)
        self._room = room
        self._fetched: deque[tuple[str, bytes]] = deque()
        #: What this consumer has from the broker: fetched, or in a thread's hands.
        self._held: set[str] = set()
        self._lock = threading.Lock()
        #: What could not be settled when it was due.
        self._late: deque[tuple[str, bool]] = deque()
        self._next_maintenance = 0.0
        self._can_wait = True
        #: An answer was lost: perhaps Redis has given us messages that we do not know of.
        self._in_doubt = False
        self._pause = 0.0

    def __next__(self) -> MessageProxy | None:
        try:
            if not self._fetched:
                self._fetch()
            found = self._open_next()
        except redis.RedisError as error:
            self._wait_out(error)
            return None
        if self._pause:
            log.info("the broker is back", broker=self._broker.address.shown, queue=self._queue)
            self._pause = 0.0
        return found

    def _fetch(self) -> None:
        """Take messages, or wait for the first one, or for room."""
        self._settle_late()
        self._maintain()
        room = self._room.take(self._prefetch)
        if not room:
            self._room.wait(self._wait)
            return
        try:
            found = self._keys.fetch(self._queue, self._broker.broker_id, room)
        except Exception:
            self._room.give(room)
            self._in_doubt = True
            raise
        self._room.give(room - len(found))
        with self._lock:
            self._held.update(message_id for message_id, _ in found)
        self._fetched.extend(found)
        if not found:
            self._wait_for_messages()

    def _maintain(self) -> None:
        if self._in_doubt:
            with self._lock:
                held = list(self._held)
            self._keys.keep(self._queue, self._broker.broker_id, held)
            self._in_doubt = False
        now = self._broker.clock.monotonic()
        if now >= self._next_maintenance:
            self._keys.fetch(self._queue, self._broker.broker_id, 0)  # to be heard of, before the dead are counted
            self._broker.rescue()
            self._next_maintenance = now + _MAINTENANCE

    def _wait_for_messages(self) -> None:
        """Wait for a message without taking it: it is moved from the end of the list to the end of the list."""
        if self._can_wait:
            try:
                self._broker.client.blmove(self._list, self._list, int(self._wait) or 1, "RIGHT", "RIGHT")
            except redis.ResponseError as error:
                log.warning("Redis cannot wake consumers; they look often", reason=explain(error))
                self._can_wait = False
        else:
            time.sleep(_POLL)

    def _open_next(self) -> MessageProxy | None:
        while self._fetched:
            message_id, data = self._fetched.popleft()
            try:
                return Delivery(self._queue, unpack(data), message_id, self._settle)
            except NotOurs as why:
                log.warning("a message was thrown away", queue=self._queue, reason=str(why), bytes=len(data))
                self._done_with(message_id, goes_back=False)
        return None

    def ack(self, message: MessageProxy) -> None:
        if isinstance(message, Delivery):
            message.settle()

    nack = ack  # Dramatiq's own retries and dead letters are not used

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        for message in messages:
            if isinstance(message, Delivery):
                message.goes_back = True
                message.settle()

    def close(self) -> None:
        """Put back what was fetched and no thread has seen."""
        while self._fetched:
            self._done_with(self._fetched.popleft()[0], goes_back=True)
        with suppress(redis.RedisError):  # then they come again, and the API says that they are over
            self._settle_late()

    def _settle(self, message: Delivery) -> None:
        self._done_with(message.handle, goes_back=message.goes_back)

    def _done_with(self, message_id: str, *, goes_back: bool) -> None:
        self._room.give()
        try:
            self._tell(message_id, goes_back=goes_back)
        except redis.RedisError:
            # The thread has better things to do than to wait for Redis: it is told when it is back.
            self._late.append((message_id, goes_back))

    def _tell(self, message_id: str, *, goes_back: bool) -> None:
        if goes_back:
            self._keys.put_back(self._queue, self._broker.broker_id, [message_id])
        else:
            self._keys.ack(self._queue, self._broker.broker_id, message_id)
        with self._lock:
            self._held.discard(message_id)

    def _settle_late(self) -> None:
        while self._late:
            message_id, goes_back = self._late[0]
            self._tell(message_id, goes_back=goes_back)
            self._late.popleft()

    def _wait_out(self, error: redis.RedisError) -> None:
        if not self._pause:
            reason = self._broker.address.scrub(explain(error))
            log.warning("the broker is away", broker=self._broker.address.shown, queue=self._queue, reason=reason)
        self._pause = min(max(_FIRST_PAUSE, self._pause * 2), _LONGEST_PAUSE)
        time.sleep(self._pause)
