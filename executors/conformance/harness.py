"""What a provider implements to have its executor checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from executors.base import Context, Executor


class Harness(Protocol):
    """One executor with its infrastructure, fresh for every scenario; made with a folder of its own."""

    #: How many attempts it may run at once.
    slots: int
    #: A folder that the bench and the tasks both see.
    scratch: Path
    #: Where user code lives: first on ``sys.path`` of python tasks.
    code_dir: Path

    @property
    def secret(self) -> tuple[str, str]:
        """A name and value that the service's own environment has and no task may see."""
        ...

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
        """Return what is still there of attempts: processes, folders, pods, messages."""
        ...


class Hooks(Protocol):
    """What a harness may have besides: ways to break its infrastructure.

    A hook that it lacks does not exist for its medium; scenarios that need it do not apply, and are listed as such.
    A harness may also have ``metastore``, a :class:`~executors.conformance.metastore.Metastore` to use instead of the
    reference.
    """

    #: A free port of 127.0.0.1 that ``http`` tasks may reach: the executor runs with ``http_allow`` of this address and
    #: ``http_ports`` of this port (``RUNYARD_HTTP_ALLOW``, ``RUNYARD_HTTP_PORTS`` of a worker).
    http_port: int

    def processes(self) -> list[int]:
        """Return every live process that was started for this harness: workers, supervisors, tasks."""
        ...

    # What may die

    async def kill_supervisor(self) -> None:
        """Kill the supervisors without a word, as the kernel's out-of-memory killer would; others take over."""
        ...

    async def kill_host(self) -> None:
        """Kill whatever forks or hosts tasks beside the supervisor."""
        ...

    async def kill_worker_process(self) -> None:
        """Kill what takes messages from the medium and hands them to the supervisor; another one takes over."""
        ...

    async def kill_node(self) -> None:
        """Kill all that every worker has on its machine at once, tasks too, and leave it dead."""
        ...

    async def revive_node(self) -> None:
        """Start the workers of dead machines again, each with what is on its disk; return once they serve."""
        ...

    async def restart_scheduler(self, context: Context) -> Executor:
        """Kill the scheduler's side without a word and return a new executor on the same infrastructure."""
        ...

    # What may get lost

    async def drop_connection(self) -> None:
        """Break the connections between the scheduler's side and the medium once."""
        ...

    async def duplicate_delivery(self, attempt_id: str) -> None:
        """Deliver the message that launches an attempt once more, past the executor."""
        ...

    async def drop_delivery(self, attempt_id: str) -> None:
        """Take the message that launches an attempt out of the medium, as if it had never been sent."""
        ...

    async def deliver(self, attempt_id: str, ticket: str) -> None:
        """Deliver a message of the executor's own form that names any attempt, with any ticket."""
        ...

    async def deliver_garbage(self) -> None:
        """Deliver messages that are none: truncated, of an unknown version, without what they should have."""
        ...

    async def restart_infra(self) -> None:
        """Kill the medium without a word and start it again on the data it had."""
        ...

    async def flush_infra(self) -> None:
        """Have the medium lose every message it holds, of every kind."""
        ...

    async def partition_infra(self, on: bool) -> None:  # noqa: FBT001  on or off is all it says
        """Cut the medium off from the scheduler's side and the workers, or mend it."""
        ...

    async def throttle_infra(self, on: bool) -> None:  # noqa: FBT001  on or off is all it says
        """Have the medium refuse new messages for want of memory or quota, or take them again."""
        ...

    # Workers

    async def run_worker(self, queues: Sequence[str], slots: int) -> str:
        """Start one more worker, on a machine of its own; return where its attempts are placed, once it serves."""
        ...

    async def stop_workers(self) -> None:
        """Have every worker end in good order and return once they have; nothing serves any queue then."""
        ...

    async def drain_workers(self, grace: float) -> None:
        """Ask every worker to end as an operator does, with *grace* seconds for its tasks; return when they have."""
        ...

    # What may be broken about a host

    def peak_memory(self) -> int:
        """Return the peak memory of the supervisors, in bytes."""
        ...

    def break_logs(self) -> None:
        """Make logs impossible to write."""
        ...

    async def break_interpreter(self, context: Context) -> Executor:
        """Return a new executor of which no task can start because its interpreter is broken."""
        ...
