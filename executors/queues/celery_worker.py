"""A worker of Celery's that hands attempts to an agent: one task, on a pool of threads that only wait."""

from __future__ import annotations

import logging
import os
import re
import threading
import warnings
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery import bootsteps, signals
from celery.concurrency.thread import TaskPool
from celery.exceptions import CPendingDeprecationWarning, Reject
from celery.worker.request import Request
from celery.worker.strategy import default, logger
from kombu import compression

from executors.queues.celery_app import celery_queue, make_app, prefix_of_queues
from executors.queues.hands import Once
from executors.queues.medium import Away
from executors.queues.message import NAME, NotOurs, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from dag.world import Clock
    from executors.queues.address import Address
    from executors.queues.celery_medium import CeleryMedium
    from executors.queues.hands import Hands

log = structlog.get_logger(__name__)

_TICKET: Final = re.compile(r"rt[0-9]+\.[A-Za-z0-9_-]+")


def make_worker_app(
    address: Address, *, prefix: str, queues: Sequence[str], slots: int, hands: Hands, once: Once | None = None
) -> Celery:
    """Return the application of a process that works; it begins when Celery has started its worker."""
    app = make_app(address, prefix, serves=queues)
    # It warns after every outage of what its next release will do, which these settings have decided.
    warnings.simplefilter("ignore", CPendingDeprecationWarning)
    app.set_default()  # in the threads of the pool, Celery asks for whichever this is
    app.conf.worker_concurrency = slots
    offers = once or Once(hands)

    def run(*, v: int, attempt_id: str, ticket: str) -> None:  # noqa: ARG001  # what a message has
        if not offers.run(attempt_id, ticket):
            raise Reject("not started here", requeue=True)

    app.task(name=NAME, Request=_WakingRequest, Strategy=f"{__name__}:strict", typing=False, shared=False)(run)
    _take_nothing_else(app)
    app.steps["consumer"].add(_Waker)
    _connect(hands, prefix)
    return app


def _take_nothing_else(app: Celery) -> None:
    """Forget the tasks that Celery brings along, which run and publish others, and all ways to pack a message.

    Whoever can write to the broker would have them run in this process, or fill its memory with a small message.
    """
    app.finalize()
    for name in [name for name in app.tasks if name != NAME]:
        app.tasks.unregister(name)
    compression._decoders.clear()  # noqa: SLF001  # it has no other way to be told


def _connect(hands: Hands, prefix: str) -> None:
    """Hear from Celery what becomes of its worker."""

    def on_setup(instance: Any, **_: Any) -> None:
        if "thread" not in str(getattr(instance.pool_cls, "__module__", instance.pool_cls)):
            log.critical("attempts are run by an agent, and not in processes of Celery's: use -P threads")
            raise SystemExit(2)
        names = sorted(instance.app.amqp.queues.consume_from)
        beginning = f"{prefix_of_queues(prefix)}."
        for name in names:
            if not name.startswith(beginning):
                example = celery_queue(prefix, "default")
                log.critical("a queue at the broker is named with its prefix", found=name, example=example)
                raise SystemExit(2)
        hands.take_up([name.removeprefix(beginning) for name in names], instance.concurrency)

    draining: list[threading.Thread] = []

    def on_shutting_down(**_: Any) -> None:
        # From a signal handler, which must not wait; the threads of the pool are waited for by Celery.
        draining.append(threading.Thread(target=hands.drain, name="runyard-drain"))
        draining[-1].start()

    def on_shutdown(**_: Any) -> None:
        # A worker that ends for want of anything better leaves its tasks to the next one.
        for each in draining:
            each.join()

    signals.celeryd_after_setup.connect(on_setup, weak=False)
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    signals.worker_shutdown.connect(on_shutdown, weak=False)


