"""Who is asking: API keys, their scopes, and the callers they make.

A key is ``runyard_<key id>_<secret>_<checksum>``: 80 random bits to look it up by, 256 random bits that only their
SHA-256 is stored of (a fast hash is right for that many), and a CRC-32 that refuses typos without asking the
database.  It travels in the ``Authorization`` header only.  What a route needs is declared on the route object
(:mod:`api.routing`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import structlog

from api.problems import UNAUTHENTICATED, Refused
from dag.errors import Forbidden, NotFound
from metastore.commands.keys import touch_key
from metastore.queries import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.datastructures import Headers

    from dag.world import Clock, Entropy
    from metastore.records import KeyRecord
    from metastore.store import Store

log = structlog.get_logger(__name__)

#: A looked-up key is believed for this long, so a revoked one is refused everywhere within it.
BELIEVED: Final = 0.5
#: ``last_used_at`` is written at most this often.
TOUCHED: Final = timedelta(minutes=1)
#: How many looked-up keys are remembered.
_REMEMBERED: Final = 4096
#: What a key looks like.
KEY_FORM: Final = re.compile(r"(runyard_([a-z2-7]{16})_([a-z2-7]{52}))_([0-9a-f]{8})", re.ASCII)


class Scope(StrEnum):
    """A right.  ``admin`` has all of them; of the others none implies another."""

    #: See DAGs, runs, tasks, outputs, events, executors and metrics.
    READ = "read"
    #: Read what tasks wrote to their logs.
    LOGS = "logs"
    #: Trigger runs of the current version, cancel and clear them.
    TRIGGER = "trigger"
    #: Put, patch and delete DAGs, which is to say what commands run; choose an older version for a run.
    DEFINE = "define"
    #: Register workers, which is to say see what tasks are given and tell how they ended.
    WORK = "work"
    #: Everything, and the keys themselves.
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, and what for."""

    key_id: str
    scopes: frozenset[str]
    #: The caller knows only DAGs whose id starts with this; None: all.
    dag_prefix: str | None
    #: The queues that a worker of this caller may serve; None: all.
    queues: tuple[str, ...] | None
    #: The secret part of its key: what its cursors and its new keys are derived from; never stored.
    secret: bytes = field(repr=False)

    @property
    def actor(self) -> str:
        """How events name it."""
        return f"key:{self.key_id}"

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def require(self, scope: Scope, reason: str = "This call") -> None:
        """Raise :exc:`~dag.errors.Forbidden` without *scope*."""
        if not self.may(scope):
            held = ", ".join(sorted(self.scopes)) or "none"
            raise Forbidden(f"{reason} needs the scope {scope.value!r}; your key has: {held}.")

    def everywhere(self, reason: str = "This call") -> None:
        """Raise :exc:`~dag.errors.Forbidden` for a key that is limited to a DAG prefix."""
        if self.dag_prefix is not None:
            raise Forbidden(f"{reason} concerns the whole installation; your key is limited to {self.dag_prefix!r}.")

    def serves(self, queues: Iterable[str]) -> None:
        """Raise :exc:`~dag.errors.Forbidden` for a queue that a worker of this caller may not serve."""
        if self.queues is not None and (others := sorted(set(queues) - set(self.queues))):
            raise Forbidden(f"Your key is for the queues {', '.join(self.queues)}, not for {', '.join(others)}.")

    def sees(self, dag_id: str) -> None:
        """Raise :exc:`~dag.errors.NotFound` for a DAG that this caller may not know of."""
        if self.dag_prefix is not None and not dag_id.startswith(self.dag_prefix):
            raise NotFound("DAG", dag_id)

    def derive(self, purpose: bytes) -> bytes:
        """Return 32 bytes that only this key can make again."""
        return hmac.digest(self.secret, purpose, "sha256")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only moment its text is known."""

    key_id: str
    secret_hash: str
    text: str = field(repr=False)


def new_key(entropy: Entropy) -> NewKey:
    """Return a new random key; its owner gets the text, the metastore the hash."""
    return make_key(new_key_id(entropy), entropy.token(32))


def new_key_id(entropy: Entropy) -> str:
    """Return the public part of a new key."""
    return _base32(entropy.token(10))


def make_key(key_id: str, secret: bytes) -> NewKey:
    """Return the key of *secret*, 32 random bytes."""
    text = _base32(secret)
    body = f"runyard_{key_id}_{text}"
    return NewKey(key_id, _hash(text.encode()), f"{body}_{zlib.crc32(body.encode()):08x}")


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


@dataclass(slots=True)
class _Belief:
    """What was known of a key, and when."""

    record: KeyRecord | None
    #: The caller it makes, once its secret was shown; so that a request costs no new one.
    caller: Caller | None
    at: float
    #: Whether its use was noted, as far as that is due.
    touched: bool = False


class Authenticator:
    """Turns an ``Authorization`` header into a caller."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._beliefs: dict[str, _Belief] = {}
        self._asking: dict[str, asyncio.Task[_Belief]] = {}
        self._touching: dict[str, asyncio.Task[None]] = {}

    async def caller(self, headers: Headers) -> Caller:
        """Return who is asking, or refuse with a 401 that does not say which part was wrong."""
        given = headers.getlist("authorization")
        if not given:
            raise _unauthenticated("This needs an API key: Authorization: Bearer runyard_….")
        if len(given) > 1:
            raise _unauthenticated("There is more than one Authorization header.")
        scheme, _, text = given[0].partition(" ")
        found = KEY_FORM.fullmatch(text) if scheme.lower() == "bearer" else None
        if found is None or f"{zlib.crc32(found[1].encode()):08x}" != found[4]:
            raise _unauthenticated("The Authorization header has no well-formed key: Bearer runyard_….")
        caller = await self._check(found[2], found[3].encode())
        if caller is None:
            raise _unauthenticated("The API key is not valid: unknown, revoked or expired.")
        return caller

    async def still_valid(self, caller: Caller) -> bool:
        """Whether *caller*'s key is neither revoked nor expired nor less than it was; for long-lived answers."""
        return await self._check(caller.key_id, caller.secret) == caller

    async def _check(self, key_id: str, secret: bytes) -> Caller | None:
        belief = self._beliefs.get(key_id)
        if belief is None or self._clock.monotonic() - belief.at > BELIEVED:
            belief = await self._ask(key_id)
        record = belief.record
        if record is None:
            return None
        if belief.caller is None or not hmac.compare_digest(belief.caller.secret, secret):
            if not hmac.compare_digest(_hash(secret), record.secret_hash):
                return None
            queues = None if record.queues is None else tuple(record.queues)
            belief.caller = Caller(key_id, frozenset(record.scopes), record.dag_prefix, queues, secret)
        now = self._clock.now()
        if record.revoked_at is not None or (record.expires_at is not None and record.expires_at <= now):
            return None
        if not belief.touched and (record.last_used_at is None or now - record.last_used_at >= TOUCHED):
            belief.touched = True
            self._touch(key_id)
        return belief.caller

    async def _ask(self, key_id: str) -> _Belief:
        """Look the key up, once for everybody who wants to know at the same time."""
        asking = self._asking.get(key_id)
        if asking is None:
            asking = asyncio.create_task(self._look_up(key_id))
            self._asking[key_id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key_id, None))
        return await asyncio.shield(asking)

    async def _look_up(self, key_id: str) -> _Belief:
        at = self._clock.monotonic()
        belief = _Belief(await self._store.read(keys.get, key_id), None, at)
        if belief.record is not None:
            if len(self._beliefs) >= _REMEMBERED:
                self._beliefs.clear()
            self._beliefs[key_id] = belief
        return belief

    def _touch(self, key_id: str) -> None:
        """Write ``last_used_at``, off the request's path."""
        if key_id not in self._touching:
            task = asyncio.create_task(self._write_touch(key_id))
            self._touching[key_id] = task
            task.add_done_callback(lambda _: self._touching.pop(key_id, None))

    async def _write_touch(self, key_id: str) -> None:
        try:
            await self._store.write(touch_key, key_id)
        except Exception:  # a missed touch costs nothing; the request it belongs to goes on
            log.warning("key not touched", key_id=key_id, exc_info=True)


def scopes_of(names: Iterable[str]) -> list[str]:
    """Return *names* without repetition, in the order of :class:`Scope`."""
    return [scope.value for scope in Scope if scope.value in set(names)]


def _unauthenticated(detail: str) -> Refused:
    return Refused(
        UNAUTHENTICATED,
        detail,
        headers={"WWW-Authenticate": 'Bearer realm="runyard"'},
        hint="Make a key with POST /api/v1/keys or `runyard keys create`; `runyard standalone` keeps its first one in "
        "$RUNYARD_HOME/admin.key.",
    )
