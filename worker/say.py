"""The agent's own log: lines on its standard error."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress


def say(text: str) -> None:
    """Write a line to the agent's own log; on a full disk there is none."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with suppress(OSError):
        sys.stderr.write(f"{stamp} agent[{os.getpid()}] {text}\n")
        sys.stderr.flush()
