"""The way of ends from the spool of a remote agent to the API; none is lost silently."""

from __future__ import annotations

import base64
import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from worker.http_door import Request
from worker.say import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.calls import Calls
    from worker.http_door import Answer
    from worker.protocol import Finish
    from worker.shipper import Shipper
    from worker.spool import Spool

#: How long an end waits that was refused; twice as long each time.
_REFUSED: Final = 30.0
_LONGEST_REFUSED: Final = 600.0
#: How old an end gets that is refused; the API takes nothing of an attempt for longer.
_DAY: Final = 86_400.0
#: The pause after an answer that no API of ours gives.
_ODD: Final = 5.0
#: What an end weighs: its numbers and names, each character as an escape at the worst, the tail of its log in base64.
_HEAD: Final = 1024
_WIDEST: Final = 6
_BASE64: Final = 1.4
_GONE: Final = 410
_TOLD: Final = (
    "boot_id", "outcome", "exit_code", "signal", "error", "output", "log_size", "log_dropped", "started_at", "ended_at",
)  # fmt: skip


class Delivery:
    """All ends that have no answer."""

    def __init__(
        self, boot_id: str, spool: Spool, calls: Calls, shipper: Shipper, on_noted: Callable[[str], None]
    ) -> None:
        self._boot_id = boot_id
        self._spool = spool
        self._calls = calls
        self._shipper = shipper
        #: Called when an end has an answer, even one that refuses it: nobody needs to wait for more.
        self._on_noted = on_noted
        self._ends: dict[str, Finish] = {}
        self._refusals: dict[str, int] = {}

    def __len__(self) -> int:
        """How many ends the API did not answer at all."""
        return len(self._ends) - len(self._refusals)

    def take(self, finish: Finish) -> None:
        """Send an end until it is answered; it is on disk already."""
        attempt_id = finish["attempt_id"]
        if attempt_id in self._ends:
            return
        self._ends[attempt_id] = finish
        key, file = finish.get("key", ""), self._spool.log(attempt_id)
        if finish["boot_id"] == self._boot_id:
            self._shipper.ended(attempt_id, key, file, finish["log_size"], partial(self._send, finish))
        else:
            self._shipper.inherited(attempt_id, key, file)
            self._send(finish)

    def _send(self, finish: Finish) -> None:
        name = ("finish", finish["attempt_id"])
        self._calls.make(name, partial(self._request, finish), partial(self._answer, finish))

    def _request(self, finish: Finish) -> Request:
        offset, size, read = self._shipper.tail(finish["attempt_id"])
        document: dict[str, Any] = {name: finish[name] for name in _TOLD}
        return Request(
            method="POST",
            path=f"/attempts/{finish['attempt_id']}/finish",
            secret=finish.get("key") or "none",
            body=partial(_body, document, offset, read),
            weight=_HEAD + _WIDEST * (len(finish["output"] or "") + len(finish["error"])) + _BASE64 * size,
        )

    def _answer(self, finish: Finish, answer: Answer) -> float | None:
        attempt_id = finish["attempt_id"]
        if answer.status == _GONE:
            say(f"the end of {attempt_id} is not wanted any more: {answer.problem}")
            self._note(attempt_id, None)
            return None
        if not answer.is_ok:
            return self._refused(finish, answer)
        accepted, offset = answer.document.get("accepted"), answer.document.get("next_offset")
        if not isinstance(accepted, bool) or not isinstance(offset, int | None):
            say(f"the answer to the end of {attempt_id} is none of ours; it is sent again")
            return _ODD
        if not accepted:
            say(f"the end of {attempt_id}, {finish['outcome']}, came too late: it was given up before")
        self._note(attempt_id, offset)
        return None

    def _refused(self, finish: Finish, answer: Answer) -> float | None:
        """Keep an end that the API will not have, and ask again now and then: somebody may repair what is wrong."""
        attempt_id = finish["attempt_id"]
        tries = self._refusals.get(attempt_id, 0)
        self._refusals[attempt_id] = tries + 1
        if time.time() - finish["ended_at"] > _DAY:
            say(f"the end of {attempt_id}, {finish['outcome']}, is given up after a day: {answer.problem}")
            self._note(attempt_id, None)
            return None
        say(f"the end of {attempt_id}, {finish['outcome']}, is refused and kept: {answer.problem}")
        self._on_noted(attempt_id)
        return min(_REFUSED * float(2**tries), _LONGEST_REFUSED)

    def _note(self, attempt_id: str, next_offset: int | None) -> None:
        self._ends.pop(attempt_id, None)
        self._refusals.pop(attempt_id, None)
        self._on_noted(attempt_id)
        self._shipper.noted(attempt_id, next_offset)

    def is_settled(self, attempt_id: str) -> bool:
        """Whether the API has answered the end of an attempt that is not forgotten yet."""
        return attempt_id in self._refusals or self._shipper.is_noted(attempt_id)


def _body(document: dict[str, Any], offset: int, read: Callable[[], bytes]) -> bytes:
    """Return the body of a finish, with the next piece of the log; in the thread that sends it."""
    data = read()
    document["sent_at"] = time.time()
    document["log"] = {"offset": offset, "data": base64.b64encode(data).decode()} if data else None
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
