"""The files of attempts: where a task works, and where its end is written down before it is sent.

In ``attempts/`` each attempt has ``<id>/`` (the private folder of the task), ``<id>.output`` and ``<id>.error`` (left
by the task's side).  ``outcomes`` has a line for every end, the finish message as it will be sent, boot id included,
and a line for every answer to one.  An agent that finds an end of a dead predecessor without an answer sends it as it
is: that attempt did end, and ended like this.

A remote agent has two more: ``<id>.log``, the log on its way to the API, and in ``outcomes`` a line with the key of
each attempt that it asks to start.  So its successor can send the log of an attempt that died with it, and an agent
that cannot write starts nothing.

Nothing is created and deleted for each attempt where that can be helped: on ext4 every new file looks at all that were
deleted in the last five seconds, and at 300 attempts a second that alone took three milliseconds each.  So ends share
one file, and an empty folder is handed from one attempt to the next.
"""

# Every attempt comes through here several times; pathlib would take a tenth of the agent's time.
# ruff: noqa: PTH101, PTH102, PTH103, PTH104, PTH106, PTH108, PTH110, PTH112, PTH114, PTH116, PTH123, PTH208
from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from worker.protocol import Finish

#: The most characters of a line about a failure.
_MAX_ERROR: Final = 4096
#: What a database refuses in a text, a terminal obeys, or no encoding has.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: How long the file of outcomes may get while nothing in it is needed any more, and while something is.
_LONG: Final = 1024 * 1024
_TOO_LONG: Final = 64 * 1024 * 1024
#: How many empty folders are kept for attempts to come.
_SPARES: Final = 64
_PRIVATE: Final = 0o700
_APPENDED: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Spool:
    """All attempts of one agent."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, _PRIVATE, exist_ok=True)
        self._open: dict[str, Finish]
        self._begun: dict[str, str]
        self._open, self._begun = _unanswered(f"{folder}/outcomes")
        self._spares: deque[str] = deque()
        self._spared = 0
        self._file = -1
        self._is_torn = False
        self._compact()

    def left(self) -> list[Finish]:
        """Return the unanswered ends of a predecessor; remove everything else that it left, but for logs."""
        logs = {attempt_id for attempt_id in self._begun if os.path.exists(self.log(attempt_id))}
        for name in os.listdir(self.folder):
            attempt_id, _, kind = name.partition(".")
            if name != "outcomes" and attempt_id not in self._open and (kind != "log" or attempt_id not in logs):
                self.forget(attempt_id, but_log=attempt_id in logs)
                shutil.rmtree(f"{self.folder}/{name}", ignore_errors=True)
        for attempt_id in self._begun.keys() - logs:
            self.answered(attempt_id)
        return list(self._open.values())

    def orphans(self) -> dict[str, str]:
        """Return the keys of attempts that ran when a predecessor died, and whose logs it left."""
        return dict(self._begun)

    def begin(self, attempt_id: str, key: str, reserve: int) -> None:
        """Write down that an attempt is going to be asked for; raise OSError where its end might find no room."""
        self._check_room(reserve)
        self._write({"begun": attempt_id, "key": key})
        self._begun[attempt_id] = key

    def probe(self, reserve: int) -> None:
        """Raise OSError where an attempt could not be begun."""
        self._check_room(reserve)
        self._write({})

    def _check_room(self, reserve: int) -> None:
        self._be_there()
        disk = os.statvfs(self.folder)
        if disk.f_bavail * disk.f_frsize < reserve:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def prepare(self, attempt_id: str) -> None:
        """Make the folder of an attempt, afresh."""
        work = self.work(attempt_id)
        try:
            if self._spares:
                os.rename(self._spares.popleft(), work)
            else:
                os.mkdir(work, _PRIVATE)
        except OSError:
            self._be_there()
            self.forget(attempt_id)
            os.mkdir(work, _PRIVATE)

    def _be_there(self) -> None:
        """Make the folder again that a task has removed: it is of our user, and its own folder is a step away."""
        if not os.path.isdir(self.folder):
            os.makedirs(self.folder, _PRIVATE)
            self._spares.clear()
            self._compact()

    def work(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}"

    def output(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}.output"

    def log(self, attempt_id: str) -> str:
        """Return where the log of a remote agent's attempt is."""
        return f"{self.folder}/{attempt_id}.log"

    def error_file(self, attempt_id: str) -> str:
        return f"{self.folder}/{attempt_id}.error"

    def error(self, attempt_id: str) -> str:
        """Return the line that the zygote or the runner left about a failure, or ""."""
        try:
            with open(self.error_file(attempt_id), "rb") as file:
                text = file.read(4 * _MAX_ERROR).decode("utf-8", "replace")
        except OSError:
            return ""
        return one_line(text)

    def keep(self, finish: Finish) -> None:
        """Write down how an attempt ended."""
        self._begun.pop(finish["attempt_id"], None)
        self._open[finish["attempt_id"]] = finish
        self._write({"finish": finish})

    def answered(self, attempt_id: str) -> None:
        """Note that nothing of an attempt needs to be sent again; losing this line costs one message."""
        if self._open.pop(attempt_id, None) is None and self._begun.pop(attempt_id, None) is None:
            return
        with suppress(OSError):
            size = self._write({"answered": attempt_id})
            if size > (_TOO_LONG if self._open or self._begun else _LONG):
                self._compact()

    def forget(self, attempt_id: str, *, but_log: bool = False) -> None:
        """Remove the files of an attempt, however many and whatever their modes; this may take long."""
        for name in (self.output(attempt_id), self.error_file(attempt_id), self.log(attempt_id))[: 2 if but_log else 3]:
            with suppress(FileNotFoundError):
                os.unlink(name)
        work = self.work(attempt_id)
        try:
            if len(self._spares) < _SPARES and _is_as_new(work):
                self._spared += 1
                spare = f"{self.folder}/spare.{self._spared}"
                os.rename(work, spare)
                self._spares.append(spare)
            else:
                os.rmdir(work)
        except FileNotFoundError:
            pass
        except OSError:
            _remove(work)

    def _write(self, line: dict[str, Any]) -> int:
        """Append a line; return the length of the file.  A line that a full disk cut off spoils no other one."""
        data = json.dumps(line).encode() + b"\n"
        if self._is_torn:
            data = b"\n" + data
        written = os.write(self._file, data)
        self._is_torn = written < len(data)
        if self._is_torn:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.lseek(self._file, 0, os.SEEK_CUR)

    def _compact(self) -> None:
        """Start the file of outcomes afresh with what is unanswered; go on with the old one where there is no room."""
        name = f"{self.folder}/outcomes"
        old, was_torn = self._file, self._is_torn
        try:
            self._file = os.open(f"{name}.new", _APPENDED | os.O_TRUNC, 0o600)
            self._is_torn = False
            for attempt_id, key in self._begun.items():
                self._write({"begun": attempt_id, "key": key})
            for finish in self._open.values():
                self._write({"finish": finish})
            os.rename(f"{name}.new", name)
        except OSError:
            new, self._file, self._is_torn = self._file, old, was_torn
            if new >= 0 and new != old:
                os.close(new)
            if old < 0:
                # Ends of a predecessor are told from a full disk, too; its last line may have been cut off.
                self._file, self._is_torn = os.open(name, _APPENDED, 0o600), True
        else:
            if old >= 0:
                os.close(old)


