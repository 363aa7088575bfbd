"""What cannot be done about one thing is logged, and keeps no other thing (I-L4)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import structlog

from dag.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

log = structlog.get_logger(__name__)


@contextmanager
def set_aside(what: str, **about: Any) -> Iterator[None]:
    """Log an error of the block as *what*, and go on after it; a metastore that is away is no such error."""
    try:
        yield
    except Unavailable:
        raise
    except Exception:
        # Whatever one bad row does, the others must go on.
        log.exception(what, **about)
