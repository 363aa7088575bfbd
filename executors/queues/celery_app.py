"""The Celery application of publishers and of workers.  Everything that Celery could decide is switched off."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

from celery import Celery
from celery.app.amqp import AMQP, Queues
from kombu.entity import Exchange, Queue

from executors.queues.address import wrong
from executors.queues.message import queue_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executors.queues.address import Address

MAX_PRIORITY: Final = 10
#: How long a connection, and then each answer to a publisher, may take.
_TIMEOUT: Final = 4.0
#: A message that a worker has taken is given to another one only when the worker says so: that it died is found out by
#: its lease, and what becomes of the attempt is decided in the metastore.
_VISIBILITY: Final = 7 * 24 * 3600
_CONSUMER_TIMEOUT: Final = 14 * 24 * 3600 * 1000
_ARGUMENTS: Final[dict[str, Any]] = {"x-max-priority": MAX_PRIORITY, "x-consumer-timeout": _CONSUMER_TIMEOUT}
_REDIS_OPTIONS: Final = frozenset(
    {"db", "username", "password", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs"}
)
_AMQP_OPTIONS: Final = frozenset({"heartbeat", "ca_certs", "certfile", "keyfile"})
_HEARTBEAT: Final = 20


def _queue(name: str) -> Queue:
    exchange = Exchange(name, "direct")  # type: ignore[no-untyped-call]  # it has no types
    return Queue(name, exchange, name, queue_arguments=dict(_ARGUMENTS))  # type: ignore[no-untyped-call]  # as above


class _Queues(Queues):  # type: ignore[misc]  # it has no types
    """Queues that look alike, whoever names them first: the settings, ``-Q``, or a message."""

    def new_missing(self, name: str) -> Queue:
        return _queue(name)


class _Amqp(AMQP):  # type: ignore[misc]  # it has no types
    queues_cls = _Queues


def prefix_of_queues(prefix: str) -> str:
    """Return the prefix of Celery's queues: Dramatiq's of the same name hold other messages."""
    return f"{prefix}-celery"


def celery_queue(prefix: str, queue: str) -> str:
    return queue_name(prefix_of_queues(prefix), queue)


def make_app(address: Address, prefix: str, *, serves: Sequence[str] = ()) -> Celery:
    """Return the application, for a publisher, or for a worker that *serves* queues; it connects when it is used."""
    options = {
        name: values[0] for name, values in parse_qs(urlsplit(address.url).query, keep_blank_values=True).items()
    }
    known = _REDIS_OPTIONS if address.kind == "redis" else _AMQP_OPTIONS
    if unknown := sorted(set(options) - known):
        raise wrong(
            f"It has an option that is not known: {unknown[0][:50]!r}.", f"For Celery: {', '.join(sorted(known))}."
        )
    app = Celery("runyard", amqp=_Amqp, set_as_current=bool(serves), loader="app")
    names = [celery_queue(prefix, queue) for queue in serves or ("default",)]
    app.conf.update(_settings(names), **_transport(address, options, prefix, publishes=not serves))
    return app


def _settings(names: Sequence[str]) -> dict[str, Any]:
    return {
        "task_queues": [_queue(name) for name in names],
        "task_default_queue": names[0],
        "accept_content": ["json"],
        "task_serializer": "json",
        # No results, no events, no remote control: the API knows and tells everything.
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        "worker_enable_remote_control": False,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": False,
        "task_publish_retry": False,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "threads",
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # After an outage it would allow fewer messages, and allow more again only with an acknowledgement that arrives.
        "worker_enable_prefetch_count_reduction": False,
        "worker_detect_quorum_queues": False,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": _TIMEOUT,
        "broker_pool_limit": 1,
        "enable_utc": True,
    }


def _transport(address: Address, options: dict[str, str], prefix: str, *, publishes: bool) -> dict[str, Any]:
    if address.kind == "redis":
        return _redis(address, options, prefix)
    parts = urlsplit(address.url)
    limits: dict[str, Any] = {"connect_timeout": _TIMEOUT, "confirm_publish": True}
    if publishes:
        limits |= {"read_timeout": _TIMEOUT, "write_timeout": _TIMEOUT}
    settings: dict[str, Any] = {
        "broker_url": f"pyamqp://{_who(parts.username, parts.password)}{_where(parts)}{parts.path}",
        "broker_heartbeat": int(options.get("heartbeat", _HEARTBEAT)),
        "broker_transport_options": limits,
    }
    if parts.scheme == "amqps":
        files = {name: options[name] for name in ("ca_certs", "certfile", "keyfile") if name in options}
        settings["broker_use_ssl"] = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": parts.hostname, **files}
    return settings


def _redis(address: Address, options: dict[str, str], prefix: str) -> dict[str, Any]:
    parts = urlsplit(address.url)
    who = _who(options.get("username", parts.username), options.get("password", parts.password))
    number = options.get("db") or ("" if parts.scheme == "unix" else parts.path.strip("/")) or "0"
    if parts.scheme == "unix":
        url = f"redis+socket://{who}{parts.path}?virtual_host={number}"
    else:
        url = f"redis://{who}{_where(parts)}/{number}"
    settings: dict[str, Any] = {
        "broker_url": url,
        "broker_transport_options": {
            "visibility_timeout": _VISIBILITY,
            # Another application's Celery at the same Redis would put back our messages by its own clock.
            "global_keyprefix": f"{prefix_of_queues(prefix)}:",
            "priority_steps": [0],
            "socket_timeout": _TIMEOUT,
            "socket_connect_timeout": _TIMEOUT,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
    }
    if parts.scheme != "unix":
        settings["broker_transport"] = "executors.queues.celery_redis:Transport"
    if parts.scheme == "rediss":
        files = {name: options[name] for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile") if name in options}
        settings["broker_use_ssl"] = {"ssl_cert_reqs": options.get("ssl_cert_reqs", "required"), **files}
    return settings


def _who(user: str | None, password: str | None) -> str:
    """Return the part before the host, spelled so that kombu, too, finds its ends."""
    if not user and not password:
        return ""
    return f"{_spelled(user)}:{_spelled(password)}@"


def _spelled(text: str | None) -> str:
    return quote(unquote(text or ""), safe="")


def _where(parts: Any) -> str:
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{parts.port}" if parts.port else str(host)
