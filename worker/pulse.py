"""The pulse of a remote agent: its registration, and the heartbeat that keeps its lease.

It has a connection and a thread of its own and repeats nothing inside: a beat that fails is followed by the next one.
An answer is waited for as long as the API likes to hold it (a long poll), so that a directive arrives when it is given.
What counts for the lease is the moment in which a beat was *sent*, by the clock that counts sleep.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from worker import VERSION, linux
from worker.http_door import Answer, Request
from worker.protocol import PROTOCOL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from worker.http_door import Lane, Outage
    from worker.protocol import Standing, StopReason

#: How long a refused registration waits: somebody has to change something first.
_REFUSED: Final = 30.0
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
#: The longest that an answer is held back, as the API has it.
_LONGEST_WAIT: Final = 20.0
#: The least time between two beats where a directive is repeated that is being followed.
_SAME_AGAIN: Final = 1.0
#: How long a farewell may take.
_FAREWELL: Final = 3.0
_TIMEOUT: Final = 15.0
#: The most seconds between SIGTERM and SIGKILL; what the task itself says is less.
_ITS_OWN: Final = 3600.0
_REASONS: Final = frozenset({"user", "run_timeout", "fail_fast", "fenced", "drain"})


@dataclass(frozen=True, slots=True)
class Directive:
    """Stop this attempt."""

    attempt_id: str
    reason: StopReason
    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who registers, and as what; what a person configures is in *fields*."""

    worker_id: str
    boot_id: str
    #: Which of all processes of this worker it is.
    boot_number: int
    #: Chosen here, new with every agent: what every beat shows.
    token: str = field(repr=False)


class Heart(Protocol):
    """Who hears of it."""

    def attempts(self) -> list[dict[str, Any]]:
        """Return what is held, as a beat says it."""
        ...

    def takes_nothing(self) -> bool:
        """Whether nothing new may be sent here."""
        ...

    def beaten(self, ttl: float, directives: list[Directive], *, drain: bool) -> bool:
        """The lease holds for *ttl* seconds from now; return whether a directive is new."""
        ...

    def superseded(self, why: str) -> None:
        """Another agent has this one's id."""
        ...

    def stands(self) -> None:
        """The standing changed."""
        ...


