"""What the API may be told; the front door fills it from the environment, nothing here looks at one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from metastore.commands.agents import told

if TYPE_CHECKING:
    from pathlib import Path

#: The names under which a service that listens on loopback only is called.
LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """Settings of one API process."""

    #: The folder of attempt logs.
    log_dir: Path
    #: Names of the executors that are configured; the first is the default.
    executors: tuple[str, ...] = ("sequential",)
    #: Who a request may be addressed to: ``name`` (any port) or ``name:port``.
    allowed_hosts: tuple[str, ...] = LOOPBACK
    #: How many answers one key, and all keys together, may hold open (event streams, followed logs, waits).
    streams_per_key: int = 256
    streams: int = 1024
    #: How often an idle stream says that it is alive; its key is looked at again with each.
    heartbeat: timedelta = timedelta(seconds=15)
    #: A stream ends after this long; the client resumes with ``Last-Event-ID``.
    stream_age: timedelta = timedelta(hours=1)
    #: How long a worker's attempts stay its own without a heartbeat, and how often it is asked for one.
    worker_lease: timedelta = timedelta(seconds=90)
    worker_heartbeat: timedelta = timedelta(seconds=10)
    #: A reader that takes nothing for this long is dropped.
    reader_patience: timedelta = timedelta(seconds=30)

    @property
    def told_lease(self) -> float:
        """Seconds after which a worker that hears nothing must have killed its tasks: sooner than others take them."""
        return told(self.worker_lease).total_seconds()

    @property
    def told_heartbeat(self) -> float:
        """Seconds between two heartbeats: several of them fit into a lease."""
        return min(self.worker_heartbeat.total_seconds(), self.told_lease / 4)
