"""What went wrong with Redis, in words."""

from __future__ import annotations

from typing import Final

import redis

#: The first that fits says it; several are kinds of a later one.
_REASONS: Final[tuple[tuple[type[redis.RedisError], str], ...]] = (
    (redis.AuthenticationError, "it refuses the user name or the password"),
    (redis.BusyLoadingError, "it is still loading its data"),
    (redis.MaxConnectionsError, "it has no connection left for us"),
    (redis.TimeoutError, "it does not answer"),
    (redis.ConnectionError, "it cannot be reached"),
    (redis.exceptions.NoPermissionError, "its user may not do what Runyard needs"),
    (redis.ReadOnlyError, "it is a replica that takes no writes"),
    (redis.exceptions.OutOfMemoryError, "its memory is full"),
)


def explain(error: redis.RedisError) -> str:
    """Return why Redis cannot be used; the caller takes out secrets."""
    said = " ".join(str(error).split()).rstrip(".")
    reason = next((words for kind, words in _REASONS if isinstance(error, kind)), "it answers with an error")
    return f"{reason} ({said})"
