"""Connections to a RabbitMQ, the queues there, and what went wrong, in words."""

from __future__ import annotations

import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

import pika
from pika import exceptions

from executors.queues import amqp_words
from executors.queues.address import wrong

if TYPE_CHECKING:
    from executors.queues.address import Address

# It writes a trace for every attempt to connect; what matters is said by whoever tried.
logging.getLogger("pika").setLevel(logging.CRITICAL)

MAX_PRIORITY: Final = 10
#: How long a worker may keep a message: RabbitMQ closes the channels of those who take longer than half an hour, unless
#: the queue says otherwise (3.12 and newer).
_CONSUMER_TIMEOUT: Final = 14 * 24 * 3600 * 1000
#: A change of these makes queues that are there already unusable: RabbitMQ refuses to declare them differently.
ARGUMENTS: Final[dict[str, Any]] = {"x-max-priority": MAX_PRIORITY, "x-consumer-timeout": _CONSUMER_TIMEOUT}
_OPTIONS: Final = frozenset({"heartbeat", "ssl_options"})
_CONNECT_SECONDS: Final = 4.0


def make_parameters(address: Address, *, name: str, heartbeat: int) -> pika.URLParameters:
    """Return how to connect; raise Invalid where an option of the URL is wrong."""
    options = parse_qs(urlsplit(address.url).query, keep_blank_values=True)
    if unknown := sorted(set(options) - _OPTIONS):
        raise wrong(
            f"It has an option that is not known: {unknown[0][:50]!r}.", f"Known are: {', '.join(sorted(_OPTIONS))}."
        )
    try:
        parameters = pika.URLParameters(address.url)
    except (TypeError, ValueError, SyntaxError, AttributeError, OSError) as error:
        raise wrong(f"One of its options is wrong: {address.scrub(str(error))}", "They are those of pika.") from None
    if "heartbeat" not in options:
        parameters.heartbeat = heartbeat
    parameters.blocked_connection_timeout = 30
    parameters.socket_timeout = _CONNECT_SECONDS
    parameters.stack_timeout = _CONNECT_SECONDS  # all of it, up to the open connection
    parameters.connection_attempts = 1
    parameters.retry_delay = 0
    parameters.client_properties = {"connection_name": name}
    return parameters


def declare(channel: Any, queue: str) -> None:
    """Make a queue that outlives a restart, as it has always been made."""
    channel.queue_declare(queue=queue, durable=True, arguments=ARGUMENTS)


#: The first that fits says it; several are kinds of a later one.
_REASONS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (exceptions.ProbableAuthenticationError, "it refuses the user name or the password"),
    (exceptions.AuthenticationError, "it refuses the user name or the password"),
    (exceptions.ProbableAccessDeniedError, "it refuses the virtual host"),
    (exceptions.IncompatibleProtocolError, "it does not speak AMQP 0-9-1"),
    (exceptions.ConnectionBlockedTimeout, "it takes no messages: its memory or its disk is full"),
    (exceptions.AMQPHeartbeatTimeout, "it does not answer"),
    (ssl.SSLError, "no encrypted connection comes about"),
    (socket.gaierror, "its host name is not known"),
    (TimeoutError, "it does not answer"),
    (OSError, "it cannot be reached"),
)


def is_missing(error: BaseException) -> bool:
    """Whether what was asked for is not there."""
    return isinstance(error, exceptions.ChannelClosedByBroker) and error.reply_code == amqp_words.NOT_FOUND


def explain(error: BaseException) -> str:
    """Return why RabbitMQ cannot be used; the caller takes out secrets."""
    if isinstance(error, exceptions.ConnectionClosedByBroker | exceptions.ChannelClosedByBroker):
        return amqp_words.of(error.reply_code, error.reply_text)
    for cause in _causes(error):
        for kind, words in _REASONS:
            if isinstance(cause, kind):
                said = " ".join(str(cause).split())
                return f"{words} ({said})" if said else words
    said = " ".join(str(error).split())
    return f"the connection is lost ({said or type(error).__name__})"


def _causes(error: BaseException) -> list[BaseException]:
    """Return *error* and what it was made from, the innermost first."""
    found = [error]
    for one in found:  # grows while it is walked
        inner = [*getattr(one, "exceptions", ()), getattr(one, "exception", None), *one.args, one.__cause__]
        found += [each for each in inner if isinstance(each, BaseException) and each not in found]
    return found[::-1]
