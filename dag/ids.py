"""Identifiers: how they look, how they are made, what is refused.

Ids are compared by exact equality after validation; nothing strips, folds or prefixes them (SEC-06 of the research).
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Final, NewType

if TYPE_CHECKING:
    from datetime import datetime

    from dag.world import Clock, Entropy

DagId = NewType("DagId", str)
RunId = NewType("RunId", str)
TaskId = NewType("TaskId", str)
#: The identity of one attempt, and the handle it has everywhere: process key, message id, pod name.
AttemptId = NewType("AttemptId", str)

#: Task ids; dots are kept for groups.
TASK_ID_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_-]{0,249}$"
#: All other ids: what fits into one URL segment without an escape, and names no folder.
OTHER_ID_PATTERN: Final = r"^(?!\.{1,2}$)[A-Za-z0-9_.~:+-]{1,250}$"

# \Z, not $: Python's $ also matches before a trailing newline.
_TASK_ID: Final = re.compile(TASK_ID_PATTERN[:-1] + r"\Z")
_OTHER_ID: Final = re.compile(OTHER_ID_PATTERN[:-1] + r"\Z")


def is_task_id(text: str) -> bool:
    """Whether *text* may name a task."""
    return _TASK_ID.match(text) is not None


def is_id(text: str) -> bool:
    """Whether *text* may name a DAG, a run or any other thing but a task."""
    return _OTHER_ID.match(text) is not None


def uuid7(at: datetime, chance: bytes) -> uuid.UUID:
    """Return the UUID version 7 (RFC 9562, 5.7) of the moment *at*, filled from ten random bytes *chance*."""
    millis = int(at.timestamp() * 1000) & ((1 << 48) - 1)
    rand = int.from_bytes(chance[:10], "big")
    value = millis << 80 | 0x7 << 76 | (rand >> 68 & 0xFFF) << 64 | 0b10 << 62 | rand & ((1 << 62) - 1)
    return uuid.UUID(int=value)


def new_id(clock: Clock, entropy: Entropy) -> str:
    """Return a new id that sorts by time: a UUID version 7 as text."""
    return str(uuid7(clock.now(), entropy.token(10)))
