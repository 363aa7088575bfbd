"""An event loop of one thread and virtual time, in which processes can be frozen and killed between any two steps.

It runs what :mod:`asyncio` gives it (tasks, futures, timeouts) in a fixed order: what is ready first in, first out;
timers by their time, then by when they were set.  When nothing is ready the clock jumps to the next timer, so that an
hour costs nothing.  Nothing here looks at the real clock, so the same program takes the same steps again.

Every handle belongs to the :class:`Process` in whose context it was made.  The handles of a killed process are
dropped, as its memory would be; those of a frozen one are kept until it goes on.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextvars import Context

PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
#: What ends an :func:`asyncio.sleep`.
_wake: Final = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]  # its own, and what sleep() calls
#: After how many new tasks those that are done are let go.
_SWEEP: Final = 256


class Stuck(Exception):
    """Nothing is ready and nothing is set for later."""


class Runaway(Exception):
    """Far too many steps without an end: something goes round without waiting."""


class Handle:
    """A callback that is due now or later."""

    __slots__ = ("_cancelled", "_when", "args", "callback", "context", "is_io", "process")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context, when: float) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.process = context.get(PROCESS)
        self._when = when
        self._cancelled = False
        #: Whether it is bytes that arrive, and no timer.
        self.is_io = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class Process:
    """A process of the simulated world: what can be killed and frozen as a whole."""

    def __init__(self, loop: SimLoop, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.loop = loop
        self.is_alive = True
        self.is_frozen = False
        #: It is killed right before this many further steps; None: it is not.
        self.fuse: int | None = None
        self._burnt: Callable[[], object] = _nothing
        #: What happens right after its death, in the order of being added: the lock of its home falls, and so on.
        self.on_death: list[Callable[[], None]] = []
        self._held: deque[Handle] = deque()
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        loop.processes.append(self)

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    def spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Run *work* as a task of this process."""
        return self.loop.create_task(work, name=name, context=self.context.copy())

    def later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Call *callback* in this process after *delay* seconds."""
        return self.loop.call_later(delay, callback, *args, context=self.context)

    def kill(self) -> None:
        """End it between two steps: nothing of it runs any more, no ``finally`` and no ``except``."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.is_frozen = False
        self._held.clear()
        for act in self.on_death:
            act()

    def light(self, steps: int, burnt: Callable[[], object]) -> None:
        """Kill it after *steps* further ones; *burnt* is called if that is what it dies of."""
        self.fuse = steps
        self._burnt = burnt

    def burn(self) -> bool:
        """Return whether one more step is its death."""
        if self.fuse is None:
            return False
        self.fuse -= 1
        if self.fuse > 0:
            return False
        self._burnt()
        self.kill()
        return True

    def freeze(self) -> None:
        """Stop it as SIGSTOP does."""
        self.is_frozen = self.is_alive

    def thaw(self) -> None:
        """Let it go on: what came due meanwhile runs now.

        First what has arrived, then the timers, as an event loop has it that comes back from its select().
        """
        if self.is_frozen:
            self.is_frozen = False
            self.loop.put_back(sorted(self._held, key=lambda handle: not handle.is_io))
            self._held = deque()

    def hold(self, handle: Handle) -> None:
        self._held.append(handle)


