"""What went wrong with Redis, in words."""

from __future__ import annotations

import re
from typing import Final

import redis

#: The first that fits says it; several are kinds of a later one.
_REASONS: Final[tuple[tuple[type[redis.RedisError], str], ...]] = (
    (redis.AuthenticationError, "it refuses the user name or the password"),
    (redis.BusyLoadingError, "it is still loading its data"),
    (redis.MaxConnectionsError, "it has no connection left for us"),
    (redis.TimeoutError, "it does not answer"),
    (redis.ConnectionError, "it cannot be reached"),
)
#: What Redis's own errors begin with; those of a script have more before it.
_CODES: Final = {
    "NOPERM": "its user may not do what Runyard needs",
    "READONLY": "it is a replica that takes no writes",
    "OOM": "its memory is full",
    "MISCONF": "it cannot save its data",
    "WRONGTYPE": "the keys that Runyard uses hold something else: choose another RUNYARD_QUEUE_PREFIX",
    "CROSSSLOT": "it is a cluster, which Dramatiq cannot use",
    "MOVED": "it is a cluster, which Dramatiq cannot use",
}
_CODE: Final = re.compile(rf"\b({'|'.join(_CODES)})\b")
#: redis-py takes the code off errors that it has a class for.
_CLASSES: Final = {
    redis.exceptions.NoPermissionError: "NOPERM",
    redis.ReadOnlyError: "READONLY",
    redis.exceptions.OutOfMemoryError: "OOM",
}


def explain(error: redis.RedisError) -> str:
    """Return why Redis cannot be used; the caller takes out secrets."""
    said = " ".join(str(error).split()).rstrip(".")
    reason = next((words for kind, words in _REASONS if isinstance(error, kind)), None)
    if reason is None:
        named = _CODE.search(said)
        code = next((code for kind, code in _CLASSES.items() if isinstance(error, kind)), named[1] if named else "")
        reason = _CODES.get(code, "it answers with an error")
    return f"{reason} ({said})"
