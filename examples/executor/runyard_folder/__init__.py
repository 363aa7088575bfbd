"""An executor whose broker is a folder: a message is a file, and whoever can rename it has it.

``$RUNYARD_FOLDER/QUEUE/new/ATTEMPT`` waits; ``$RUNYARD_FOLDER/QUEUE/taken/WORKER/ATTEMPT`` is with a worker.  The file
holds the ticket and nothing else.
"""

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from dag.ids import AttemptId
from executors.base import (
    API_VERSION,
    Accepted,
    Cause,
    Context,
    Deferred,
    ExecutorConfig,
    Health,
    HealthStatus,
    Launch,
    LaunchResult,
    Observation,
    Phase,
    Rejected,
    Traits,
)


class FolderExecutor:
    """Offers attempts to the workers of a folder."""

    api_version = API_VERSION
    traits = Traits(survives_scheduler=True, observable=True, revocable=True)
    #: Whoever takes an attempt starts it, and how many there may be is counted by the workers that live.
    placed_on: str | None = None
    slots: int | None = None
    by_queue = True

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder
        self.why_down = "not started"

    async def start(self, context: Context) -> None:
        self.why_down = self._look()

    async def stop(self, *, drain: timedelta) -> None:
        """What lies in the folder stays there, and what runs is the workers'."""
        self.why_down = "not started"

    async def launch(self, batch: Sequence[Launch]) -> list[LaunchResult]:
        """Place each attempt, or say why not now.  Placing it again does no harm."""
        return [self._launch(launch) for launch in batch]

    def _launch(self, launch: Launch) -> LaunchResult:
        if "/" in launch.queue or launch.queue.startswith("."):
            return Rejected(launch.attempt_id, Cause.CONFIG, f"the queue {launch.queue!r} cannot be a folder")
        try:
            place(self.folder / launch.queue, launch.attempt_id, launch.ticket)
        except OSError as error:
            self.why_down = f"{self.folder} cannot be written to: {error.strerror}"
            return Deferred(launch.attempt_id, self.why_down, timedelta(seconds=5))
        self.why_down = ""
        return Accepted(launch.attempt_id)

    async def cancel(self, batch: Sequence[AttemptId], *, reason: str) -> None:
        """Take out what nobody has taken; what runs is told by the metastore."""
        for attempt_id in batch:
            for file in self.folder.glob(f"*/new/{attempt_id}"):
                file.unlink(missing_ok=True)

    async def observe(self, batch: Sequence[AttemptId]) -> list[Observation]:
        """Say what the folder proves: a message is there, or it is not."""
        if self._look():
            return [Observation(attempt_id=each, phase=Phase.UNKNOWN, detail=self.why_down) for each in batch]
        there = {file.name for form in ("*/new/*", "*/taken/*/*") for file in self.folder.glob(form)}
        return [
            Observation(attempt_id=each, phase=Phase.PENDING if each in there else Phase.GONE) for each in batch
        ]  # fmt: skip

    def renew(self, ttl: timedelta | None) -> None:
        """Workers renew their leases themselves."""

    def health(self) -> Health:
        return Health(HealthStatus.DOWN, self.why_down) if self.why_down else Health(HealthStatus.OK)

    def _look(self) -> str:
        self.why_down = "" if self.folder.is_dir() else f"there is no folder {self.folder}"
        return self.why_down


def place(queue: Path, attempt_id: str, ticket: str) -> None:
    """Write a message: whole or not at all, and readable by this user only."""
    for folder in (queue, queue / "new"):  # and not what is above them: an outage must be seen as one
        folder.mkdir(mode=0o700, exist_ok=True)
    half = queue / f"{attempt_id}.{os.getpid()}"
    half.touch(0o600)
    half.write_text(ticket)
    half.rename(queue / "new" / attempt_id)


def create(config: ExecutorConfig) -> FolderExecutor:
    """Return the executor; the entry point of the group ``runyard.executors``."""
    return FolderExecutor(config.name, Path(os.environ.get("RUNYARD_FOLDER", config.home / "folder")))
