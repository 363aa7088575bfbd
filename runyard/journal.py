"""The service's own log: one event and its facts a line, on stderr; JSON unless a person is looking."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import Processor


def configure(level: str, *, human: bool) -> None:
    """Send everything that Runyard and its libraries log to stderr, from *level* up."""
    before: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Processor = _for_people() if human else structlog.processors.JSONRenderer()
    least = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*before, last],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    # Libraries speak up when something is wrong; their running commentary is not ours.
    logging.basicConfig(level=max(least, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)


def join_library() -> None:
    """Write through the standard library's logging, in a process whose log belongs to somebody else."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            _as_a_line,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def _for_people() -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=True, exception_formatter=structlog.dev.plain_traceback, pad_event_to=25, sort_keys=False
    )


def _as_a_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    text = str(event.pop("event"))
    trace = event.pop("exception", None)
    facts = [f"{name}={value!r}" for name, value in event.items()]
    return " ".join([text, *facts]) + (f"\n{trace}" if trace else "")
