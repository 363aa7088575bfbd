"""The supervisor: what an agent does with each attempt, message by message.

It starts an attempt at most once in its life, whatever arrives and how often.  It asks for what is unanswered until it
is answered.  An end is written to disk before it is sent.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import environment, job, logs
from worker.asking import Asker
from worker.attempt import Attempt, Verdict, finish_message, judge, stopped
from worker.children import Zygote
from worker.fence import Fence
from worker.protocol import PROTOCOL
from worker.say import say
from worker.tidy import Tidier

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from worker.attempt import Stop
    from worker.protocol import Hello, Message, TaskBody
    from worker.settings import AgentSettings
    from worker.spool import Spool

#: How long the pipe of an ended task may stay open when something outside its tree holds it.
_PIPE_SECONDS: Final = 5.0
#: How much of one task's output is taken before the others get their turn.
_PIPE_TURN: Final = 512 * 1024
#: How many started attempts are remembered after their end.
_REMEMBERED: Final = 20_000
#: The longest SIGTERM-to-SIGKILL time when the agent itself is going away.
_DRAIN_KILL_GRACE: Final = 3.0


class Supervisor:
    """All attempts of one agent."""

    def __init__(self, settings: AgentSettings, spool: Spool, lock_fd: int, agent_id: str) -> None:
        self._settings = settings
        self._spool = spool
        self._log_file = _log_file(settings, spool)
        self._agent_id = agent_id
        self._boot_id = os.urandom(16).hex()
        self._loop = asyncio.get_running_loop()
        self._attempts: dict[str, Attempt] = {}
        self._ever: dict[str, None] = {}
        self._base = environment.base(os.environ, agent_id, settings.task_python)
        self._zygote = Zygote(settings.task_python, self._base, lock_fd, self)
        self._fence = Fence(self._is_running, self._fall)
        self.asker = Asker(self._attempts, self._boot_id)
        self._tidier = Tidier(spool, lambda: self.on_change())  # noqa: PLW0108  it is set later
        self.draining = False
        #: Called when the number of attempts may have reached zero.
        self.on_change: Callable[[], None] = _nothing

    @property
    def busy(self) -> bool:
        """Whether anything is running, or may be started by a service that is connected."""
        return self._is_running() or (
            self.asker.is_open and any(a.phase == "starting" for a in self._attempts.values())
        )

    def _is_running(self) -> bool:
        return any(attempt.phase == "running" for attempt in self._attempts.values())

    @property
    def attempts(self) -> int:
        """How many attempts are not done with."""
        return len(self._attempts) + self._tidier.busy

    @property
    def held(self) -> Mapping[str, Attempt]:
        """What is not done with."""
        return self._attempts

    @property
    def boot_id(self) -> str:
        return self._boot_id

    @property
    def is_fenced(self) -> bool:
        """Whether the lease is over."""
        return self._fence.is_down

    @property
    def lapses(self) -> int:
        """How many leases ran out before they were renewed."""
        return self._fence.lapses

    def has_run(self, attempt_id: str) -> bool:
        """Whether this agent started an attempt, as far back as it remembers."""
        return attempt_id in self._ever

    def warm_up(self) -> None:
        """Start the zygote before it is needed, and take over what a predecessor left."""
        try:
            self._zygote.start()
        except OSError as error:
            say(f"RUNYARD_TASK_PYTHON={self._settings.task_python}: {error.strerror}; tried again with the next task")
        for finish in self._spool.left():
            attempt = Attempt(finish["attempt_id"], phase="ended", finish=finish)
            self._attempts[attempt.attempt_id] = attempt
            self._remember(attempt.attempt_id)

    def hello(self) -> Hello:
        return {
            "type": "hello",
            "protocol": PROTOCOL,
            "version": self._settings.version,
            "agent_id": self._agent_id,
            "boot_id": self._boot_id,
            "pid": os.getpid(),
            "attempts": [{"attempt_id": a.attempt_id, "phase": a.phase} for a in self._attempts.values()],
        }

    def receive(self, message: Message) -> None:
        """Act on a message of the service."""
        match message["type"]:
            case "welcome":
                self._welcomed(message["protocol"])
            case "launch":
                self.launch(message["attempt_id"])
            case "task":
                self._task(message["attempt_id"], message["body"])
            case "refused":
                self._refused(message["attempt_id"])
            case "finished":
                self._finished(message["attempt_id"])
            case "cancel":
                self._cancel(message["attempt_id"], message["reason"], message["grace"])
            case "beat":
                self._fence.renew(message["ttl"], message.get("until"))
                # After what the fence said in its fall: to the zygote a renewal clears what was before.
                self._zygote.hold(self._fence.deadline)
            case "drain":
                self.drain(message["grace"])
            case other:
                say(f"a message of type {other!r} is not for an agent")

    # What the service says

    def _welcomed(self, protocol: int) -> None:
        if protocol != PROTOCOL:
            say(f"the service speaks protocol {protocol}, this agent {PROTOCOL}; it waits to be drained")
            return
        self.asker.open()

    def launch(self, attempt_id: str, key: str = "") -> None:
        """Ask for the start of an attempt; *key* is the secret of a remote one."""
        if self.draining or attempt_id in self._attempts:
            return
        attempt = self._attempts[attempt_id] = Attempt(attempt_id, key=key)
        self.asker.ask(attempt)

    def _task(self, attempt_id: str, body: TaskBody) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None:
            attempt = self._attempts[attempt_id] = Attempt(attempt_id)
        if attempt.phase != "starting":
            return
        if self._fence.is_down and attempt.stop is None and not self.draining:
            # It is nobody's loss yet: under the next lease the same answer comes, or a refusal.
            self.asker.later(attempt)
            return
        attempt.body = body
        if attempt_id in self._ever:
            self._end(attempt, Verdict("lost", "this agent ran this attempt before; it is not run twice"))
            return
        self._remember(attempt_id)
        if self.draining:
            attempt.wants("drain")
        if attempt.stop is not None:
            self._end(attempt, stopped(attempt))
            return
        try:
            self._run(attempt, body)
        except Exception as error:  # noqa: BLE001  the other attempts go on; this one ends, and says why
            say(f"{attempt_id} cannot be run: {error!r}")
            self._end(attempt, Verdict("lost", f"the agent could not run it: {error!r}"))
            self._close_pipe(attempt)

    def _refused(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is not None and attempt.phase == "starting":
            del self._attempts[attempt_id]
            self.on_change()

    def _finished(self, attempt_id: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.phase != "ended":
            return
        del self._attempts[attempt_id]
        self.dismiss(attempt_id)
        self.on_change()

    def dismiss(self, attempt_id: str) -> None:
        """Nothing of an attempt has to be told any more: remove what it left."""
        self._spool.answered(attempt_id)
        self._tidier.add(attempt_id)

    def _cancel(self, attempt_id: str, reason: Stop, grace: float) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is not None:
            # The service does not know the task's own kill_grace; what it sends is the most it wants to wait.
            own = attempt.body["kill_grace"] if attempt.body is not None else grace
            self._stop(attempt, reason, min(grace, own))

    def drain(self, grace: float) -> None:
        """Take nothing new; stop what runs after *grace* seconds."""
        if not self.draining:
            say(f"draining {self.attempts} attempts, {grace:g} s to end by themselves")
        self.draining = True
        self.asker.wants_more = False
        for attempt in list(self._attempts.values()):
            if attempt.phase == "starting":
                attempt.wants("drain")
        self._loop.call_later(grace, self._stop_all, "drain")
        self.on_change()

    # Running

    def _run(self, attempt: Attempt, body: TaskBody) -> None:
        attempt_id = attempt.attempt_id
        attempt.started_at = time.time()
        task = job.build(attempt_id, body, settings=self._settings, spool=self._spool, base=self._base)
        try:
            self._spool.prepare(attempt_id)
            attempt.pipe, log_fd = os.pipe()
        except OSError as error:
            self._end(attempt, Verdict("lost", f"no work directory or pipe for the task: {error}"))
            return
        attempt.phase = "running"
        os.set_blocking(attempt.pipe, False)
        attempt.log = logs.Log(self._log_file(attempt_id))
        self._loop.add_reader(attempt.pipe, self._pump, attempt)
        self._zygote.fork(task, log_fd)
        if body["timeout"] is not None and attempt.phase == "running":
            late = partial(self._stop, attempt, "timeout", body["kill_grace"])
            attempt.set_timer("timeout", self._loop.call_later(body["timeout"], late))
        self._fence.watch()

    def _pump(self, attempt: Attempt, turn: int = _PIPE_TURN) -> None:
        """Move output from the pipe to the log."""
        assert attempt.log is not None  # noqa: S101  what runs has one
        while turn > 0 and attempt.pipe >= 0:
            try:
                data = os.read(attempt.pipe, 65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close_pipe(attempt)
                return
            attempt.log.write(data)
            turn -= len(data)

    def _close_pipe(self, attempt: Attempt) -> None:
        if attempt.pipe >= 0:
            self._loop.remove_reader(attempt.pipe)
            os.close(attempt.pipe)
            attempt.pipe = -1
        if attempt.status is not None and attempt.phase == "running":
            self._conclude(attempt)

    # Stopping

    def _stop(self, attempt: Attempt, reason: Stop, grace: float) -> None:
        """SIGTERM to the whole tree now, SIGKILL after *grace* seconds; a second call can only make it sooner."""
        if attempt.phase == "ended" or attempt.status is not None:
            return
        first = attempt.stop is None
        attempt.wants(reason)
        if attempt.phase == "starting":
            return  # if it wins its start nevertheless, it ends before it runs
        attempt.clear_timer("timeout")
        kill_at = self._loop.time() + grace
        if attempt.kill_at is not None and attempt.kill_at <= kill_at:
            return
        attempt.kill_at = kill_at
        kill = partial(self._zygote.signal, attempt.attempt_id, signal.SIGKILL)
        if grace <= 0:
            attempt.clear_timer("kill")
            kill()
            return
        if first:
            self._zygote.signal(attempt.attempt_id, signal.SIGTERM)
        attempt.set_timer("kill", self._loop.call_later(grace, kill))

    def _stop_all(self, reason: Stop) -> None:
        for attempt in list(self._attempts.values()):
            if attempt.body is not None:
                self._stop(attempt, reason, min(attempt.body["kill_grace"], _DRAIN_KILL_GRACE))

    def _fall(self) -> None:
        """The lease is over: kill, but for what asked to go on.

        What waits for its start is not touched.  If it wins it then it is its lease that holds.
        """
        for attempt in list(self._attempts.values()):
            if attempt.body is not None and not job.lasts(attempt.body):
                self._stop(attempt, "fenced", 0)

    def give_up(self) -> None:
        """Somebody else is this agent now: kill everything."""
        for attempt in list(self._attempts.values()):
            self._stop(attempt, "fenced", 0)

    # Ending

    def ended(self, attempt_id: str, status: int, *, is_fenced: bool = False) -> None:
        """The process ended and its tree is dead; its last output may still be in the pipe."""
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.phase != "running" or attempt.status is not None:
            return
        if is_fenced:  # this process hung meanwhile, and hears of it before its own fence falls
            attempt.wants("fenced")
        attempt.status = status
        attempt.ended_at = time.time()
        attempt.clear_timers()
        self._pump(attempt, turn=8 * _PIPE_TURN)
        if attempt.pipe >= 0:
            attempt.set_timer("pipe", self._loop.call_later(_PIPE_SECONDS, self._close_pipe, attempt))
        elif attempt.phase == "running":  # the task had closed its output before it ended
            self._conclude(attempt)

    def _conclude(self, attempt: Attempt) -> None:
        try:
            verdict = judge(attempt, self._spool)
        except Exception as error:  # noqa: BLE001  every attempt has an end, whatever its task left behind
            say(f"{attempt.attempt_id} cannot be judged: {error!r}")
            verdict = Verdict("failed", f"its end cannot be judged: {error!r}")
        self._end(attempt, verdict)

    def refused(self, attempt_id: str, why: str) -> None:
        """The task could not be forked."""
        self._lose(attempt_id, why)

    def zygote_died(self, why: str) -> None:
        """Everything that ran died with the zygote."""
        say(why)
        for attempt in list(self._attempts.values()):
            if attempt.phase == "running" and attempt.status is None:
                self._lose(attempt.attempt_id, why)

    def _lose(self, attempt_id: str, why: str) -> None:
        attempt = self._attempts.get(attempt_id)
        if attempt is None or attempt.phase != "running":
            return
        self._pump(attempt)
        attempt.ended_at = time.time()
        self._end(attempt, stopped(attempt) if attempt.stop is not None else Verdict("lost", why))
        self._close_pipe(attempt)

    def _end(self, attempt: Attempt, verdict: Verdict) -> None:
        attempt.phase = "ended"
        attempt.clear_timers()
        if attempt.log is not None:
            attempt.log.close()
        attempt.finish = finish_message(attempt, verdict, self._boot_id)
        attempt.body = None
        try:
            self._spool.keep(attempt.finish)
        except OSError as error:
            say(f"the outcome of {attempt.attempt_id} cannot be written down: {error}")
        self.asker.ask(attempt)
        self.on_change()

    def _remember(self, attempt_id: str) -> None:
        self._ever[attempt_id] = None
        if len(self._ever) > _REMEMBERED:
            del self._ever[next(iter(self._ever))]

    def close(self) -> None:
        """Let the zygote go."""
        self._zygote.close()


def _log_file(settings: AgentSettings, spool: Spool) -> Callable[[str], Path]:
    """Return where logs are: in the log store of a service, or in the spool, on their way to an API."""
    if settings.remote:
        return lambda attempt_id: Path(spool.log(attempt_id))
    return partial(logs.path, Path(settings.log_dir))


def _nothing() -> None:
    """Nobody wants to know."""
