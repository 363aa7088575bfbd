"""What the product's code says of itself while it is simulated: errors that it survived and should not have had."""

from __future__ import annotations

import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping


@contextmanager
def listening() -> Iterator[list[str]]:
    """Collect every error that is logged with its exception, until the block ends; nothing is printed."""
    heard: list[str] = []

    def keep(_logger: Any, method: str, event: MutableMapping[str, Any]) -> Any:
        if method == "exception" or event.get("exc_info"):
            heard.append(f"{event.get('event')}: {traceback.format_exc(limit=-4)}")
        elif method == "error":
            heard.append(f"{event.get('event')}: {dict(event)}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep], wrapper_class=structlog.BoundLogger, cache_logger_on_first_use=False)
    try:
        yield heard
    finally:
        structlog.configure(**before)
