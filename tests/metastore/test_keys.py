"""API keys and idempotency keys, on each database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select, update

from dag.errors import AlreadyExists, KeyReused, NotFound
from metastore.commands.keys import create_key, revoke_key, touch_key
from metastore.commands.once import Answer, forget, once
from metastore.models.keys import api_keys, idempotency_keys
from metastore.models.limits import limits
from metastore.queries import keys

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.store import Store, Tx

KEY: dict[str, Any] = {
    "key_id": "k1",
    "name": "ci",
    "secret_hash": "hash",
    "scopes": ["read", "trigger"],
    "dag_prefix": "team-",
    "expires_at": None,
    "actor": "system",
}


async def test_a_key_is_made_once_found_and_revoked(store: Store) -> None:
    made = await store.write(create_key, **KEY)

    assert await store.write(create_key, **KEY) == made
    assert await store.read(keys.get, "k1") == made
    assert await store.read(keys.page, limit=10) == [made]
    assert await store.read(keys.page, limit=10, after="k1") == []
    with pytest.raises(AlreadyExists):
        await store.write(create_key, **KEY | {"secret_hash": "other"})

    revoked = await store.write(revoke_key, "k1", "key:k0")
    assert revoked.revoked_at is not None
    assert await store.write(revoke_key, "k1", "key:k0") == revoked
    assert not await store.read(keys.exist)
    with pytest.raises(NotFound):
        await store.write(revoke_key, "k2", "key:k0")


async def test_the_last_use_is_noted_to_the_minute(store: Store) -> None:
    await store.write(create_key, **KEY)
    await store.write(touch_key, "k1")
    first = await store.read(keys.get, "k1")
    await store.write(touch_key, "k1")

    assert first is not None
    assert first.last_used_at is not None
    assert await store.read(keys.get, "k1") == first

    def long_ago(tx: Tx) -> None:
        tx.conn.execute(update(api_keys).values(last_used_at=tx.now - timedelta(minutes=2)))

    await store.write(long_ago)
    await store.write(touch_key, "k1")
    later = await store.read(keys.get, "k1")
    assert later is not None
    assert later.last_used_at is not None
    assert later.last_used_at >= first.last_used_at


class Effect:
    """An effect that can be counted."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, tx: Tx) -> Answer:
        self.count += 1
        tx.conn.execute(insert(limits), {"key": f"effect {self.count}"})
        return Answer(201, {"Location": f"/{self.count}"}, f'{{"n":{self.count}}}')


def effects(conn: Connection) -> int:
    return len(conn.execute(select(limits.c.key)).all())


async def test_with_the_same_key_any_number_of_requests_has_one_effect_and_equal_answers(store: Store) -> None:
    effect = Effect()

    answers = await asyncio.gather(*(store.write(once, "key:a", "x", "print", effect) for _ in range(10)))

    assert len({(a.status, a.body, tuple(a.headers.items())) for a, _ in answers}) == 1
    assert [replayed for _, replayed in answers].count(False) == 1
    assert await store.read(effects) == 1


async def test_another_request_under_the_same_key_is_refused_and_another_principal_is_not(store: Store) -> None:
    await store.write(once, "key:a", "x", "print", Effect())

    with pytest.raises(KeyReused):
        await store.write(once, "key:a", "x", "other print", Effect())
    _, replayed = await store.write(once, "key:b", "x", "other print", lambda _: Answer(200, {}, ""))
    assert not replayed


async def test_an_effect_that_fails_stores_nothing_and_may_be_tried_again(store: Store) -> None:
    def fail(tx: Tx) -> Answer:
        Effect()(tx)
        raise NotFound("thing", "a")

    with pytest.raises(NotFound):
        await store.write(once, "key:a", "x", "print", fail)
    assert await store.read(effects) == 0

    answer, replayed = await store.write(once, "key:a", "x", "print", Effect())
    assert (answer.status, replayed) == (201, False)


async def test_old_answers_are_forgotten(store: Store) -> None:
    await store.write(once, "key:a", "old", "print", lambda _: Answer(200, {}, ""))

    def age(tx: Tx) -> None:
        tx.conn.execute(update(idempotency_keys).values(created_at=tx.now - timedelta(days=2)))

    await store.write(age)
    await store.write(once, "key:a", "new", "print", lambda _: Answer(200, {}, ""))

    assert await store.write(forget, timedelta(days=1)) == 1
    assert await store.write(forget, timedelta(days=1)) == 0
    _, replayed = await store.write(once, "key:a", "new", "print", lambda _: Answer(200, {}, ""))
    assert replayed
