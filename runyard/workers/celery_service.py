"""Celery's worker in this process, started again when it ends by itself or takes no more messages.

The agent and what it runs know nothing of that.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import structlog
from celery import signals
from celery.worker import state

from executors.queues.celery_medium import CeleryMedium
from executors.queues.celery_worker import NoTickets, Stall, WaiterPool, make_worker_app
from executors.queues.hands import Once
from runyard.workers.host import Host
from runyard.world import SystemClock

if TYPE_CHECKING:
    from executors.queues.address import Address
    from runyard.settings import WorkerSettings
    from runyard.workers.command import End

log = structlog.get_logger(__name__)

#: How often to look whether the worker still does what it is for, and how long it may not.
_LOOK: Final = 15.0
_PATIENCE: Final = 60.0
_LONGEST_PAUSE: Final = 30.0
#: How long threads that talk to the broker may take to let go of it; attempts have ended before.
_FAREWELL: Final = 20.0


def serve(settings: WorkerSettings, address: Address, end: End) -> None:
    """Take messages as Celery's worker does, until a signal says stop; Stop where the API refuses this worker."""
    queues, slots = settings.worker_queues, settings.worker_concurrency
    host = Host(settings, "celery", end.refuse)
    once = Once(host)
    app = make_worker_app(address, prefix=settings.queue_prefix, queues=queues, slots=slots, hands=host, once=once)
    # Celery sets up no logging of its own where somebody listens to this.
    signals.setup_logging.connect(_nothing, weak=False)
    for handler in logging.getLogger().handlers:
        handler.addFilter(NoTickets())
    host.take_up(queues, slots)
    end.listen()
    medium = CeleryMedium(address, settings.queue_prefix)
    stall = Stall(medium, queues, once, slots, SystemClock())
    threading.Thread(target=_watch, args=(stall, end), name="celery-watch", daemon=True).start()
    pause = 1.0
    serving = _start(app, settings)
    log.info("ready", broker=address.shown, queues=list(queues))
    while not end.came.wait(0.2):
        if not serving.is_alive():
            log.error("Celery's worker ended by itself, and is started again", seconds=pause)
            end.came.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            serving = _start(app, settings)
    log.info("stopping")
    state.should_stop = 0  # the exit code; its loop looks at it at every turn
    host.drain()
    serving.join(_FAREWELL)
    end.say()


def _start(app: Any, settings: WorkerSettings) -> threading.Thread:
    worker = app.WorkController(
        pool_cls=WaiterPool, concurrency=settings.worker_concurrency, hostname=settings.worker_name
    )
    serving = threading.Thread(target=worker.start, name="celery", daemon=True)
    serving.start()
    return serving


def _watch(stall: Stall, end: End) -> None:
    """Start this process anew when Celery has forgotten what it is for."""
    while not end.came.wait(_LOOK):
        if stall.lasts() > _PATIENCE:
            log.error("Celery's worker takes no messages although some wait; this process begins anew")
            os.execv(sys.executable, [sys.executable, "-m", "runyard", *sys.argv[1:]])  # noqa: S606  # it is this command


def _nothing(**_: object) -> None:
    """Set up no logging."""
