"""Breaking a store at its k-th statement: in the driver on SQLite, in the wire on Postgres."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from metastore import sqlite
from tests.proxy import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

#: Before the statement; after it, its reply is lost; the process is killed when it is about to be sent, or when it has
#: taken effect and before its reply is there.
Fault = Literal["error before", "lost reply", "kill", "kill unanswered"]
FAULTS: Final[tuple[Fault, ...]] = ("error before", "lost reply", "kill", "kill unanswered")


class Statements:
    """Counts statements, and breaks the *k*-th one."""

    def __init__(self, k: int = 0, fault: Fault = "error before") -> None:
        self.k = k
        self.fault = fault
        self.texts: list[str] = []
        self.fired = ""
        #: Nothing is counted before: how a store is opened is not part of the scenario.
        self.armed = False
        self._lock = threading.Lock()

    def around(self, text: str, run: Callable[[], T]) -> T:
        """Run a statement, or break it."""
        with self._lock:
            if self.armed:
                self.texts.append(text)
            hit = self.armed and len(self.texts) == self.k
        if not hit:
            return run()
        self.fired = text
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault in ("lost reply", "kill unanswered"):
            done = run()
            if self.fault == "kill unanswered":
                os.kill(os.getpid(), signal.SIGKILL)
            if isinstance(done, sqlite3.Cursor):
                done.close()  # as after an error: nothing of it is in progress
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    def connect(self, path: Path) -> sqlite3.Connection:
        """Open a connection of which every statement is counted; in the place of the store's own way."""
        conn = sqlite3.connect(
            path, isolation_level=None, cached_statements=512, check_same_thread=False, factory=_counting(self)
        )
        # Processes die here, and the machine does not lose its power: what was written need not be on the disk.
        for pragma in (*sqlite._PRAGMAS, "PRAGMA synchronous = OFF"):
            conn.execute(pragma).close()
        return conn


def _counting(statements: Statements) -> type[sqlite3.Connection]:
    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *given: Any) -> Any:
            return statements.around(sql, lambda: sqlite3.Cursor.execute(self, sql, *given))

        def executemany(self, sql: str, given: Any) -> Any:
            return statements.around(sql, lambda: sqlite3.Cursor.executemany(self, sql, given))

    class Connection(sqlite3.Connection):
        def cursor(self, *_: Any) -> Any:
            return super().cursor(Cursor)

        def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
            return self.cursor().execute(sql, *given)  # type: ignore[no-any-return]  # the typeshed's cursor is Any

        def executemany(self, sql: str, given: Any) -> sqlite3.Cursor:
            return self.cursor().executemany(sql, given)  # type: ignore[no-any-return]  # as above

        def commit(self) -> None:
            if self.in_transaction:
                statements.around("COMMIT", super().commit)

    return Connection


class Cutter(Wire):
    """A wire to Postgres that breaks at the k-th message which asks for an answer.

    It counts from the first connection on: where a store is opened is broken as well.
    """

    def __init__(self, url: str, k: int = 0, fault: Fault = "error before") -> None:
        parts = urlsplit(url)
        socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        super().__init__(lambda: asyncio.open_unix_connection(socket))
        self._database = parts.path
        self._unread: dict[int, bytes] = {}
        #: By the name of a connection; a list that is kept leaves its id to no other one.
        self._greeted: dict[int, list[str]] = {}
        self._reader = Reader()
        self.k = k
        self.fault = fault
        self.texts: list[str] = []
        self.fired = ""
        self.armed = True
        #: The process behind this wire, which is killed; once it is, nothing of it passes.
        self.victim = 0
        self.dead = False

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}{self._database}?sslmode=disable"

    def up(self, data: bytes, notes: list[str]) -> bytes | None:
        if self.dead:
            return None
        passed = b""
        for message in self._messages(data, notes):
            text = self._reader.read(message)
            if self.armed and text is not None:
                self.texts.append(text)
                if len(self.texts) == self.k:
                    self.fired = text
                    if self.fault == "kill":
                        self._kill()
                    if self.fault in ("error before", "kill"):
                        return None
                    notes.append("lost")
            passed += message
        return passed

    def down(self, data: bytes, notes: list[str]) -> bytes | None:
        if "lost" not in notes:
            return data
        if self.fault == "kill unanswered" and not self.dead:
            self._kill()
        return None

    def _kill(self) -> None:
        # It waits for its answer, which it never gets; and whatever would wake it, it dies of this first.
        os.kill(self.victim, signal.SIGKILL)
        self.dead = True

    def _messages(self, data: bytes, notes: list[str]) -> Iterator[bytes]:
        """Cut the stream of one connection, named by its *notes*, into messages; the first one has no type."""
        name = id(notes)
        data = self._unread.pop(name, b"") + data
        while True:
            begin = 1 if name in self._greeted else 0
            size = begin + int.from_bytes(data[begin : begin + 4], "big")
            if len(data) < begin + 4 or len(data) < size:
                self._unread[name] = data
                return
            self._greeted[name] = notes
            yield data[:size]
            data = data[size:]


class Reader:
    """Tells what the messages to Postgres ask for."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, str] = {}
        self._asked = ""

    def read(self, message: bytes) -> str | None:
        """Return the text of what is asked for, where *message* is the one that asks for an answer."""
        kind, body = message[:1], message[5:]
        match kind:
            case b"Q":
                return body.rstrip(b"\0").decode()
            case b"P":
                name, text, _ = body.split(b"\0", 2)
                self._prepared[name] = text.decode()
                self._asked = f"PREPARE {text.decode()}"
            case b"B":
                _, name, _ = body.split(b"\0", 2)
                self._asked = self._prepared[name]
            case b"S" | b"H":
                return self._asked
        return None