class Pulse:
    """One exchange at a time: register until that works, then beat."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lane: Lane, identity: Identity, heart: Heart) -> None:
        self._loop = loop
        self._lane = lane
        self._identity = identity
        self._heart = heart
        self._key = ""
        self._fields: dict[str, Any] = {}
        #: What the standing is, and why where it is not well.
        self.standing: tuple[Standing, str] = ("registering", "")
        self.is_registered = False
        self._is_beating = False
        self._interval = 10.0
        self._failures = 0
        #: What is under way.
        self._flying: Request | None = None
        #: Something is to be told that the exchange under way does not say.
        self._is_nudged = False
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    def configure(self, key: str, fields: dict[str, Any]) -> None:
        """Register as what *fields* say, unless the API knows it already."""
        if self.is_registered and (key, fields) == (self._key, self._fields):
            self.nudge()
            return
        self._key = key
        self._fields = fields
        self.standing = ("registering", "")
        self.register()

    def register(self) -> None:
        """The API does not know this worker, or knows it as something else."""
        self.is_registered = False
        self.nudge()

    def nudge(self) -> None:
        """Say now how things are; an answer that is held back for a directive is not waited for."""
        if self._is_over or not self._fields:
            return
        self._is_nudged = True
        if self._flying is None:
            self._next()
        elif self._is_beating:
            self._lane.cancel(self._flying)

    def stop(self) -> None:
        """Beat no more."""
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()

    def leave(self, then: Callable[[], None]) -> None:
        """Say farewell if that is quickly possible; *then* is called once, whatever comes of it."""
        self.stop()
        if not self.is_registered:
            self._loop.call_soon(then)
            return
        if self._flying is not None:
            self._lane.cancel(self._flying)
        late = self._loop.call_later(_FAREWELL, then)

        def answered(_result: Answer | Outage) -> None:
            if not late.cancelled() and self._loop.time() < late.when():
                late.cancel()
                then()

        who = self._identity
        path = f"/workers/{who.worker_id}?boot_id={who.boot_id}"
        self._lane.send(Request(method="DELETE", path=path, secret=who.token, timeout=_FAREWELL), answered)

    # One exchange after the other

    def _next(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_over or self._flying is not None:
            return
        self._is_nudged = False
        self._is_beating = self.is_registered
        if self.is_registered:
            self._beat()
        else:
            self._register()

    def _after(self, seconds: float) -> None:
        """Go on in *seconds*, or now if there is something to say."""
        self._flying = None
        if self._is_over:
            return
        if self._is_nudged:
            self._next()
        else:
            self._timer = self._loop.call_later(seconds, self._next)

    def _register(self) -> None:
        who = self._identity
        held = [{name: one[name] for name in ("attempt_id", "phase")} for one in self._heart.attempts()]
        document = {
            "protocol": PROTOCOL,
            "version": VERSION,
            "worker_id": who.worker_id,
            "boot_id": who.boot_id,
            "boot_number": who.boot_number,
            "token": who.token,
            **self._fields,
            "attempts": held,
        }
        sent_at, fields = linux.boottime(), self._fields
        self._flying = _post("/workers", self._key, document, _TIMEOUT)
        self._lane.send(self._flying, lambda result: self._registered(sent_at, fields, result))

    def _registered(self, sent_at: float, fields: dict[str, Any], result: Answer | Outage) -> None:
        if not isinstance(result, Answer):
            self._fail(result, random.uniform(0, min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE)))  # noqa: S311  # jitter is no secret
        elif fields is not self._fields:
            self._after(0)  # a feeder came meanwhile
        elif not result.is_ok:
            self._refuse(result)
        elif isinstance(spoken := result.document.get("protocol"), int) and spoken != PROTOCOL:
            self._stand("refused", f"the API speaks worker protocol {spoken}, this worker {PROTOCOL}")
            self._after(_pause(_REFUSED))
        elif (ttl := self._lease(result, sent_at)) is not None:
            self._heart.beaten(ttl, [], drain=False)
            self.is_registered = True
            self._stand("serving", "")
            self._after(0)

    def _refuse(self, answer: Answer) -> None:
        if answer.status == 410:  # noqa: PLR2004  # HTTP calls it Gone
            self.is_registered = False
            self._heart.superseded(answer.problem)
        self._stand("refused", answer.problem)
        self._after(_pause(_REFUSED))

    def _beat(self) -> None:
        who = self._identity
        # After an outage the answer is wanted at once: others wait for it.
        wait = 0.0 if self._failures else min(self._interval, _LONGEST_WAIT)
        document = {
            "boot_id": who.boot_id,
            "draining": self._heart.takes_nothing(),
            "attempts": self._heart.attempts(),
        }
        sent_at = linux.boottime()
        timeout = self._interval + max(1.0, self._interval / 4)
        self._flying = _post(f"/workers/{who.worker_id}/heartbeat?wait={wait:g}", who.token, document, timeout)
        self._lane.send(self._flying, lambda result: self._beaten(sent_at, wait, result))

    def _beaten(self, sent_at: float, wait: float, result: Answer | Outage) -> None:
        if not isinstance(result, Answer):
            if self._is_nudged:
                self._after(0)  # it was interrupted
            else:
                self._fail(result, _pause(min(self._interval, _FIRST_PAUSE * 2**self._failures)))
            return
        if not result.is_ok:
            self._unwelcome(result)
            return
        ttl = self._lease(result, sent_at)
        if ttl is None:
            return
        self._failures = 0
        directives = _directives(result.document)
        is_new = self._heart.beaten(ttl, directives, drain=result.document.get("drain") is True)
        self._stand("serving", "")
        took = linux.boottime() - sent_at
        if is_new or (not directives and took >= wait / 2):
            self._after(0)
        elif directives:
            self._after(_SAME_AGAIN)
        else:
            self._after(max(0.0, _pause(self._interval) - took))

    def _unwelcome(self, answer: Answer) -> None:
        if answer.status == 410:  # noqa: PLR2004  # HTTP calls it Gone
            self._refuse(answer)
            return
        # Not known, or not by this token: a database that was restored, a worker that was removed.
        self.is_registered = False
        self._failures += 1
        self._stand("registering", answer.problem)
        self._after(_pause(min(self._interval, _FIRST_PAUSE * 2**self._failures)) if self._failures > 1 else 0)

    def _lease(self, answer: Answer, sent_at: float) -> float | None:
        """Return how long the lease holds from now; None, and go on, where the answer says nothing of that."""
        lease, interval = answer.document.get("lease"), answer.document.get("heartbeat")
        if isinstance(lease, int | float) and isinstance(interval, int | float) and lease > 0 and interval > 0:
            self._interval = min(float(interval), float(lease) / 2)
            return lease - (linux.boottime() - sent_at)
        self._fail_with("the API said nothing of a lease", self._interval)
        return None

    def _fail(self, outage: Outage, pause: float) -> None:
        self._fail_with(outage.why, max(pause, min(outage.after, self._interval)))

    def _fail_with(self, why: str, pause: float) -> None:
        self._failures = min(self._failures + 1, 16)
        self._stand("unreachable", why)
        self._after(pause)

    def _stand(self, state: Standing, detail: str) -> None:
        if self.standing != (state, detail):
            self.standing = (state, detail)
            self._heart.stands()


def _post(path: str, secret: str, document: dict[str, Any], timeout: float) -> Request:
    body = json.dumps(document).encode()
    return Request(method="POST", path=path, secret=secret, body=lambda: body, timeout=timeout)


def _directives(document: dict[str, Any]) -> list[Directive]:
    """Return the directives that can be followed; one that cannot spoils no other."""
    found = []
    listed = document.get("directives")
    for entry in listed if isinstance(listed, list) else []:
        if not isinstance(entry, dict) or entry.get("directive") != "cancel" or entry.get("reason") not in _REASONS:
            continue
        attempt_id, grace = entry.get("attempt_id"), entry.get("grace")
        if isinstance(attempt_id, str):
            found.append(Directive(attempt_id, entry["reason"], grace if isinstance(grace, int | float) else _ITS_OWN))
    return found


def _pause(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  it spreads load
