"""Kombu's Redis with a consumer that survives what it cannot read.

What is no message of Celery's ends a worker there: the error comes out of the event loop.
"""

from __future__ import annotations

from typing import Any

import structlog
from kombu.transport import redis
from kombu.transport.virtual import Empty

log = structlog.get_logger(__name__)


class Channel(redis.Channel):
    """A channel that throws away what is no message."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]  # it has no types
        except (Empty, *self.connection_errors):
            raise
        except Exception as error:  # noqa: BLE001  # whatever it stumbles over was made by somebody else
            # It is out of the list already; its text may be anything, and is not repeated.
            log.warning("a message was thrown away", reason=f"not what Celery sends ({type(error).__name__})")
            return True


class Transport(redis.Transport):
    """The transport that Celery is given for a Redis."""

    Channel = Channel
