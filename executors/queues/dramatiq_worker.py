"""A worker of Dramatiq's that hands attempts to an agent: a broker with our consumers, one actor, one middleware.

Of Dramatiq's own middleware there is none: no retries, no limits of time or age, no results.  What becomes of an
attempt is decided in one place, and that is not the broker.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import dramatiq
import structlog
from dramatiq import Middleware

from executors.queues.factory import installed
from executors.queues.hands import Once
from executors.queues.message import NAME, queue_name
from worker import linux

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dramatiq import Broker, MessageProxy, Worker

    from dag.world import Clock
    from executors.queues.address import Address
    from executors.queues.delivery import Delivery
    from executors.queues.hands import Hands
    from executors.queues.rabbit_broker import RabbitBroker
    from executors.queues.redis_broker import QueueBroker

log = structlog.get_logger(__name__)


class Foreman(Middleware):
    """The life of a worker process, and of each message in it."""

    def __init__(self, hands: Hands, *, prefix: str, queues: Sequence[str], is_child: bool) -> None:
        self._hands = hands
        self._prefix = prefix
        self._queues = [queue_name(prefix, queue) for queue in queues]
        self._is_child = is_child
        self._now = threading.local()
        self._once = Once(hands)

    # What Dramatiq calls

    def after_process_boot(self, broker: Broker) -> None:  # noqa: ARG002  # what all hooks get
        """Die with the master; the agent does not, and the next worker takes it over with what it runs."""
        if self._is_child:
            linux.die_with_parent()
            master = multiprocessing.parent_process()
            if master is not None and not master.is_alive():
                os.kill(os.getpid(), signal.SIGKILL)  # it ended before the kernel knew

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        """Serve the queues of the command line, or else those of the settings, with as many messages as threads."""
        worker.queue_prefetch = worker.worker_threads
        names = self._named(worker.consumer_whitelist or self._queues)
        worker.consumer_whitelist = set(names)
        self._hands.take_up([name.removeprefix(f"{self._prefix}.") for name in names], worker.worker_threads)
        ours: Any = broker
        ours.begin(self._hands.room, self._hands.succeed(ours.broker_id))
        for name in names:
            broker.declare_queue(name)

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:  # noqa: ARG002  # what all hooks get
        self._hands.drain()

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:  # noqa: ARG002  # as above
        self._now.delivery = message

    # What the actor does

    def run(self, *, attempt_id: str, ticket: str) -> None:
        """Run an attempt; its message is acknowledged when this returns."""
        delivery: Delivery = self._now.delivery
        delivery.goes_back = not self._once.run(attempt_id, ticket)

    def _named(self, names: Iterable[str]) -> list[str]:
        named = sorted(names)
        for name in named:
            if not name.removeprefix(f"{self._prefix}.") or not name.startswith(f"{self._prefix}."):
                example = queue_name(self._prefix, "default")
                log.critical("a queue at the broker is named with its prefix", found=name, example=example)
                raise SystemExit(2)
        return named


def make_broker(
    address: Address, *, prefix: str, queues: Sequence[str], hands: Hands, clock: Clock, is_child: bool
) -> QueueBroker | RabbitBroker:
    """Return the broker at *address* for a process that works; *is_child*: of a master, with whom it dies."""
    foreman = Foreman(hands, prefix=prefix, queues=queues, is_child=is_child)
    broker: QueueBroker | RabbitBroker
    with installed("dramatiq", address.kind):
        if address.kind == "redis":
            from executors.queues.redis_broker import QueueBroker  # noqa: PLC0415  an extra
            from executors.queues.redis_client import make_client  # noqa: PLC0415  an extra

            broker = QueueBroker(make_client(address), address, namespace=prefix, clock=clock, middleware=[foreman])
        else:
            from executors.queues.rabbit_broker import RabbitBroker  # noqa: PLC0415  an extra

            broker = RabbitBroker(address, middleware=[foreman])
    dramatiq.Actor(
        foreman.run,
        actor_name=NAME,
        queue_name=queue_name(prefix, queues[0]),
        priority=0,
        broker=broker,
        options={},
    )
    return broker