def strict(task: Any, app: Celery, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Return what Celery does with a message that names our task: nothing, unless a scheduler of ours can have sent it.

    Celery would hold back a message that wishes to be run in a hundred years, send others that it names as callbacks,
    and never let go of one whose arguments are none.
    """
    handle = default(task, app, consumer, **options)

    def receive(message: Any, content: Any, ack: Any, reject: Any, callbacks: Any, **more: Any) -> Any:
        try:
            _check(message)
        except NotOurs as why:
            log.warning("a message was thrown away", reason=str(why))
            message.ack_log_error(logger, consumer.connection_errors)
            return None
        return handle(message, content, ack, reject, callbacks, **more)

    return receive


def _check(message: Any) -> None:
    match message.payload:
        case [[], found, dict(wishes)] if not any(wishes.values()):
            read(found)
        case _:
            raise NotOurs("not what a scheduler of Runyard sends")
    limits = message.headers.get("timelimit") or ()
    if any(message.headers.get(name) for name in _WISHES) or any(limits) or not message.headers.get("id"):
        raise NotOurs("a message with wishes of its own")


_WISHES: Final = ("eta", "expires", "shadow", "group", "retries", "stamps")


class NoTickets(logging.Filter):
    """Takes tickets out of log lines: Celery quotes whole messages that it does not understand."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if _TICKET.search(text):
            record.msg, record.args = _TICKET.sub("rt***", text), ()
        return True


class _Waker(bootsteps.StartStopStep):  # type: ignore[misc]  # it has no types
    """Lets a thread of the pool wake the event loop.

    What a thread wants to have acknowledged waits for the loop's next turn, and the loop sleeps for up to a second; as
    long as nothing is acknowledged, no further message comes.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)
    #: Of the worker in this process.
    bell: int | None = None

    def __init__(self, consumer: Any, **_: Any) -> None:
        super().__init__(consumer)
        self._ends: tuple[int, int] | None = None

    def start(self, consumer: Any) -> None:
        if consumer.hub is None:
            return
        ear, bell = self._ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        consumer.hub.add_reader(ear, self._hear, ear)
        _Waker.bell = bell

    def stop(self, consumer: Any) -> None:
        if self._ends is not None:
            ends, self._ends, _Waker.bell = self._ends, None, None
            if consumer.hub is not None:
                consumer.hub.remove(ends[0])
            for end in ends:
                os.close(end)

    terminate = stop

    @staticmethod
    def _hear(ear: int) -> None:
        os.read(ear, 4096)

    @staticmethod
    def wake() -> None:
        bell = _Waker.bell
        if bell is not None:
            try:
                os.write(bell, b"!")
            except OSError:
                return  # it rings already, or is being taken down


class _WakingRequest(Request):  # type: ignore[misc]  # it has no types
    """A message that wakes the event loop once it is dealt with."""

    def acknowledge(self) -> None:
        super().acknowledge()
        _Waker.wake()

    def reject(self, requeue: bool = False) -> None:  # noqa: FBT001,FBT002  # as Celery calls it
        super().reject(requeue=requeue)
        _Waker.wake()


class WaiterPool(TaskPool):  # type: ignore[misc]  # it has no types
    """A pool that lets go of its threads: they wait for attempts, which go on whatever becomes of Celery."""

    def on_stop(self) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)


class Stall:
    """Finds a worker that takes nothing although there is something to take, and that has threads for it.

    Celery has forgotten to listen after an outage again and again, in one release after the other.
    """

    def __init__(self, medium: CeleryMedium, queues: Sequence[str], once: Once, slots: int, clock: Clock) -> None:
        self._medium = medium
        self._queues = queues
        self._once = once
        self._slots = slots
        self._clock = clock
        self._seen = -1
        self._since: float | None = None

    def lasts(self) -> float:
        """Return for how many seconds it has lasted."""
        try:
            waits = any(self._medium.waiting(queue) for queue in self._queues)
        except Away:
            waits = False
        seen, busy = self._once.seen, self._once.busy
        if not waits or seen != self._seen or busy >= self._slots:
            self._seen, self._since = seen, None
            return 0
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since
