"""Calls that travel together: what comes while a request is on its way goes into the next one, all of it.

A request costs both sides more than the start or the end it is about.  A worker that has something to say now and then
says it at once, by itself; a busy one sends a few of them in one (``POST /worker/v1/attempts``).  To whoever makes a
call nothing is different: each has its own answer or outage, and may be repeated.
"""

from __future__ import annotations

import json
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from worker.http_door import Answer, Outage, Request, retry_after, says_nothing
from worker.say import say
from worker.spool import one_line

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    Then = Callable[[Answer | Outage], None]
    Call = tuple[Request, Then]

#: The most calls in one request, and the most bytes: the API takes 4 MiB, the proxies before it often 1 MiB.
_MOST: Final = 32
_HEAVIEST: Final = 768 * 1024
#: So many requests are on their way at once before calls wait for each other.
_AT_ONCE: Final = 1
#: A call that has waited for so long takes a connection of its own, if there is one: something holds the others up.
_PATIENCE: Final = 0.03
#: For how long calls go by themselves: after the API did not take several at once, and after an outage, which one of
#: them may have been the cause of.
_APART: Final = 60.0
_CAREFUL: Final = 5.0
#: The list that a call goes into, and what its credential is called there, by the last word of its path.
_LISTS: Final = {"start": ("starts", "ticket"), "finish": ("finishes", "key")}


class Line(Protocol):
    """What makes requests: a lane, or :class:`Bundles` on top of one."""

    def send(self, request: Request, then: Then) -> None:
        """Make one; *then* gets its result, on the loop."""
        ...


class Bundles:
    """The calls of one lane."""

    def __init__(self, loop: asyncio.AbstractEventLoop, lane: Line) -> None:
        self._loop = loop
        self._lane = lane
        self._key = ""
        self._waiting: deque[Call] = deque()
        self._flying = 0
        self._timer: asyncio.TimerHandle | None = None
        self._apart_until = 0.0

    def aim(self, key: str) -> None:
        """Show *key*, an API key with the scope ``work``, for several at once."""
        self._key = key
        self._apart_until = 0.0

    def send(self, request: Request, then: Then) -> None:
        """Make a call; *then* gets its result."""
        if not 0 < request.weight <= _HEAVIEST:
            self._lane.send(request, then)
            return
        self._waiting.append((request, then))
        if self._flying < _AT_ONCE:
            self._go()
        elif self._timer is None:
            self._timer = self._loop.call_later(_PATIENCE, self._go)

    def _go(self) -> None:
        """Send what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop.time() < self._apart_until:
            while self._waiting:
                self._lane.send(*self._waiting.popleft())
            return
        calls = self._next()
        self._flying += 1
        request = calls[0][0] if len(calls) == 1 else _bundle(calls, self._key)
        self._lane.send(request, partial(self._back, calls, self._key))
        if self._waiting:
            self._timer = self._loop.call_later(_PATIENCE, self._go)

    def _next(self) -> list[Call]:
        """Take the first, and what fits into one request with it."""
        calls = [self._waiting.popleft()]
        weight = calls[0][0].weight
        while self._waiting and len(calls) < _MOST and weight + self._waiting[0][0].weight <= _HEAVIEST:
            calls.append(self._waiting.popleft())
            weight += calls[-1][0].weight
        return calls

    def _back(self, calls: Sequence[Call], key: str, result: Answer | Outage) -> None:
        self._flying -= 1
        for then, each in self._settle(calls, key, result):
            # By the loop: what one of them makes of its result is nothing to the others.
            self._loop.call_soon(then, each)
        if self._waiting and self._flying < _AT_ONCE:
            self._go()

    def _settle(self, calls: Sequence[Call], key: str, result: Answer | Outage) -> list[tuple[Then, Answer | Outage]]:
        """Return what each call has come to; where several at once were not taken, send them one by one."""
        if len(calls) == 1:
            return [(calls[0][1], result)]
        if isinstance(result, Outage):
            self._apart_until = self._loop.time() + _CAREFUL
            return [(then, result) for _, then in calls]
        told = _told(calls, result)
        if told is not None:
            return [(then, _result(one)) for (_, then), one in zip(calls, told, strict=True)]
        # An API of an earlier release, a key that was revoked, or one call that spoils it for the others.
        say(f"several calls at once are not taken, they go one by one: {result.problem}")
        if key == self._key:
            self._apart_until = self._loop.time() + _APART
        for call in calls:
            self._lane.send(*call)
        return []


def _word(request: Request) -> tuple[str, str]:
    """Return the attempt that a call is about, and what it is."""
    _, _, attempt_id, word = request.path.split("/")
    return attempt_id, word


def _bundle(calls: Sequence[Call], key: str) -> Request:
    requests = [request for request, _ in calls]
    return Request(
        method="POST",
        path="/attempts",
        secret=key,
        body=partial(_body, requests),
        timeout=max(request.timeout for request in requests),
    )


def _body(requests: Sequence[Request]) -> bytes:
    """Return the bodies of *requests* as one; in the thread that sends it."""
    lists: dict[str, list[bytes]] = {name: [] for name, _ in _LISTS.values()}
    for request in requests:
        attempt_id, word = _word(request)
        name, secret = _LISTS[word]
        head = json.dumps({"attempt_id": attempt_id, secret: request.secret}).encode()
        lists[name].append(head[:-1] + b"," + request.body()[1:])
    return b"{" + b",".join(b'"%b":[%b]' % (name.encode(), b",".join(each)) for name, each in lists.items()) + b"}"


def _told(calls: Sequence[Call], result: Answer) -> list[dict[str, Any]] | None:
    """Return the answers in the order of *calls*; None: there are not as many."""
    if not result.is_ok:
        return None
    words = [_word(request)[1] for request, _ in calls]
    queues = {}
    for word, (name, _) in _LISTS.items():
        listed = result.document.get(name)
        if not isinstance(listed, list) or len(listed) != words.count(word) or not all(map(_is_ours, listed)):
            return None
        queues[word] = deque(listed)
    return [queues[word].popleft() for word in words]


def _is_ours(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("status"), int) and isinstance(one.get("answer"), dict)


def _result(one: dict[str, Any]) -> Answer | Outage:
    status, document, after = one["status"], one["answer"], one.get("retry_after")
    if says_nothing(status):
        why = one_line(f"the API answered {status} {document.get('detail') or ''}")
        return Outage(why, after=retry_after(str(after)))
    return Answer(status, document)
