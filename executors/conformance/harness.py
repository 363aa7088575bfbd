"""What a provider implements to have its executor checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from executors.base import Context, Executor


class Harness(Protocol):
    """One executor with its infrastructure, fresh for every scenario.

    A hook that is None does not exist for this medium; scenarios that need it do not apply, and are listed as such.
    """

    #: How many attempts it may run at once.
    slots: int
    #: A folder that the bench and the tasks both see.
    scratch: Path
    #: Where user code lives: first on ``sys.path`` of python tasks.
    code_dir: Path
    #: A name and value that the service's own environment has and no task may see.
    secret: tuple[str, str]

    async def open(self, context: Context) -> Executor:
        """Start the infrastructure and an executor on it."""
        ...

    async def close(self) -> None:
        """Stop everything; nothing that was started may be left."""
        ...

    def log(self, attempt_id: str) -> bytes:
        """Return the log of an attempt as far as it is written."""
        ...

    def leftovers(self) -> list[str]:
        """Return what is still there of attempts that have ended: processes, folders, pods, messages."""
        ...

    @property
    def kill_supervisor(self) -> Callable[[], Awaitable[None]] | None:
        """Kill the supervisors without a word, as the kernel's out-of-memory killer would."""
        ...

    @property
    def kill_host(self) -> Callable[[], Awaitable[None]] | None:
        """Kill whatever forks or hosts tasks beside the supervisor."""
        ...

    @property
    def restart_scheduler(self) -> Callable[[Context], Awaitable[Executor]] | None:
        """Kill the scheduler's side without a word and return a new executor on the same infrastructure."""
        ...

    @property
    def drop_connection(self) -> Callable[[], Awaitable[None]] | None:
        """Break the connection between the scheduler's side and the medium once."""
        ...

    @property
    def duplicate_delivery(self) -> Callable[[str], Awaitable[None]] | None:
        """Deliver the message that launches an attempt once more, past the executor."""
        ...

    @property
    def peak_memory(self) -> Callable[[], int] | None:
        """Return the peak memory of the supervisors, in bytes."""
        ...

    @property
    def break_logs(self) -> Callable[[], None] | None:
        """Make logs impossible to write."""
        ...

    @property
    def break_interpreter(self) -> Callable[[Context], Awaitable[Executor]] | None:
        """Return a new executor of which no task can start because its interpreter is broken."""
        ...
