"""The folders of attempts: where a task works, and where its end is written down before it is sent.

``attempts/<attempt id>/`` holds ``work/`` (the private folder of the task), ``output.json`` and ``error`` (left by the
task's side) and ``outcome.json``: the finish message as it will be sent, boot id included.  An agent that finds the
outcome of a dead predecessor sends it as it is: that attempt did end, and ended like this.
"""

# Every attempt comes through here several times; pathlib would take a tenth of the agent's time.
# ruff: noqa: PTH101, PTH102, PTH103, PTH104, PTH106, PTH108, PTH114, PTH123, PTH208
from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.protocol import Finish

#: The most bytes of a line about a failure.
_MAX_ERROR: Final = 4096


class Spool:
    """All attempts of one agent."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, 0o700, exist_ok=True)

    def prepare(self, attempt_id: str) -> None:
        """Make the folders of an attempt, afresh."""
        try:
            os.mkdir(self._of(attempt_id), 0o700)
        except FileExistsError:
            self.forget(attempt_id)
            os.mkdir(self._of(attempt_id), 0o700)
        os.mkdir(self.work(attempt_id), 0o700)

    def work(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}/work"

    def output(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}/output.json"

    def error_file(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}/error"

    def error(self, attempt_id: str) -> str:
        """Return the line that the zygote or the runner left about a failure, or ""."""
        try:
            with open(self.error_file(attempt_id), "rb") as file:
                text = file.read(_MAX_ERROR).decode("utf-8", "replace")
        except OSError:
            return ""
        return " ".join(text.split())

    def keep(self, finish: Finish) -> None:
        """Write down how an attempt ended; whole or not at all."""
        folder = self._of(finish["attempt_id"])
        new = f"{folder}/outcome.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb", 0) as file:
            file.write(json.dumps(finish).encode())
        os.rename(new, f"{folder}/outcome.json")

    def forget(self, attempt_id: str) -> None:
        """Remove everything of an attempt."""
        folder = self._of(attempt_id)
        try:
            os.unlink(f"{folder}/outcome.json")
            os.rmdir(f"{folder}/work")
            os.rmdir(folder)
        except OSError:
            _remove(folder)

    def is_light(self, attempt_id: str) -> bool:
        """Whether removing the attempt is a matter of microseconds: its task left no files of its own."""
        try:
            return not os.listdir(self.work(attempt_id))
        except OSError:
            return True

    def left(self) -> Iterator[Finish]:
        """Yield the outcomes of a predecessor; remove what has none."""
        for attempt_id in sorted(os.listdir(self.folder)):
            try:
                with open(f"{self.folder}/{attempt_id}/outcome.json", "rb") as file:
                    finish = json.load(file)
            except (OSError, ValueError):
                finish = None
            if isinstance(finish, dict) and finish.get("attempt_id") == attempt_id:
                yield cast("Finish", finish)
            else:
                _remove(self._of(attempt_id))

    def _of(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}"


def _remove(folder: str) -> None:
    """Remove a folder, also when a task took away its own right to."""
    for root, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(f"{root}/{name}"):  # chmod would follow it to somebody else's folder
                with suppress(OSError):
                    os.chmod(f"{root}/{name}", 0o700)
    shutil.rmtree(folder, ignore_errors=True)
