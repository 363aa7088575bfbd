"""Watching a run to its end: its events as they come, over lost connections and restarts of the service."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

import httpx
from rich.console import Group
from rich.live import Live
from rich.text import Text

from dag.states import RUN_FINAL, TaskState
from runyard import show
from runyard.client import PATIENCE, path_of
from runyard.exits import Exit, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from rich.console import Console, RenderableType

    from dag.world import Clock
    from runyard.client import Api

_PAUSE: Final = 0.25
#: States that are worth a line.
_TOLD: Final = frozenset(TaskState) - {TaskState.PENDING, TaskState.SCHEDULED, TaskState.QUEUED}
#: What a small screen shows first.
_ORDER: Final = {
    state: place
    for place, state in enumerate(
        (
            TaskState.RUNNING,
            TaskState.CANCELLING,
            TaskState.FAILED,
            TaskState.UP_FOR_RETRY,
            TaskState.QUEUED,
            TaskState.SCHEDULED,
        )
    )
}
#: Lines of the screen that are not tasks.
_FRAME: Final = 5
#: How long after the run's end its last log lines may take to arrive.
_LAST_WORDS: Final = 10.0


class View(Protocol):
    """Shows a run's events."""

    def open(self) -> AbstractContextManager[object]:
        """Be ready for events."""
        ...

    def show(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        ...

    def note(self, text: str) -> None:
        """Show something about the watching itself."""
        ...


def to_the_end(api: Api, run: Mapping[str, Any], view: View, clock: Clock, seconds: float | None) -> dict[str, Any]:
    """Show *run*'s events until it has ended and return it as it ended; Stop after *seconds*."""
    path = path_of("dags", run["dag_id"], "runs", run["run_id"])
    ends = inf if seconds is None else clock.monotonic() + seconds
    after: str | None = None
    heard = clock.monotonic()
    with view.open():
        while True:
            left = ends - clock.monotonic()
            if left <= 0:
                raise Stop(
                    Exit.STILL_RUNNING,
                    f"The run {run['run_id']} still goes on after {show.duration(seconds or 0)}.",
                    f"watch it with: runyard tasks {run['dag_id']} {run['run_id']}",
                )
            try:
                for event in api.events(f"{path}/events", after, left):
                    heard = clock.monotonic()
                    if event.kind == "end":  # of the stream: its data is the run and not an event of it
                        break
                    after = event.id or after
                    view.show(event.data)
                    if event.kind.startswith("run.") and event.data.get("to_state") in RUN_FINAL:
                        break
            except httpx.TransportError as error:
                if seconds is None and clock.monotonic() - heard > PATIENCE:
                    raise api.unreachable(error) from None
                if clock.monotonic() < ends:
                    view.note("no word from the service; asking again")
            found: dict[str, Any] = api.get(path)
            if found["state"] in RUN_FINAL:
                return found
            time.sleep(_PAUSE)


class Silent:
    """Shows nothing: the result is for a program."""

    @contextmanager
    def open(self) -> Iterator[None]:
        yield

    def show(self, event: Mapping[str, Any]) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Lines:
    """A line for every event that says something: for pipes, logs and CI."""

    @contextmanager
    def open(self) -> Iterator[None]:
        yield

    def show(self, event: Mapping[str, Any]) -> None:
        state = event.get("to_state")
        if event.get("task_id") is None:
            show.say(f"{_time(event)}  run {state}{_why(event)}", show.STYLES.get(str(state), ""))
        elif state in _TOLD:
            again = f" (try {event['try_number']})" if (event.get("try_number") or 0) > 1 else ""
            show.say(f"{_time(event)}  {_name(event)} {state}{again}{_why(event)}", show.STYLES.get(str(state), ""))

    def note(self, text: str) -> None:
        show.warn(text)


class Logs(Lines):
    """Lines, and between them what the tasks write, as they write it."""

    def __init__(self, api: Api, run: Mapping[str, Any]) -> None:
        self._api = api
        self._path = ("dags", run["dag_id"], "runs", run["run_id"], "tasks")
        self._readers: dict[tuple[str, int], threading.Thread] = {}

    @contextmanager
    def open(self) -> Iterator[None]:
        yield
        for reader in self._readers.values():
            reader.join(_LAST_WORDS)

    def show(self, event: Mapping[str, Any]) -> None:
        super().show(event)
        if event.get("to_state") == TaskState.RUNNING and event.get("task_id"):
            which = (event["task_id"], event["try_number"])
            if which not in self._readers:
                self._readers[which] = threading.Thread(target=self._read, args=which, daemon=True)
                self._readers[which].start()

    def _read(self, task_id: str, number: int) -> None:
        screen, rest = show.Screen(), ""
        try:
            for piece in self._api.text(path_of(*self._path, task_id, "logs"), **{"try": number, "follow": True}):
                *lines, rest = (rest + screen.clean(piece)).split("\n")
                for line in lines:
                    _log_line(task_id, line)
        except Stop as error:
            self.note(f"the log of {task_id} broke off: {error}")
        if rest:
            _log_line(task_id, rest)


@dataclass
class Screen:
    """A table that changes in place: for a terminal."""

    console: Console
    clock: Clock
    _tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    _state: str = "queued"
    _note: str = ""

    @contextmanager
    def open(self) -> Iterator[None]:
        with Live(console=self.console, get_renderable=self._render, refresh_per_second=10, transient=False):
            yield

    def show(self, event: Mapping[str, Any]) -> None:
        self._note = ""
        if event.get("task_id") is None:
            self._state = event.get("to_state") or self._state
            return
        task = self._tasks.setdefault(_name(event), {"name": _name(event), "since": None, "took": ""})
        task["state"], task["try"] = event.get("to_state"), event.get("try_number") or ""
        if task["state"] == TaskState.RUNNING:
            task["since"], task["took"] = _at(event), ""
        elif task["since"] is not None:
            task["took"], task["since"] = show.duration((_at(event) - task["since"]).total_seconds()), None

    def note(self, text: str) -> None:
        self._note = text

    def _render(self) -> RenderableType:
        rows = max(3, self.console.height - _FRAME)
        shown = sorted(self._tasks.values(), key=lambda task: _ORDER.get(task["state"], len(_ORDER)))[:rows]
        counts = Counter(task["state"] for task in self._tasks.values())
        line = Text(f"run {self._state}", style=show.STYLES.get(self._state, ""))
        for state, number in counts.items():
            line.append(f"  {number} {state}", style=show.STYLES.get(str(state), ""))
        if self._note:
            line.append(f"  ({self._note})", style="yellow")
        columns: list[show.Column] = [
            ("TASK", lambda task: task["name"]),
            ("STATE", lambda task: task["state"]),
            ("TRY", lambda task: task["try"]),
            ("TOOK", self._took),
        ]
        names = {task["name"] for task in shown}
        return Group(show.grid([task for name, task in self._tasks.items() if name in names], columns), line)

    def _took(self, task: Mapping[str, Any]) -> str:
        if task["since"] is None:
            return str(task["took"])
        return show.duration(max(0.0, (self.clock.now() - task["since"]).total_seconds()))


def _log_line(task_id: str, line: str) -> None:
    show.console().print(Text.assemble((f"{task_id} | ", "bright_black"), Text.from_ansi(line)))


def _name(event: Mapping[str, Any]) -> str:
    index = event.get("map_index")
    return f"{event['task_id']}[{index}]" if index is not None and index >= 0 else str(event["task_id"])


def _why(event: Mapping[str, Any]) -> str:
    return f": {event['reason']}" if event.get("reason") else ""


def _at(event: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])


def _time(event: Mapping[str, Any]) -> str:
    return _at(event).astimezone().strftime("%H:%M:%S")
