"""The admin key, over a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from api.auth import new_key
from metastore.commands.keys import revoke_key
from metastore.queries import keys
from runyard import admin_key
from runyard.exits import Exit, Stop
from runyard.home import read_key, write_key

if TYPE_CHECKING:
    from pathlib import Path

    from metastore.store import Store
    from tests.world import SeededEntropy


async def test_a_home_without_a_key_gets_one_that_the_database_knows(
    store: Store, tmp_path: Path, entropy: SeededEntropy
) -> None:
    await admin_key.ensure(store, tmp_path, entropy)
    text = read_key(tmp_path)
    assert text is not None
    key = admin_key.parse(text, tmp_path)
    record = await store.read(keys.get, key.key_id)
    assert record is not None
    assert (record.secret_hash, list(record.scopes), record.dag_prefix) == (key.secret_hash, ["admin"], None)


async def test_a_key_is_made_once(store: Store, tmp_path: Path, entropy: SeededEntropy) -> None:
    await admin_key.ensure(store, tmp_path, entropy)
    text = read_key(tmp_path)
    await admin_key.ensure(store, tmp_path, entropy)
    assert read_key(tmp_path) == text


async def test_a_revoked_key_stays_revoked(store: Store, tmp_path: Path, entropy: SeededEntropy) -> None:
    await admin_key.ensure(store, tmp_path, entropy)
    key = admin_key.parse(read_key(tmp_path) or "", tmp_path)
    await store.write(revoke_key, key.key_id, "system")
    await admin_key.ensure(store, tmp_path, entropy)
    record = await store.read(keys.get, key.key_id)
    assert record is not None
    assert record.revoked_at is not None


async def test_a_crash_between_file_and_database_is_repaired(
    store: Store, tmp_path: Path, entropy: SeededEntropy
) -> None:
    write_key(tmp_path, new_key(entropy).text)
    key = admin_key.parse(read_key(tmp_path) or "", tmp_path)
    assert await store.read(keys.get, key.key_id) is None
    await admin_key.ensure(store, tmp_path, entropy)
    assert await store.read(keys.get, key.key_id) is not None


@pytest.mark.parametrize("change", ["", "x", "a_b_c_d", "runyard_a_b_c", "wrong checksum", "more"], ids=repr)
async def test_a_file_that_holds_something_else_is_refused_and_not_quoted(
    store: Store, tmp_path: Path, entropy: SeededEntropy, change: str
) -> None:
    text = new_key(entropy).text
    wrong = {"wrong checksum": f"{text[:-1]}{'0' if text[-1] != '0' else '1'}", "more": f"{text} "}.get(change, change)
    (tmp_path / "admin.key").write_text(wrong if wrong != f"{text} " else f"{text} x")
    with pytest.raises(Stop, match="does not hold an API key") as stop:
        await admin_key.ensure(store, tmp_path, entropy)
    assert stop.value.code is Exit.HOME
    assert text not in str(stop.value)


async def test_workers_get_a_key_of_their_own_that_survives_a_new_database(
    store: Store, tmp_path: Path, entropy: SeededEntropy
) -> None:
    path = tmp_path / "worker.key"
    await admin_key.ensure_worker_key(store, path, entropy)
    await admin_key.ensure_worker_key(store, path, entropy)
    key = admin_key.parse(path.read_text(), path)
    record = await store.read(keys.get, key.key_id)
    assert record is not None
    assert (record.secret_hash, list(record.scopes), record.name) == (key.secret_hash, ["work"], "worker.key")
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(tmp_path) is None
