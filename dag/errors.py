"""What can be wrong, in one tree.  An error takes the facts and writes its own sentence; HTTP words live in the API."""

# RunyardError
# ├── NotFound               nothing of that name
# ├── Conflict               it clashes with what is there now
# │   ├── AlreadyExists
# │   ├── IllegalStep        the state tables say no
# │   ├── StillActive        something of it is still running
# │   ├── KeyReused          an idempotency key with another request
# │   └── RevisionMismatch   it was changed since the caller looked
# ├── Invalid                the caller's input is wrong; carries every problem at once
# │   └── DocumentInvalid
# ├── Forbidden              known caller, not allowed
# ├── BadCredential          what it shows is not the secret that this thing asks for
# ├── Gone                   it was there, and the caller's part in it is over
# ├── SchemaMismatch         this release and the database are of different ages
# └── Unavailable            not now; trying again is right

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with an input: where, what, which rule, and the way out."""

    #: A JSON pointer (RFC 6901) into the input; "" is the whole.
    pointer: str
    #: A stable, machine-readable name of the rule, such as ``unknown_field`` or ``not_supported``.
    code: str
    #: A sentence that says what is wrong.
    message: str
    #: What to do about it.
    hint: str = ""


class RunyardError(Exception):
    """Any condition that Runyard names itself."""


class NotFound(RunyardError):
    """There is no such thing, or the caller may not know of it."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"There is no {kind} {name!r}.")
        self.kind = kind
        self.name = name


class Conflict(RunyardError):
    """The request clashes with the present state."""


class AlreadyExists(Conflict):
    """The name is taken."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"A {kind} {name!r} already exists.")
        self.kind = kind
        self.name = name


class IllegalStep(Conflict):
    """A step that the state tables do not know."""

    def __init__(self, state: str, taken: str) -> None:
        # Both may be members of an enumeration, whose repr is not their value.
        super().__init__(f"{str(taken)!r} is not possible in state {str(state)!r}.")
        self.state = state
        self.taken = taken


class StillActive(Conflict):
    """Something of it has not ended yet."""

    def __init__(self, kind: str, name: str, hint: str) -> None:
        super().__init__(f"The {kind} {name!r} is still active. {hint}")


class KeyReused(Conflict):
    """An idempotency key came back with a different request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"The idempotency key {key!r} was used for a different request before.")


class RevisionMismatch(Conflict):
    """It was changed since the caller looked at it."""

    def __init__(self, kind: str, name: str, expected: int, actual: int | None) -> None:
        now = "does not exist" if actual is None else f"is at revision {actual}"
        super().__init__(f"The {kind} {name!r} {now}, not at revision {expected}: it was changed meanwhile.")
        self.expected = expected
        self.actual = actual


class Invalid(RunyardError):
    """The input breaks one or more rules; *problems* has them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.message}" for p in problems[:5]))
        self.problems = tuple(problems)


class DocumentInvalid(Invalid):
    """A DAG document that cannot be accepted."""


class Forbidden(RunyardError):
    """The caller is known and may not do this."""


class BadCredential(RunyardError):
    """The secret that came with the request is not the one of what it is about."""


class Gone(RunyardError):
    """It was there, and it is over for the caller for good."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        #: A stable name of why: ``attempt_gone``, ``worker_superseded``.
        self.code = code


class SchemaMismatch(RunyardError):
    """The database's schema is not the one that this release works with."""

    def __init__(self, found: str | None, wanted: str, *, newer: bool) -> None:
        if newer:
            text = (
                f"The database is at schema revision {found!r}, which this release does not know; it works with "
                f"{wanted!r}. Start the newer Runyard that wrote it, or downgrade the database with that one: "
                f"runyard db downgrade {wanted}"
            )
        else:
            text = (
                f"The database is at schema revision {found or 'none'!r}, older than {wanted!r}, which this release "
                "works with. Bring it up: runyard db upgrade"
            )
        super().__init__(text)
        self.found = found
        self.wanted = wanted
        self.newer = newer


class Unavailable(RunyardError):
    """Not possible at the moment; the same request may work later."""