class SimLoop:
    """The loop; one for each seed.  It has what asyncio and the product ask of a loop, and nothing else."""

    #: Steps after which a seed is given up: it would never end.
    MOST_STEPS = 3_000_000

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self._now = 0.0
        self._ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._count = 0
        self._closed = False
        self._running = False
        self.steps = 0
        #: Errors that nobody caught: callbacks', and those of tasks that nobody waited for.
        self.errors: list[str] = []
        self._tasks: list[tuple[Process | None, asyncio.Task[Any]]] = []
        self._sweep_at = _SWEEP
        self._numbers = 0

    # What asyncio asks for

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Handle:
        handle = Handle(callback, args, copy_context() if context is None else context, self._now)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, copy_context() if context is None else context, self._now + delay)
        self._count += 1
        heappush(self._timers, (handle._when, self._count, handle))
        return handle

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Handle:
        handle = Handle(callback, args, copy_context() if context is None else context, when)
        self._count += 1
        heappush(self._timers, (when, self._count, handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast("Any", self))

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:  # fmt: skip
        self._numbers += 1
        # A name of our own: asyncio's come from a counter of the whole interpreter.
        task: asyncio.Task[Any] = asyncio.Task(
            coro, loop=cast("Any", self), name=name or f"task-{self._numbers}", context=context
        )
        # Held until it is done: the garbage collector must not end what a killed process has left behind.
        self._tasks.append((PROCESS.get() if context is None else context.get(PROCESS), task))
        if len(self._tasks) >= self._sweep_at:
            self._tasks = [one for one in self._tasks if not one[1].done() or _is_untold(one[1])]
            self._sweep_at = 2 * len(self._tasks) + _SWEEP
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **options: Any) -> Any:
        """Hand a connection that was made (:class:`tests.simulation.channels.Socket`) to its protocol."""
        del path
        return options["sock"].adopt(protocol_factory)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """Do what a thread would do, a little later."""
        del executor
        done = self.create_future()

        def act() -> None:
            result = func(*args)
            if not done.done():
                done.set_result(result)

        self.call_later(0.001, act)
        return done

    def add_reader(self, fd: Any, callback: Callable[..., Any], *args: Any) -> None:
        """Do nothing: the pipes of simulated tasks have an end, and nothing before it."""

    def remove_reader(self, fd: Any) -> bool:
        del fd
        return True

    # Running

    def put_back(self, handles: list[Handle]) -> None:
        """Make *handles* of a thawed process ready again."""
        self._ready.extend(handles)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run *work* to its end, and everything else as far as it comes by then; the loop is closed afterwards."""
        # In the middle of a seed a collection would close what killed processes left behind.
        was_enabled = gc.isenabled()
        gc.disable()
        asyncio._set_running_loop(cast("Any", self))
        self._running = True
        try:
            with _found_quickly(self):
                main = self.create_task(work, name="main")
                self._until(main)
            return main.result()
        finally:
            self._running = False
            self._end()
            asyncio._set_running_loop(None)
            if was_enabled:
                gc.enable()

    def _until(self, main: asyncio.Task[Any]) -> None:
        """Take step after step until *main* is done."""
        ready = self._ready
        most = self.MOST_STEPS
        while not main.done():
            if not ready:
                self._advance()
                continue
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle.process
            if process is not None and not _may_step(process, handle):
                continue
            self.steps += 1
            if self.steps > most:
                raise Runaway(f"{self.steps} steps by {self._now:.3f} s")
            try:
                handle.context.run(handle.callback, *handle.args)
            except Exception as error:  # noqa: BLE001  # it is told with the seed's result
                self.errors.append(f"{handle.callback}: {error!r}")

    def _advance(self) -> None:
        """Let time pass until something is due."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heappop(timers)
        if not timers:
            raise Stuck(f"nothing is left to do at {self._now:.3f} s")
        self._now = max(self._now, timers[0][0])
        now, ready = self._now, self._ready
        while timers and timers[0][0] <= now:
            handle = heappop(timers)[2]
            if handle.callback is _wake and not handle._cancelled:
                # The end of a sleep takes no step of its own: whoever slept takes the next one.
                _wake(*handle.args)
            else:
                ready.append(handle)

    def _end(self) -> None:
        """Throw away what is still under way; its ``finally`` clauses run, and nothing that they ask for."""
        self._closed = True
        self._tell_untold()
        left = [task for _, task in self._tasks if not task.done()]
        self._ready.clear()
        self._timers.clear()
        told = len(self.errors)
        for task in left:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio sets it the same way
            coro = task.get_coro()
            with suppress(BaseException):
                coro.close()
        self._ready.clear()
        self._timers.clear()
        self._tasks.clear()
        del self.errors[told:]

    def _tell_untold(self) -> None:
        """Note the errors of tasks that nobody has asked for, and nobody was about to."""
        asking = {id(arg) for handle in self._ready for arg in handle.args}
        for process, task in self._tasks:
            if task.done() and _is_untold(task):
                error = task.exception()  # it is told now
                if id(task) not in asking and (process is None or process.is_alive):
                    self.errors.append(f"nobody asked how {task.get_name()} ended: {error!r}")


def _is_untold(task: asyncio.Task[Any]) -> bool:
    """Whether a task has ended with an error that nobody has asked for."""
    return bool(task._log_traceback)  # what asyncio goes by when a task is thrown away


@contextmanager
def _found_quickly(loop: SimLoop) -> Iterator[None]:
    """Answer asyncio's own question for the running loop without the system call that its answer costs (getpid)."""
    events: Any = asyncio.events
    before = events.get_running_loop, events._get_running_loop
    thread = threading.get_ident()
    # Another thread of the same test run may have a loop of its own, with a server on it that a test has left.
    events.get_running_loop = lambda: loop if threading.get_ident() == thread else before[0]()
    events._get_running_loop = lambda: loop if threading.get_ident() == thread else before[1]()
    try:
        yield
    finally:
        events.get_running_loop, events._get_running_loop = before


def _may_step(process: Process, handle: Handle) -> bool:
    """Whether a step of *process* is taken now; a dead one takes none, a frozen one takes it later."""
    if not process.is_alive:
        return False
    if process.is_frozen:
        process.hold(handle)
        return False
    return not process.burn()


def _nothing() -> None:
    """Nobody wants to know."""
