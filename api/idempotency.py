"""Changes, each with one effect: ``Idempotency-Key`` on every call that writes.

The answer is stored in the transaction of the effect.  A repeated request finds it there and gets it again, whatever
happened in between; the same key with another request is refused.  A request that failed had no effect and left none.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Header, Request
from starlette.responses import Response

from api.problems import INVALID, Refused
from api.routing import authenticate
from dag.errors import Problem
from metastore.commands.once import Answer, once

if TYPE_CHECKING:
    from collections.abc import Callable

    from api.auth import Caller
    from metastore.store import Store, Tx

REPLAYED: Final = "Idempotent-Replayed"
_KEY: Final = re.compile(r"[!-~]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a change answered, now or the first time."""

    answer: Answer
    replayed: bool

    def respond(self, body: str | None = None) -> Response:
        """Return it as a response, with another *body* where the stored one is not the whole."""
        headers = dict(self.answer.headers)
        if self.replayed:
            headers[REPLAYED] = "true"
        text = self.answer.body if body is None else body
        return Response(text, self.answer.status, headers, media_type="application/json" if text else None)


@dataclass(frozen=True, slots=True)
class Mutation:
    """One request that changes something."""

    caller: "Caller"
    request_id: str
    store: "Store"
    key: str | None
    fingerprint: str

    async def perform(self, effect: "Callable[[Tx], Answer]", *, knows_itself: bool = False) -> Outcome:
        """Run *effect* in one transaction, at most once for its key, and return once the COMMIT has returned.

        A transaction may run twice, also after it was committed.  Under no key it is noted under the request itself
        that it has run, but not for an effect that *knows_itself*: that finds what it has done, or has changed nothing.
        """
        if self.key is not None:
            return Outcome(*await self.store.write(once, self.caller.key_id, self.key, self.fingerprint, effect))
        if knows_itself:
            return Outcome(await self.store.write(effect), replayed=False)
        own = f" {self.request_id}"  # no client's key has a blank
        kept: list[Answer] = []

        def noted(tx: "Tx") -> Answer:
            kept[:] = [effect(tx)]
            return Answer(kept[0].status, {}, "")  # nobody but this call asks for it

        await self.store.write(once, self.caller.key_id, own, self.fingerprint, noted)
        return Outcome(kept[0], replayed=False)


async def _mutation(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Makes a repeated request safe: one effect, and the first answer again, marked "
            "`Idempotent-Replayed: true`. 1 to 255 visible ASCII characters.",
            json_schema_extra={"pattern": f"^{_KEY.pattern}$"},  # said only: what does not match gets its own problem
        ),
    ] = None,
) -> Mutation:
    fingerprint = ""
    if idempotency_key is not None:
        _check(request)
        fingerprint = await _fingerprint(request)
    state = request.state
    store = request.app.state.services.store
    return Mutation(await authenticate(request), state.request_id, store, idempotency_key, fingerprint)


Change = Annotated[Mutation, Depends(_mutation)]


def _check(request: Request) -> None:
    given = request.headers.getlist("idempotency-key")
    if len(given) > 1 or _KEY.fullmatch(given[0]) is None:
        message = "An Idempotency-Key is one header of 1 to 255 visible ASCII characters."
        raise Refused(
            INVALID,
            message,
            problems=[Problem(pointer="/header/idempotency-key", code="bad_idempotency_key", message=message)],
        )


async def _fingerprint(request: Request) -> str:
    """Return the hash of everything that makes this request this request."""
    parts = (
        request.method.encode(),
        request.scope["route"].path.encode(),
        request.scope["path"].encode(),
        request.scope["query_string"],
        await request.body(),
    )
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big"))
        whole.update(part)
    return whole.hexdigest()
