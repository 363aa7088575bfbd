"""A wire that breaks on command, between a store and its Postgres."""

from __future__ import annotations

import asyncio
import re
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from tests.proxy import Wire

#: What happens at a COMMIT: its reply is lost, it never arrives, or both wait in silence.
Fault = Literal["lose the reply", "lose the commit", "hold the reply"]

_COMMIT = re.compile(rb"Q.{4}COMMIT", re.DOTALL)


class Proxy(Wire):
    """Passes bytes on; breaks the wire at the next COMMITs as often as it is told to."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        super().__init__(lambda: asyncio.open_unix_connection(socket))
        self._database = parts.path
        self._faults: list[Fault] = []
        self.commits = 0
        self.held = asyncio.Event()

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}{self._database}?sslmode=disable"

    def break_at_commit(self, *faults: Fault) -> None:
        """Meet the next COMMITs with one fault each."""
        self._faults = list(faults)

    def fall_silent(self, *, silent: bool = True) -> None:
        """Swallow everything in both directions, and answer nobody: a cable that was cut."""
        self.silent = silent

    def up(self, data: bytes, notes: list[str]) -> bytes | None:
        if _COMMIT.search(data):
            self.commits += 1
            if self._faults:
                fault = self._faults.pop(0)
                if fault == "lose the commit":
                    return None
                notes.append(fault)
        return data

    def down(self, data: bytes, notes: list[str]) -> bytes | None:
        if "lose the reply" in notes:
            return None
        if "hold the reply" in notes:
            self.held.set()
            return b""
        return data
