"""What the exit codes of ``runyard`` mean; ``docs/reference/cli.md`` is written from here."""

from __future__ import annotations

from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from dag.errors import Invalid, SchemaMismatch, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Exit(IntEnum):
    """An exit code; its value is part of the command line's contract."""

    OK = 0
    #: What was asked about ended badly: a run that failed or was cancelled, documents that were not accepted.
    FAILED = 1
    #: The command line itself is wrong.
    USAGE = 2
    #: No answer from the service.
    UNREACHABLE = 3
    #: No key, an unknown key, or one that may not do this (401, 403), or a name it does not go by (421).
    REFUSED = 4
    #: There is no such thing (404).
    NOT_FOUND = 5
    #: It clashes with what is there now (409, 412).
    CONFLICT = 6
    #: The service says that the input is wrong (400, 413, 415, 422, and any other 4xx).
    INVALID = 7
    #: The service answered that it cannot at the moment (429, 5xx).
    UNAVAILABLE = 8
    #: ``--timeout`` is over and the run still goes on.
    STILL_RUNNING = 9
    #: The home folder cannot be used: not writable, not ours, a key file that is no key.
    HOME = 10
    #: Another service uses this home folder.
    IN_USE = 11
    #: The address cannot be listened on.
    PORT = 12
    #: The database cannot be reached, or is not at the revision of this release.
    DATABASE = 13
    #: A part of the service ended by itself.
    CRASHED = 14
    #: Ctrl-C.
    INTERRUPTED = 130


class Stop(Exception):
    """End the command with *code* after saying *message*, and *hint* as the way out."""

    #: Every single thing that is wrong, each with its ``pointer``, ``message`` and ``hint``.
    problems: Sequence[Mapping[str, Any]] = ()

    def __init__(self, code: Exit, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


@contextmanager
def in_words() -> Iterator[None]:
    """Turn what the database may say at the start of a service or a migration into a Stop."""
    try:
        yield
    except (SchemaMismatch, Unavailable) as error:
        raise Stop(Exit.DATABASE, str(error)) from None
    except Invalid as error:
        raise Stop(Exit.USAGE, error.problems[0].message, error.problems[0].hint) from None
