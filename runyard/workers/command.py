"""What ``runyard worker`` is: a library's worker in this process, with our log, our signals and our exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

import structlog

from executors.queues.factory import installed
from runyard import journal, misspelled
from runyard.exits import Exit, Stop, in_words
from runyard.workers.host import Host, broker_address
from runyard.world import SystemClock

if TYPE_CHECKING:
    from runyard.settings import WorkerSettings

log = structlog.get_logger(__name__)


#: How long threads that talk to the broker may take to let go of it, in milliseconds; attempts have ended before.
_FAREWELL: Final = 20_000


class End:
    """Why the worker is to end: a signal, or the API's refusal."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.refused: str | None = None

    def refuse(self, why: str) -> None:
        self.refused = why
        self.came.set()

    def listen(self) -> None:
        """Be told by the first SIGTERM or SIGINT; the second one ends the process at once, like a crash."""

        def on_signal(number: int, frame: object) -> None:  # noqa: ARG001  # what a handler gets
            if self.came.is_set():
                sys.stderr.write("runyard: ended at once\n")
                os._exit(128 + number)
            self.came.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)

    def say(self) -> None:
        """Stop where it was the API that ended it."""
        log.info("stopped")
        if self.refused is not None:
            raise Stop(Exit.REFUSED, f"The API refuses this worker: {self.refused}")


def serve(settings: WorkerSettings, executor: str) -> None:
    """Run a worker of the library that *executor* names, until a signal says stop; Stop where it cannot be."""
    os.umask(0o077)
    journal.configure(settings.log_level, human=sys.stderr.isatty())
    misspelled.warn()
    _SERVERS[executor](settings)


def _serve_dramatiq(settings: WorkerSettings) -> None:
    """Take messages as Dramatiq's worker does, until a signal says stop; Stop where the API refuses this worker."""
    end = End()
    host = Host(settings, "dramatiq", end.refuse)
    address = broker_address(settings)
    with in_words(), installed("dramatiq", address.kind):
        from dramatiq import Worker  # noqa: PLC0415  an extra

        from executors.queues.dramatiq_worker import make_broker  # noqa: PLC0415  as above

        broker = make_broker(
            address,
            prefix=settings.queue_prefix,
            queues=settings.worker_queues,
            hands=host,
            clock=SystemClock(),
            is_child=False,
        )
    host.take_up(settings.worker_queues, settings.worker_concurrency)
    end.listen()
    worker = Worker(broker, worker_threads=settings.worker_concurrency)
    worker.start()
    log.info("ready", broker=address.shown, queues=list(settings.worker_queues))
    end.came.wait()
    log.info("stopping")
    worker.stop(timeout=_FAREWELL)
    broker.close()
    end.say()


def _serve_celery(settings: WorkerSettings) -> None:
    """Take messages as Celery's worker does; the rest is the same."""
    address = broker_address(settings)
    with in_words(), installed("celery", address.kind):
        from runyard.workers import celery_service  # noqa: PLC0415  an extra

        celery_service.serve(settings, address, End())


_SERVERS: Final = {"dramatiq": _serve_dramatiq, "celery": _serve_celery}
