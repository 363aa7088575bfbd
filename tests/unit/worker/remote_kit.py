"""A worker for tests: a home, feeders with real agents behind them, and threads that wait for messages."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from executors import spawn
from executors.conformance.world import RealEntropy, is_alive
from executors.feed import Dropped, Feeder, Worker
from tests.unit.worker.remote_api import KEY, ticket_of
from worker import environment, linux

if TYPE_CHECKING:
    from tests.unit.worker.remote_api import Api, Row


class Message:
    """One message of a broker, handed to a feeder by a thread of its own."""

    def __init__(self, feeder: Feeder, attempt_id: str, ticket: str) -> None:
        self.attempt_id = attempt_id
        #: "acked", or "dropped" where it goes back to the broker.
        self.fate = ""
        self._feeder = feeder
        self._ticket = ticket
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._feeder.run(self.attempt_id, self._ticket)
        except Dropped:
            self.fate = "dropped"
        else:
            self.fate = "acked"

    def wait(self, within: float = 30.0) -> str:
        self._thread.join(within)
        assert self.fate, f"{self.attempt_id}: no answer within {within:g} s"
        return self.fate


class _Feeder(Feeder):
    """One that can be told, before it starts an agent, what its settings are to be."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._is_settled = threading.Event()
        super().__init__(*args, **kwargs)

    def settle(self, changes: dict[str, Any]) -> None:
        self._settings = dataclasses.replace(self._settings, **changes)
        self._is_settled.set()

    def _keep(self) -> None:
        self._is_settled.wait()
        super()._keep()


class Kit:
    """Everything of one worker, and the API it talks to."""

    def __init__(self, folder: Path, api: Api) -> None:
        self.api = api
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self.code = folder / "code"
        self.code.mkdir()
        self.journal = folder / "journal"
        self.url = api.url
        self.slots = 4
        self.key = KEY
        self.statuses: list[tuple[str, str]] = []
        self.feeders: list[Feeder] = []
        self.pids: set[int] = set()
        self._changes: dict[str, Any] = {}

    def change(self, **changes: Any) -> None:
        """Have the agents that are started from now on have other settings."""
        self._changes = changes

    @property
    def feeder(self) -> Feeder:
        return self.feeders[-1]

    def feed(self, *, wait: bool = True) -> Feeder:
        """Start a feeder, as a worker process does; by default until the API knows it."""
        worker = Worker(
            api_url=self.url, api_key=self.key, name="w", executor="dramatiq", queues=("default",), slots=self.slots
        )
        feeder = _Feeder(
            self.home,
            worker,
            code_dir=self.code,
            task_python=sys.executable,
            entropy=RealEntropy(),
            on_status=lambda state, detail: self.statuses.append((state, detail)),
        )
        feeder.settle(self._changes)
        self.feeders.append(feeder)
        if wait:
            assert feeder.wait_for_answer(30)[0] == "serving", feeder.status
            self.pids.add(self.agent)
        return feeder

    def send(self, attempt_id: str, ticket: str | None = None) -> Message:
        """Deliver a message."""
        return Message(self.feeder, attempt_id, ticket_of(attempt_id) if ticket is None else ticket)

    def run(self, within: float = 30.0, **body: object) -> Row:
        """Run an attempt to its end."""
        attempt_id = self.api.queue(**body)
        assert self.send(attempt_id).wait(within) == "acked"
        return self.api.ended(attempt_id)

    def line(self, line: str, **body: object) -> Row:
        """Run a line to its end, as :meth:`shell` has it."""
        attempt_id = self.shell(line, **body)
        assert self.send(attempt_id).wait() == "acked"
        return self.api.ended(attempt_id)

    def shell(self, line: str, **body: object) -> str:
        """Queue a line for a shell, in which ``$JOURNAL`` is a file to write to; return the attempt."""
        return self.api.queue(argv=None, shell=line, env={"JOURNAL": str(self.journal)}, **body)

    def begin(self, line: str, **body: object) -> Message:
        """Have a line run that first writes ``up`` into the journal."""
        before = self.lines().count("up")
        message = self.send(self.shell(f"echo up >> $JOURNAL; {line}", **body))
        self.api.until(lambda: self.lines().count("up") > before, "it runs")
        return message

    def lines(self) -> list[str]:
        with suppress(FileNotFoundError):
            return self.journal.read_text().split("\n")[:-1]
        return []

    @property
    def agent(self) -> int:
        hello = self.feeder._hello
        assert hello is not None
        return hello["pid"]

    def said(self) -> str:
        """Return the agent's own log."""
        return (self.home / "agent" / "agent.log").read_text()

    def outcomes(self) -> str:
        return (self.home / "agent" / "attempts" / "outcomes").read_text()

    def has_end(self, message: Message) -> bool:
        """Whether the end of an attempt is on disk."""
        return f'{{"finish": {{"type": "finish", "attempt_id": "{message.attempt_id}"' in self.outcomes()

    def left(self) -> list[str]:
        """Return the files that attempts left in the spool."""
        names = [entry.name for entry in (self.home / "agent" / "attempts").iterdir()]
        return [name for name in names if name.partition(".")[0] not in ("outcomes", "spare")]

    def kill_agent(self) -> None:
        os.kill(self.agent, signal.SIGKILL)

    def kill_feeder(self) -> None:
        """Do what kill -9 of the feeder's process does."""
        self.feeder.close()

    def is_over(self) -> bool:
        """Whether there is no agent any more."""
        for pid in self.pids:
            spawn.has_ended(pid)
        return not spawn.is_alive(self.home)

    def processes(self) -> list[int]:
        id_file = self.home / "agent" / "id"
        marker = f"{environment.MARKER}={id_file.read_text()}".encode() if id_file.exists() else b"-"
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid() and is_alive(int(entry.name)):
                with suppress(OSError):
                    text = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
                    if os.fsencode(self.home) in text or marker in text:
                        found.append(int(entry.name))
        return found

    def close(self) -> None:
        for feeder in self.feeders:
            feeder.close()
        until = time.monotonic() + 20
        while found := self.processes():
            for pid in found:
                linux.kill(pid)
            for pid in {*self.pids, *found}:
                spawn.has_ended(pid)
            assert time.monotonic() < until, found
            time.sleep(0.01)
        self.api.stop()
