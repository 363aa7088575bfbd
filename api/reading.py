"""Bodies that an endpoint reads itself: validated in one pass from the bytes, where a call comes too often for more."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import BaseModel, ValidationError

from api.problems import BODY_MALFORMED, INVALID, WORKER_PROTOCOL, Refused
from api.validation import explain
from dag.errors import Problem
from worker.protocol import PROTOCOL

if TYPE_CHECKING:
    from starlette.requests import Request

Body = TypeVar("Body", bound=BaseModel)

#: Longer bodies are read beside the event loop.
_LONG: Final = 64 * 1024
#: At most so many things that are wrong are told.
_MOST: Final = 50


async def read(request: Request, model: type[Body]) -> Body:
    """Return the body of *request*; refuse what does not fit."""
    raw = await request.body()
    return await asyncio.to_thread(parse, raw, model) if len(raw) > _LONG else parse(raw, model)


async def read_spoken(request: Request, model: type[Body]) -> Body:
    """Do what :func:`read` does; of a body that does not fit, say first that it is of another protocol."""
    try:
        return await read(request, model)
    except Refused:
        with suppress(ValidationError):
            spoken = _Spoken.model_validate_json(await request.body()).protocol
            if spoken != PROTOCOL:
                raise another_protocol(spoken) from None
        raise


def another_protocol(spoken: int) -> Refused:
    return Refused(WORKER_PROTOCOL, f"The worker speaks protocol {spoken}, this service speaks protocol {PROTOCOL}.")


class _Spoken(BaseModel):
    """What every version of the protocol says."""

    protocol: int


def parse(raw: bytes, model: type[Body]) -> Body:
    """Return what *raw* says, or refuse it with everything that is wrong with it."""
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        found = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":
        message = f"The body is not JSON: {found[0]['ctx']['error']}."
        raise Refused(BODY_MALFORMED, message, problems=[Problem(pointer="", code="not_json", message=message)])
    for one in found:
        one["loc"] = ("body", *one["loc"])
    problems = explain(found[:_MOST], list(model.model_fields))
    detail = problems[0].message if len(problems) == 1 else f"{len(problems)} things are wrong with the request."
    raise Refused(INVALID, detail, problems=problems)
