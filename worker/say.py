"""The agent's own log: lines on its standard error."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import Final

#: The size at which it starts afresh.
_MAX_LOG: Final = 1024 * 1024


def say(text: str) -> None:
    """Write a line to the agent's own log; on a full disk there is none."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with suppress(OSError):
        sys.stderr.write(f"{stamp} agent[{os.getpid()}] {text}\n")
        sys.stderr.flush()


def trim() -> None:
    """Start the log afresh when it has grown."""
    with suppress(OSError):
        if os.fstat(sys.stderr.fileno()).st_size > _MAX_LOG:
            os.ftruncate(sys.stderr.fileno(), 0)
