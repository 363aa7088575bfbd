"""The admin key of a home folder, and the workers' own: made at the first start, known to the database ever after."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import structlog

from api.auth import NewKey, Scope, make_key, new_key
from metastore.commands.keys import create_key
from metastore.queries import keys
from runyard.exits import Exit, Stop
from runyard.home import key_path, read_key_file, write_key_file

if TYPE_CHECKING:
    from pathlib import Path

    from dag.world import Entropy
    from metastore.store import Store

log = structlog.get_logger(__name__)

_PARTS: Final = 4


async def ensure(store: Store, home: Path, entropy: Entropy) -> None:
    """See to it that *home* has a key file and that the database knows its key.

    The file comes first: a crash between the two leaves a key that the next start makes known.  Whoever can write to
    the home folder owns the service anyway, so that a lost key is replaced by removing the file and starting again.
    """
    await _ensure(store, key_path(home), Scope.ADMIN, entropy)


async def ensure_worker_key(store: Store, path: Path, entropy: Entropy) -> None:
    """Do the same for the key that the workers read at *path*: nobody has to be there to make one for them."""
    await _ensure(store, path, Scope.WORK, entropy)


async def _ensure(store: Store, path: Path, scope: Scope, entropy: Entropy) -> None:
    text = read_key_file(path)
    if text is None:
        key = new_key(entropy)
        write_key_file(path, key.text)
    else:
        key = parse(text, path)
    record = await store.read(keys.get, key.key_id)
    if record is None:
        await store.write(
            create_key,
            key_id=key.key_id,
            name=path.name,
            secret_hash=key.secret_hash,
            scopes=[scope.value],
            dag_prefix=None,
            expires_at=None,
            actor="system",
        )
        log.info("key made known", key_id=key.key_id, scope=scope.value, file=str(path))
    elif record.revoked_at is not None:
        log.warning("key is revoked", key_id=key.key_id, file=str(path))


def parse(text: str, path: Path) -> NewKey:
    """Return the key that *text* is, or Stop."""
    parts = text.split("_")
    if len(parts) == _PARTS:
        try:
            key = make_key(parts[1], base64.b32decode(f"{parts[2].upper()}===="))
        except (binascii.Error, ValueError):
            key = None
        if key is not None and key.text == text:
            return key
    raise Stop(
        Exit.HOME,
        f"{path} does not hold an API key of Runyard.",
        "remove it, and the next start makes a new one; keys made since stay valid",
    )
