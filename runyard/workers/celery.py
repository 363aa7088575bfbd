"""For Celery's own command line: ``celery -A runyard.workers.celery worker -P threads -c 8 -Q runyard-celery.default``.

It is configured by the variables that ``runyard worker`` reads; ``runyard worker --executor celery`` does the same with
our own log, signals and exit codes.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery import signals

from executors.queues.celery_worker import NoTickets, make_worker_app
from executors.queues.factory import installed
from runyard import journal
from runyard.settings import WorkerSettings
from runyard.workers.host import Host, broker_address, ending_here

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from celery import Celery

log = structlog.get_logger(__name__)


class _Guest(Host):
    """A host in a process that belongs to Celery."""

    def take_up(self, queues: Sequence[str], slots: int) -> None:
        with ending_here():
            super().take_up(queues, slots)


def _on_refused(why: str) -> None:
    log.critical("the API refuses this worker", reason=why)
    os.kill(os.getpid(), signal.SIGTERM)


def _on_logging(logger: logging.Logger, **_: Any) -> None:
    for handler in logger.handlers:
        handler.addFilter(NoTickets())


def _make() -> Celery:
    journal.join_library()
    signals.after_setup_logger.connect(_on_logging, weak=False)
    with ending_here():
        settings = WorkerSettings.read()
        address = broker_address(settings)
        with installed("celery", address.kind):
            return make_worker_app(
                address,
                prefix=settings.queue_prefix,
                queues=settings.worker_queues,
                slots=settings.worker_concurrency,
                hands=_Guest(settings, "celery", _on_refused),
            )


app: Final = _make()
