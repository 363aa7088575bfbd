"""What every worker process has, whatever library brings it messages: a home, a feeder, and the agent behind it."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import structlog

from executors.feed import Feeder, HomeTaken, Worker
from executors.queues.address import Address
from executors.queues.room import Room
from runyard.exits import Exit, Stop, in_words
from runyard.health import ThreadPulse
from runyard.reaper import start_reaping
from runyard.workers import places
from runyard.world import SystemClock, SystemEntropy
from worker import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from runyard.settings import WorkerSettings
    from runyard.workers.places import Place
    from worker.protocol import Standing

log = structlog.get_logger(__name__)

#: How many processes that died here one after the other are remembered.
_FORMER: Final = 10


def broker_address(settings: WorkerSettings) -> Address:
    """Return where the broker is; Stop where that cannot be."""
    with in_words():
        return Address.read(None if settings.broker_url is None else settings.broker_url.get_secret_value())


@contextmanager
def ending_here() -> Iterator[None]:
    """End the process where a Stop would, in one whose command line is not ours."""
    try:
        with in_words():
            yield
    except Stop as stop:
        log.critical(stop.message, hint=stop.hint)
        raise SystemExit(int(stop.code)) from None


class Host:
    """Runs attempts with the agent of this process's home; messages are taken while the API takes starts."""

    def __init__(self, settings: WorkerSettings, executor: str, on_refused: Callable[[str], None]) -> None:
        """*on_refused* is called, from a thread of its own, when the API says no for good."""
        self._settings = settings
        self._executor = executor
        self._on_refused = on_refused
        self._room: Room | None = None
        self._place: Place | None = None
        self._feeder: Feeder | None = None
        self._pulse: ThreadPulse | None = None
        self._once = threading.Lock()
        self._is_draining = False

    @property
    def room(self) -> Room:
        if self._room is None:
            raise RuntimeError("the worker has not begun")
        return self._room

    def take_up(self, queues: Sequence[str], slots: int) -> None:
        """Take a home, and begin to register; Stop where that cannot be."""
        if self._feeder is not None:
            return
        settings = self._settings
        key = settings.key()
        linux.hide_memory()
        self._room = Room(slots, is_open=False)
        self._place = place = places.claim(settings.home)
        name = settings.worker_name if place.number == 1 else f"{settings.worker_name}-{place.number}"
        worker = Worker(
            api_url=settings.api_url,
            api_key=key,
            name=name,
            executor=self._executor,
            queues=tuple(queues),
            slots=slots,
        )
        try:
            self._feeder = Feeder(
                place.folder,
                worker,
                code_dir=settings.code,
                task_python=settings.task_python,
                http_allow=settings.http_allow,
                http_ports=settings.http_ports,
                entropy=SystemEntropy(),
                on_status=self._on_status,
            )
        except HomeTaken as error:
            raise Stop(Exit.IN_USE, str(error)) from None
        except OSError as error:
            raise Stop(Exit.HOME, f"The home {place.folder} cannot be used: {error}.") from None
        self._pulse = ThreadPulse(settings.home, "worker", SystemClock(), self.wrong)
        self._pulse.start()
        start_reaping()
        log.info("worker begins", name=name, home=str(place.folder), queues=list(queues), slots=slots)

    def succeed(self, broker_id: str) -> list[str]:
        """Write down what this process is called at the broker; return what those were called who died here."""
        if self._place is None:
            raise RuntimeError("the worker has not begun")
        file = self._place.folder / "broker"
        former: list[str] = []
        with suppress(FileNotFoundError):
            former = file.read_text(errors="replace").split()
        file.write_text("\n".join([broker_id, *former][:_FORMER]) + "\n")
        return former

    def run(self, attempt_id: str, ticket: str) -> None:
        if self._feeder is None:
            raise RuntimeError("the worker has not begun")
        self._feeder.run(attempt_id, ticket)

    def drain(self) -> None:
        """Take nothing more; let running attempts end, stop them when their time is over, and let the agent end."""
        with self._once:
            was_asked, self._is_draining = self._is_draining, True
        feeder = self._feeder
        if feeder is None or was_asked:
            return
        self.room.close()
        log.info("worker drains", seconds=self._settings.worker_drain)
        if not feeder.drain(self._settings.worker_drain):
            log.warning("the agent did not end in time; it goes on by itself")
        feeder.close()
        if self._pulse is not None:
            self._pulse.stop()

    def wrong(self) -> list[str]:
        """What keeps this worker from its work, for whoever looks after the process."""
        if self._feeder is None or self._is_draining:
            return []
        state, detail = self._feeder.status
        return [] if state == "serving" else [f"{state}: {detail}"]

    def _on_status(self, state: Standing, detail: str) -> None:
        if state == "serving" and not self._is_draining:
            self.room.open()
        else:
            self.room.close()
        if state == "refused":
            threading.Thread(target=self._on_refused, args=(detail,), daemon=True).start()
