"""Every place where something that Runyard was told may come out again, read whole."""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import redis


def database(url: str) -> dict[str, str]:
    """Return each table of a Postgres database as text."""
    return asyncio.run(_database(url))


async def _database(url: str) -> dict[str, str]:
    conn = await asyncpg.connect(url)
    try:
        names = [row[0] for row in await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        found = {}
        for name in names:
            rows = await conn.fetch(f'SELECT t::text FROM "{name}" t')  # noqa: S608  # the names are its own
            found[name] = "\n".join(row[0] for row in rows)
        return found
    finally:
        await conn.close()


def broker(client: redis.Redis) -> dict[str, str]:
    """Return each key of a Redis as text."""
    reads: dict[bytes | str, Any] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    found = {}
    for key in client.scan_iter("*"):
        kind = client.type(key)
        found[key.decode()] = repr(reads[kind](key))
    return found


def files(folder: Path) -> dict[str, str]:
    """Return what is in every file below *folder*, by its path there."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink():
                found[str(path.relative_to(folder))] = path.read_bytes().decode(errors="replace")
    return found


def open_to_others(folder: Path) -> list[str]:
    """Return what below *folder* its group or anybody may read or write."""
    wrong = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) & 0o077:
                wrong.append(f"{path.relative_to(folder)} {stat.S_IMODE(mode):o}")
    return wrong


def processes(parents: Iterable[int], what: str) -> dict[str, str]:
    """Return the command line or the environment (*what*) of all processes below *parents*, and of those."""
    found = {}
    for pid in _tree(parents):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/{what}").read_bytes().decode(errors="replace")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            found[f"{name} {pid}"] = text
    return found


def _tree(parents: Iterable[int]) -> set[int]:
    below: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = place.read_text().rpartition(")")[2].split()
            below.setdefault(int(fields[1]), []).append(int(place.parent.name))
    found: set[int] = set()
    waiting = [pid for pid in parents if pid != os.getpid()]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += below.get(pid, [])
    return found


def where(canaries: Mapping[str, str], outlets: Mapping[str, str]) -> set[tuple[str, str]]:
    """Return which canary sings where."""
    return {
        (name, place)
        for place, text in outlets.items()
        for name, canary in canaries.items()
        if canary and canary in text
    }
