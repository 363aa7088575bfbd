"""A worker of Celery's in this process: one at a time, since what it knows of itself belongs to the process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from celery.worker import state

from executors.queues.address import Address
from executors.queues.celery_worker import make_worker_app
from tests.queues.desk import Hands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextmanager
def working(
    url: str, *, queues: Sequence[str] = ("default",), threads: int = 2, hands: Hands | None = None
) -> Iterator[Hands]:
    """A worker of Celery's at the broker."""
    hands = hands or Hands()
    hands.take_up(queues, threads)
    app = make_worker_app(Address.read(url), prefix="runyard", queues=queues, slots=threads, hands=hands)
    state.should_stop = None
    worker = app.WorkController(pool_cls="threads", concurrency=threads, hostname="test", without_gossip=True)
    serving = threading.Thread(target=worker.start, daemon=True)
    serving.start()
    try:
        yield hands
    finally:
        hands.let_go()
        state.should_stop = 0
        serving.join(30)
        assert not serving.is_alive()
