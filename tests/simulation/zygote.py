"""Forks without a system: tasks that run for a while of virtual time, write their journal, and end as they were told.

What a task does stands in its command, ``["sim", '{"takes": …, "ends": …}']``; ``ends`` has a letter for every try:
``s`` succeeds, ``f`` fails, ``h`` hangs until it is stopped, ``d`` is deaf to SIGTERM.  Tasks are processes of their
own: they go on while their agent is frozen alone, and die with it.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

from tests.simulation.agents import PIPES, home_of
from tests.simulation.hosts import here

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.hosts import SimProcess
    from worker.children import Ends

#: The fork itself, and the way of an end from the kernel to the agent.
_FORK = (0.001, 0.02)
_REPORT = (0.0005, 0.01)
#: How long tasks take at the most once all faults are over: what is waited for finds nothing.
_CALM = 1.0


class SimZygote:
    """All tasks of one agent."""

    def __init__(self, python: str, environ: Mapping[str, str], lock_fd: int, ends: Ends) -> None:
        del python, environ, lock_fd
        self._process = here()
        self._ends = ends
        self._tasks: dict[str, _Task] = {}
        self._process.on_death.append(self._killed)
        self._process.zygote = self

    def start(self) -> None:
        """It is there."""

    def fork(self, job: Mapping[str, Any], log_fd: int) -> None:
        process = self._process.machine.start("task")
        self._tasks[job["id"]] = task = _Task(self, process, job, log_fd)
        process.site.ran_on[job["id"]] = process.host
        process.site.tasks[process] = job["id"]
        process.later(process.dice.uniform(*_FORK), task.begin)

    def signal(self, attempt_id: str, number: int) -> None:
        task = self._tasks.get(attempt_id)
        if task is not None:
            task.process.later(0.0002, task.signalled, number)

    def hold(self, until: float | None) -> None:
        """Leave it to the fence: here it is the fence that is looked at, and what hangs notices when it wakes up."""

    def close(self) -> None:
        self._killed()

    def die(self) -> None:
        """The zygote is killed, and all tasks with it; the agent hears of it."""
        self._killed()
        self._process.site.note_upset(self._process.host)
        self._process.later(0.002, self._bury)

    def _bury(self) -> None:
        """As the agent does it: what was asked for since is dead as well before it is told."""
        self._killed()
        self._process.site.note_upset(self._process.host)  # an agent that stood still meanwhile hears of it now
        self._ends.zygote_died("the zygote was killed")

    def over(self, task: _Task, status: int) -> None:
        """A task is over: its agent hears of it a little later."""
        self._tasks.pop(task.attempt_id, None)
        PIPES.end(task.log_fd)
        self._process.later(task.process.dice.uniform(*_REPORT), self._ends.ended, task.attempt_id, status)

    def _killed(self) -> None:
        for task in list(self._tasks.values()):
            PIPES.end(task.log_fd)
            task.process.kill()
        self._tasks.clear()


class _Task:
    """One task, as its own process sees it."""

    def __init__(self, zygote: SimZygote, process: SimProcess, job: Mapping[str, Any], log_fd: int) -> None:
        self.attempt_id: str = job["id"]
        self.process = process
        self.log_fd = log_fd
        self._zygote = zygote
        self._env: Mapping[str, str] = job["env"]
        self._output: str = job["output"]
        self._plan = json.loads(job["argv"][1])
        self._try = int(self._env["RUNYARD_FENCE"])
        ends = self._plan["ends"]
        self._ends = ends[min(self._try, len(ends)) - 1]

    def begin(self) -> None:
        self.process.on_death.append(self._note_death)
        self._write("start", seen=self.process.site.last_event())
        for name, value in sorted(self._env.items()):
            if name.startswith("SAW_"):
                by: str | None = None if value == "null" else json.loads(value)["by"]
                self._write("saw", from_task=name.removeprefix("SAW_"), from_attempt=by)
        if self._ends in "sf":
            takes = min(self._plan["takes"], _CALM) if self.process.site.is_calm else self._plan["takes"]
            self.process.later(takes * self.process.dice.uniform(0.5, 1.5), self._end)

    def _end(self) -> None:
        if self._ends == "s":
            self._write("end")
            self._home.outputs[self._output] = json.dumps({"by": self.attempt_id})
        else:
            self._write("fail")
        self._exit(0 if self._ends == "s" else 1 << 8)

    def signalled(self, number: int) -> None:
        if number == signal.SIGKILL:
            self._exit(int(signal.SIGKILL))
        elif self._ends != "d":
            self.process.later(self.process.dice.random() * 0.5, self._exit, int(signal.SIGTERM))

    def _exit(self, status: int) -> None:
        if self.process.is_alive:
            self.process.kill()
            self._zygote.over(self, status)

    @property
    def _home(self) -> Any:
        return home_of(self._output.partition("/agent/")[0])

    def _note_death(self) -> None:
        """Write down for the oracles what a task that is killed cannot write itself."""
        self.process.site.deaths.append(self._line("death"))

    def _write(self, what: str, **more: str | int | None) -> None:
        self.process.site.journal.append(self._line(what) | more)

    def _line(self, what: str) -> dict[str, Any]:
        env = self._env
        return {
            "type": "task",
            "what": what,
            "attempt_id": self.attempt_id,
            "dag_id": env["RUNYARD_DAG_ID"],
            "run_id": env["RUNYARD_RUN_ID"],
            "task_id": env["RUNYARD_TASK_ID"],
            "map_index": -1,
            "fence": self._try,
            "t": round(self.process.loop.time(), 6),
        }
