"""Dramatiq as it comes, with an actor that has the same zygote fork the same child: what Runyard's workers are held to.

``dramatiq bench.bare_dramatiq -p 1 -t N``; no orchestrator, no database, no state: a message, a child, an ack.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from worker import environment
from worker.children import Zygote

broker = RedisBroker(  # type: ignore[no-untyped-call]  # it is not typed
    url=os.environ.get("BENCH_BROKER_URL", "redis://127.0.0.1:1/0")
)
dramatiq.set_broker(broker)


class Hands:
    """A loop in a thread, with a zygote; any thread may have a child forked and wait for its end."""

    def __init__(self) -> None:
        self._ends: dict[str, threading.Event] = {}
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._base = environment.base(os.environ, "bench", sys.executable)
        lock = os.open(os.devnull, os.O_RDWR)
        self._zygote = Zygote(sys.executable, self._base, lock, self)
        self._zygote.start()
        self._ready.set()
        await asyncio.Event().wait()

    def ended(self, attempt_id: str, status: int, *, is_fenced: bool = False) -> None:
        assert status == 0
        assert not is_fenced
        self._ends.pop(attempt_id).set()

    def refused(self, attempt_id: str, why: str) -> None:
        raise RuntimeError(f"{attempt_id}: {why}")

    def zygote_died(self, why: str) -> None:
        raise RuntimeError(why)

    def run(self, argv: list[str], name: str, place: Path) -> None:
        """Run *argv* in a child, with its output in a file, as an agent does."""
        end = self._ends[name] = threading.Event()
        log = os.open(place / f"{name}.part", os.O_WRONLY | os.O_CREAT, 0o600)
        files = {name_: str(place / f"{name}.{name_}") for name_ in ("output", "error")}
        job: dict[str, Any] = {
            "id": name,
            "refused": "",
            "lasts": False,
            "argv": argv,
            "stdin": None,
            "interpreter": None,
            "python": None,
            "env": self._base,
            "cwd": str(place),
            "base": "",
            **files,
        }
        self._loop.call_soon_threadsafe(self._zygote.fork, job, log)
        end.wait()
        (place / f"{name}.part").rename(place / name)


_hands: list[Hands] = []
_lock = threading.Lock()


@dramatiq.actor
def child(name: str, argv: list[str], place: str) -> None:
    """Have a child run *argv*; the file *name* in *place* is there when it has ended."""
    with _lock:
        if not _hands:
            _hands.append(Hands())
    _hands[0].run(argv, name, Path(place))
