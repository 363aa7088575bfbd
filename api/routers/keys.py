"""API keys: make, list, get, revoke."""

import base64
import json
from typing import Annotated

from fastapi import Path
from starlette.responses import Response

from api.auth import Caller, NewKey, Scope, make_key, new_key_id, scopes_of
from api.dependencies import AnId, Asking, Service
from api.idempotency import Change
from api.pagination import Paged
from api.responses import answer, dumps
from api.routing import Router
from api.schemas import keys as schemas
from dag.errors import NotFound
from metastore.commands import keys as commands
from metastore.commands.once import Answer
from metastore.queries import keys as queries
from metastore.store import Tx

router = Router(prefix="/api/v1", tags=["API keys"])

KeyId = Annotated[AnId, Path(description="The public part of a key: the second of its four parts.")]


@router.call(
    "POST",
    "/keys",
    needs=Scope.ADMIN,
    gives=(201, schemas.KeyCreated),
    summary="Make an API key",
    example=schemas.EXAMPLE_CREATED,
    headers={"Location": "Where the key is."},
)
async def create_key(body: schemas.KeyCreate, change: Change, service: Service, caller: Asking) -> Response:
    """Make a key. The answer is the only place where it is ever shown; what is stored is its hash.

    An `Idempotency-Key` works here too, and nothing secret is stored for it: the new key is computed from a random
    number, which is kept with the answer, and from the secret of your own key, which is not kept anywhere. A repeated
    request with the same key of yours gets the same new key again.
    """
    caller.everywhere("Making keys")
    nonce = service.entropy.token(32)
    key = _derived(caller, new_key_id(service.entropy), nonce)

    def effect(tx: Tx) -> Answer:
        record = commands.create_key(
            tx,
            key_id=key.key_id,
            name=body.name,
            secret_hash=key.secret_hash,
            scopes=scopes_of(body.scopes),
            dag_prefix=body.dag_prefix,
            queues=body.queues,
            expires_at=body.expires_at,
            actor=caller.actor,
        )
        stored = schemas.render(record) | {"key": base64.b64encode(nonce).decode()}
        return Answer(201, {"Location": f"/api/v1/keys/{key.key_id}"}, dumps(stored))

    outcome = await change.perform(effect)
    shown = json.loads(outcome.answer.body)
    shown["key"] = _derived(caller, shown["key_id"], base64.b64decode(shown["key"])).text
    return outcome.respond(dumps(shown))


@router.call(
    "GET",
    "/keys",
    needs=Scope.ADMIN,
    gives=(200, schemas.KeyPage),
    summary="List API keys",
    fails=(422,),
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
)
async def list_keys(service: Service, caller: Asking, page: Paged) -> Response:
    """List all keys, revoked and expired ones as well, by id. The keys themselves are known to their owners only."""
    caller.everywhere("Listing keys")
    after = "" if page.position is None else page.position[0]
    records = await service.store.read(queries.page, limit=page.fetch, after=after)
    return page.answer(records, schemas.render, lambda record: [record.key_id])


@router.call(
    "GET",
    "/keys/{key_id}",
    needs=Scope.ADMIN,
    gives=(200, schemas.Key),
    summary="Get an API key",
    fails=(404, 422),
    example=schemas.EXAMPLE,
)
async def get_key(key_id: KeyId, service: Service, caller: Asking) -> Response:
    """Get what is known of a key."""
    caller.everywhere("Seeing keys")
    record = await service.store.read(queries.get, key_id)
    if record is None:
        raise NotFound("key", key_id)
    return answer(schemas.render(record))


@router.call(
    "DELETE",
    "/keys/{key_id}",
    needs=Scope.ADMIN,
    gives=(204, None),
    summary="Revoke an API key",
    fails=(404, 422),
)
async def revoke_key(key_id: KeyId, change: Change, caller: Asking) -> Response:
    """Revoke a key: within a second it is refused everywhere.

    It stays in the list. Revoking it again changes nothing.
    """
    caller.everywhere("Revoking keys")

    def effect(tx: Tx) -> Answer:
        commands.revoke_key(tx, key_id, caller.actor)
        return Answer(204, {}, "")

    return (await change.perform(effect)).respond()


def _derived(caller: Caller, key_id: str, nonce: bytes) -> NewKey:
    return make_key(key_id, caller.derive(b"key" + nonce))
