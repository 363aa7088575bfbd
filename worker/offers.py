"""What a feeder handed to a remote agent and what is not started yet.

An offer waits here for a free slot, for contact with the API, and for a spool that can be written: an attempt whose end
could find no room on the disk is not even asked for.  Once its start may have reached the API it is not an offer any
more: then it is asked for until there is an answer, or a start that was won would be nobody's.
"""

from __future__ import annotations

import base64
import json
import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from worker.http_door import Request, is_fit
from worker.protocol import PROTOCOL
from worker.say import say

if TYPE_CHECKING:
    from worker.calls import Calls
    from worker.http_door import Answer
    from worker.spool import Spool
    from worker.supervise import Supervisor

#: Ids come from messages, and become parts of paths.
_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}\Z")
#: How often a spool that could not be written is tried again, and how long offers wait for it.
_PROBE: Final = 1.0
_PATIENCE: Final = 30.0
_ODD: Final = 5.0
#: The pause after a start that may be somebody else's by now.
_STALE: Final = 0.1
_REASONS: Final = frozenset({"user", "run_timeout", "fail_fast", "fenced", "drain"})


class Desk(Protocol):
    """Who decides what may start, and hears what became of it."""

    worker_id: str
    slots: int

    def has_contact(self) -> bool:
        """Whether the API knows this worker, and a start that is won is not killed at once."""
        ...

    def may_start(self) -> bool:
        """Whether anything new may be asked for."""
        ...

    def started(self) -> None:
        """A task runs."""
        ...

    def settled(self, attempt_id: str) -> None:
        """It was refused: nothing is left to do."""
        ...

    def dropped(self, attempt_id: str) -> None:
        """It is left to somebody else."""
        ...

    def unknown(self) -> None:
        """The API does not know this worker."""
        ...

    def hindered(self, why: str) -> None:
        """The spool cannot be written; "": it can, again."""
        ...


class Offers:
    """All attempts that were handed over and have not begun."""

    def __init__(self, supervisor: Supervisor, spool: Spool, calls: Calls, desk: Desk, reserve: int) -> None:
        self._loop = calls.loop
        self._supervisor = supervisor
        self._spool = spool
        self._calls = calls
        self._desk = desk
        self._reserve = reserve
        #: In the order in which they came.
        self._waiting: dict[str, str] = {}
        self._tickets: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        #: How many leases had run out when each start was asked for.
        self._asked: dict[str, int] = {}
        self._hindered_since: float | None = None

    def add(self, attempt_id: str, ticket: str) -> None:
        """Take an offer."""
        if not _ID.match(attempt_id) or not is_fit(ticket):
            say("a message that is no offer: its attempt_id or its ticket cannot be one")
            self._desk.settled(attempt_id)
            return
        self._waiting.setdefault(attempt_id, ticket)
        self.admit()

    def admit(self) -> None:
        """Ask for the start of as many as there are slots for."""
        while self._waiting and self._desk.may_start() and self._hindered_since is None and self._has_slot():
            attempt_id = next(iter(self._waiting))
            key = secret()
            try:
                self._spool.begin(attempt_id, key, self._reserve)
            except OSError as error:
                self._hinder(error)
                return
            self._tickets[attempt_id] = self._waiting.pop(attempt_id)
            self._keys[attempt_id] = key
            self._supervisor.launch(attempt_id, key)

    def drop(self) -> None:
        """Leave everything to others that the API cannot have heard of."""
        waiting, self._waiting = self._waiting, {}
        for attempt_id in waiting:
            self._desk.dropped(attempt_id)
        for attempt_id in list(self._tickets):
            if self._calls.withdraw(("start", attempt_id)):
                self._close(attempt_id)
                self._supervisor.receive({"type": "refused", "attempt_id": attempt_id, "code": "gone", "detail": ""})
                self._spool.answered(attempt_id)
                self._desk.dropped(attempt_id)

    def ask(self, attempt_id: str) -> None:
        """Send the start that the supervisor asks for."""
        name = ("start", attempt_id)
        self._calls.make(name, partial(self._request, attempt_id), partial(self._answer, attempt_id))

    def _has_slot(self) -> bool:
        taken = sum(attempt.phase != "ended" for attempt in self._supervisor.held.values())
        return taken < self._desk.slots

    def _request(self, attempt_id: str) -> Request | None:
        if not self._desk.has_contact():
            return None
        self._asked[attempt_id] = self._supervisor.lapses
        document = {
            "boot_id": self._supervisor.boot_id,
            "key": self._keys[attempt_id],
            "worker_id": self._desk.worker_id,
            "protocol": PROTOCOL,
        }
        body = json.dumps(document).encode()
        path = f"/attempts/{attempt_id}/start"
        return Request(method="POST", path=path, secret=self._tickets[attempt_id], body=lambda: body, weight=len(body))

    def _answer(self, attempt_id: str, answer: Answer) -> float | None:
        if answer.is_ok:
            task, stop = answer.document.get("task"), answer.document.get("stop")
            if not isinstance(task, dict) or not isinstance(task.get("env"), dict) or "kill_grace" not in task:
                say(f"the answer to the start of {attempt_id} is none of ours; it is asked again")
                return _ODD
            if self._supervisor.is_fenced or self._asked[attempt_id] != self._supervisor.lapses:
                say(f"the start of {attempt_id} was allowed under a lease that is over; it is asked again")
                return _STALE
            self._begin(attempt_id, task, stop)
            return None
        if answer.code == "worker_unknown":
            self._desk.unknown()
            return 1.0
        say(f"{attempt_id} is not started: {answer.problem}")
        self._close(attempt_id)
        self._supervisor.receive({"type": "refused", "attempt_id": attempt_id, "code": "gone", "detail": answer.code})
        self._spool.answered(attempt_id)
        self._desk.settled(attempt_id)
        return None

    def _begin(self, attempt_id: str, task: Any, stop: Any) -> None:
        self._close(attempt_id)
        if isinstance(stop, dict) and stop.get("reason") in _REASONS:
            grace = stop.get("grace")
            self._supervisor.receive(
                {
                    "type": "cancel",
                    "attempt_id": attempt_id,
                    "reason": stop["reason"],
                    "grace": float(grace) if isinstance(grace, int | float) else 0.0,
                }
            )
        self._supervisor.receive({"type": "task", "attempt_id": attempt_id, "body": task})
        self._desk.started()

    def _close(self, attempt_id: str) -> None:
        self._tickets.pop(attempt_id, None)
        self._keys.pop(attempt_id, None)
        self._asked.pop(attempt_id, None)

    # A spool that cannot be written

    def _hinder(self, error: OSError) -> None:
        if self._hindered_since is None:
            self._hindered_since = self._loop.time()
            why = f"the spool in {self._spool.folder} cannot be written: {error.strerror}; free some space"
            say(why)
            self._desk.hindered(why)
            self._loop.call_later(_PROBE, self._probe)

    def _probe(self) -> None:
        assert self._hindered_since is not None  # noqa: S101  that is why it is called
        try:
            self._spool.probe(self._reserve)
        except OSError:
            if self._loop.time() - self._hindered_since > _PATIENCE:
                self.drop()
            self._loop.call_later(_PROBE, self._probe)
            return
        self._hindered_since = None
        say("the spool can be written again")
        self._desk.hindered("")
        self.admit()


def secret() -> str:
    """Return 256 random bits, as they go into a header."""
    return base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
