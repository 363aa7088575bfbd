"""Connections to a Redis: everything bounded, nothing tried again behind our back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from executors.queues.address import wrong

if TYPE_CHECKING:
    from executors.queues.address import Address

#: How long a connection, and then each answer, may take.  Consumers wait in Redis for a second.
_TIMEOUT: Final = 3.0
#: What an URL may say behind its ``?``: where and who, not how.
_OPTIONS: Final = frozenset(
    {
        "db",
        "username",
        "password",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "ssl_cert_reqs",
        "ssl_check_hostname",
    }
)


def make_client(address: Address) -> redis.Redis:
    """Return a client that connects when it is used; raise Invalid where an option of the URL is wrong."""
    parts = urlsplit(address.url)
    if unknown := sorted(set(parse_qs(parts.query, keep_blank_values=True)) - _OPTIONS):
        raise wrong(
            f"It has an option that is not known: {unknown[0][:50]!r}.", f"Known are: {', '.join(sorted(_OPTIONS))}."
        )
    own: dict[str, Any] = {
        "socket_timeout": _TIMEOUT,
        "socket_connect_timeout": _TIMEOUT,
        "health_check_interval": 15,
        "retry": Retry(NoBackoff(), 0),
        "encoding_errors": "surrogateescape",  # whoever can write there can name a message in bytes that are no text
        "protocol": 2,  # the third needs a HELLO, and asks for notices that nobody reads
    }
    if parts.scheme != "unix":
        own["socket_keepalive"] = True
    try:
        pool = redis.ConnectionPool.from_url(address.url, **own)
        pool.connection_class(**pool.connection_kwargs)  # a wrong option is first seen here
    except (TypeError, ValueError, redis.RedisError, OSError) as error:
        raise wrong(
            f"One of its options is wrong: {address.scrub(str(error))}", "They are those of redis-py."
        ) from None
    return redis.Redis(connection_pool=pool)
