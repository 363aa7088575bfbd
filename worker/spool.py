"""The folders of attempts: where a task works, and where its end is written down before it is sent.

``attempts/<attempt id>/`` holds ``work/`` (the private folder of the task), ``output.json`` and ``error`` (left by the
task's side) and ``outcome.json``: the finish message as it will be sent, boot id included.  An agent that finds the
outcome of a dead predecessor sends it as it is: that attempt did end, and ended like this.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from worker.protocol import Finish

#: The most bytes of a line about a failure.
_MAX_ERROR: Final = 4096


class Spool:
    """All attempts of one agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def prepare(self, attempt_id: str) -> None:
        """Make the folders of an attempt, afresh."""
        try:
            os.mkdir(self._of(attempt_id), 0o700)  # noqa: PTH102  on the hot path
        except FileExistsError:
            shutil.rmtree(self._of(attempt_id))
            self._of(attempt_id).mkdir(0o700)
        os.mkdir(self.work(attempt_id), 0o700)  # noqa: PTH102  on the hot path

    def work(self, attempt_id: str) -> Path:
        return self._of(attempt_id) / "work"

    def output(self, attempt_id: str) -> Path:
        return self._of(attempt_id) / "output.json"

    def error_file(self, attempt_id: str) -> Path:
        return self._of(attempt_id) / "error"

    def error(self, attempt_id: str) -> str:
        """Return the line that the zygote or the runner left about a failure, or ""."""
        try:
            with self.error_file(attempt_id).open("rb") as file:
                text = file.read(_MAX_ERROR).decode("utf-8", "replace")
        except OSError:
            return ""
        return " ".join(text.split())

    def keep(self, finish: Finish) -> None:
        """Write down how an attempt ended; whole or not at all."""
        folder = self._of(finish["attempt_id"])
        new = folder / "outcome.new"
        new.write_text(json.dumps(finish))
        os.rename(new, folder / "outcome.json")  # noqa: PTH104  on the hot path

    def forget(self, attempt_id: str) -> None:
        """Remove everything of an attempt."""
        folder = self._of(attempt_id)
        for file in ("outcome.json", "outcome.new", "output.json", "error"):
            with suppress(OSError):
                os.unlink(folder / file)  # noqa: PTH108  on the hot path
        try:
            os.rmdir(folder / "work")  # noqa: PTH106  on the hot path
            os.rmdir(folder)  # noqa: PTH106
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)

    def is_light(self, attempt_id: str) -> bool:
        """Whether removing the attempt is a matter of microseconds."""
        try:
            with os.scandir(self.work(attempt_id)) as entries:
                return next(entries, None) is None
        except OSError:
            return True

    def left(self) -> Iterator[Finish]:
        """Yield the outcomes of a predecessor; remove what has none."""
        for folder in sorted(self.folder.iterdir()):
            try:
                finish = json.loads((folder / "outcome.json").read_bytes())
            except (OSError, ValueError):
                finish = None
            if isinstance(finish, dict) and finish.get("attempt_id") == folder.name:
                yield cast("Finish", finish)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _of(self, attempt_id: str) -> Path:
        return self.folder / attempt_id
