"""The credentials that workers show: none of them is an API key, and each opens one thing.

A worker *token* and an attempt *key* are chosen by whoever shows them, 256 random bits, sent once in the body of the
call that makes them known; what is stored of them is the SHA-256, so that a repeated request finds them again.  A
*ticket* (:mod:`dag.tickets`) is a MAC over the attempt's id: it is checked here, before anything of the request is
read.  Whose token or key was shown is for the command to say, in the transaction that it is shown for.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from api.auth import KEY_FORM
from api.problems import BAD_CREDENTIAL, Refused
from dag.tickets import holds
from metastore.commands.workers import signing_key

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from metastore.store import Store


class Credential(StrEnum):
    """What a route of the worker protocol asks for instead of an API key."""

    #: The token that a worker chose when it registered.
    TOKEN = "worker_token"  # noqa: S105  # the name of a kind, not one of them
    #: The ticket that came with the offer of an attempt; it opens the start of that attempt.
    TICKET = "ticket"
    #: The key that a supervisor chose when it started an attempt.
    KEY = "attempt_key"

    @property
    def named(self) -> str:
        """What people call it."""
        return {"worker_token": "a worker token", "ticket": "a ticket", "attempt_key": "an attempt key"}[self.value]


#: What a token or a key looks like: ``secrets.token_urlsafe(32)``, say.
SECRET_PATTERN: Final = r"^[A-Za-z0-9_-]{32,200}$"  # noqa: S105  # its form, not one of them
ATTEMPT_ID_PATTERN: Final = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="runyard worker"'}

_SECRET: Final = re.compile(SECRET_PATTERN[1:-1], re.ASCII)
_TICKET: Final = re.compile(r"rt1\.[A-Za-z0-9_-]{43}", re.ASCII)
_ATTEMPT_ID: Final = re.compile(ATTEMPT_ID_PATTERN[1:-1], re.ASCII)


def hash_of(secret: str) -> str:
    """Return what is stored of a token or a key; a fast hash is right for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def equal(shown_hash: str, stored: str | None) -> bool:
    """Whether what was shown is what is stored; takes the same time whatever it is."""
    return hmac.compare_digest(shown_hash, stored or "")


def is_attempt_id(text: str) -> bool:
    """Whether *text* can be the id of an attempt."""
    return _ATTEMPT_ID.fullmatch(text) is not None


def shown(headers: Headers, wanted: Credential) -> str:
    """Return the text of the one credential in *headers*, or refuse with a 401 that says which kind is wanted."""
    given = headers.getlist("authorization")
    if not given:
        raise refused(f"This call needs {wanted.named}: Authorization: Bearer ….")
    if len(given) > 1:
        raise refused("There is more than one Authorization header.")
    scheme, _, text = given[0].partition(" ")
    form = _TICKET if wanted is Credential.TICKET else _SECRET
    if scheme.lower() != "bearer":
        raise refused(f"This call needs {wanted.named} as Authorization: Bearer ….")
    if KEY_FORM.fullmatch(text):
        raise refused(f"This call needs {wanted.named}, and this is an API key.")
    if wanted is not Credential.TICKET and _TICKET.fullmatch(text):
        raise refused(f"This call needs {wanted.named}, and this is a ticket.")
    if form.fullmatch(text) is None:
        raise refused(f"The Authorization header has no well-formed credential; this call needs {wanted.named}.")
    return text


def refused(detail: str) -> Refused:
    return Refused(BAD_CREDENTIAL, detail, headers=CHALLENGE)


class Tickets:
    """Checks tickets with the key of the installation, which never changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key: bytes | None = None

    async def check(self, attempt_id: str, ticket: str) -> None:
        """Refuse a ticket that is not the one of *attempt_id*."""
        if self._key is None:
            self._key = await self._store.write(signing_key)
        if not (is_attempt_id(attempt_id) and holds(self._key, attempt_id, ticket)):
            raise refused("The ticket is not the one of this attempt.")