def one_line(text: str) -> str:
    """Return *text* as one bounded line that can be encoded, stored and shown; doing it again changes nothing."""
    line = _UNFIT.sub(_escape, " ".join(text[: 4 * _MAX_ERROR].split()))
    return line if len(line) <= _MAX_ERROR else line[: _MAX_ERROR - 1] + "…"


def _escape(found: re.Match[str]) -> str:
    return ascii(found.group())[1:-1]


def _unanswered(file: str) -> tuple[dict[str, Finish], dict[str, str]]:
    """Return the ends in *file* that have no answer, and the keys of what was begun and has no end there.

    A line that was cut off by a crash counts as nothing.
    """
    ends: dict[str, Finish] = {}
    begun: dict[str, str] = {}
    with suppress(FileNotFoundError), open(file, "rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "finish" in entry:
                ends[entry["finish"]["attempt_id"]] = entry["finish"]
                begun.pop(entry["finish"]["attempt_id"], None)
            elif "begun" in entry:
                begun[entry["begun"]] = entry["key"]
            else:
                ends.pop(entry.get("answered"), None)
                begun.pop(entry.get("answered"), None)
    return ends, begun


def _is_as_new(folder: str) -> bool:
    """Whether nothing tells *folder* from one that was just made."""
    found = os.stat(folder, follow_symlinks=False)
    return (
        stat.S_ISDIR(found.st_mode)
        and stat.S_IMODE(found.st_mode) == _PRIVATE
        and found.st_uid == os.getuid()
        and not os.listdir(folder)
        and all(name.startswith("security.") for name in os.listxattr(folder))  # the system's own labels
    )


def _remove(folder: str) -> None:
    with suppress(OSError):
        os.chmod(folder, _PRIVATE)
    for root, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(f"{root}/{name}"):  # chmod would follow it to somebody else's folder
                with suppress(OSError):
                    os.chmod(f"{root}/{name}", _PRIVATE)
    shutil.rmtree(folder, ignore_errors=True)
