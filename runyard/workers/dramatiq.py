"""For Dramatiq's own command line: ``dramatiq runyard.workers.dramatiq -p 1 -t 8 -Q runyard.default``.

It is imported in each worker process, below the master, and configured by the variables that ``runyard worker`` reads.
``runyard worker`` does the same in one process, without a master.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

import dramatiq
import structlog

from executors.queues.dramatiq_worker import make_broker
from runyard import journal
from runyard.settings import WorkerSettings
from runyard.workers.host import Host, broker_address, ending_here
from runyard.world import SystemClock

if TYPE_CHECKING:
    from collections.abc import Sequence

log = structlog.get_logger(__name__)


class _Guest(Host):
    """A host in a process that belongs to Dramatiq."""

    def take_up(self, queues: Sequence[str], slots: int) -> None:
        with ending_here():
            super().take_up(queues, slots)


def _on_refused(why: str) -> None:
    log.critical("the API refuses this worker", reason=why)
    os.kill(os.getpid(), signal.SIGTERM)  # as the master does: messages go back, and this process ends


def _make() -> dramatiq.Broker:
    journal.join_library()
    with ending_here():
        settings = WorkerSettings.read()
        made = make_broker(
            broker_address(settings),
            prefix=settings.queue_prefix,
            queues=settings.worker_queues,
            hands=_Guest(settings, "dramatiq", _on_refused),
            clock=SystemClock(),
            is_child=True,
        )
    dramatiq.set_broker(made)  # what the command line takes when it is given a module alone
    return made


broker: Final = _make()
