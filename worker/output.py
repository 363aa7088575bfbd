"""The output of a task: at most 1 MiB of JSON in a file that the task may write."""

from __future__ import annotations

import json
import math
import os
import stat
from typing import Any, NoReturn

from worker.protocol import MAX_DEPTH, MAX_OUTPUT
from worker.runner import depth


class OutputInvalid(Exception):
    """What the task left as its output cannot be taken."""


def read(file: str) -> str | None:
    """Return the JSON text in *file*, or None where there is no file."""
    data = _read(file)
    return None if data is None else check(data)


def check(data: bytes) -> str:
    """Return *data* as text if it is one JSON value that every reader understands the same way."""
    if len(data) > MAX_OUTPUT:
        raise OutputInvalid(f"output of {len(data):,} bytes; at most {MAX_OUTPUT:,} are taken")
    if not data.strip():
        raise OutputInvalid("output is not JSON: the file is empty")
    if depth(data) > MAX_DEPTH:
        raise OutputInvalid(f"output nests deeper than {MAX_DEPTH} levels")
    try:
        text = data.decode()
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()  # raises on a lone surrogate
    except UnicodeDecodeError as error:
        raise OutputInvalid(f"output is not JSON: byte {error.start} is not UTF-8") from None
    except UnicodeEncodeError:
        raise OutputInvalid("output is not JSON: a string holds a lone surrogate") from None
    except ValueError as error:
        raise OutputInvalid(f"output is not JSON: {error}") from None
    return text


def _read(file: str) -> bytes | None:
    try:
        # The task can put anything there: a link, a pipe, a terabyte of nothing.
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputInvalid(f"output cannot be read: {error.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OutputInvalid("output cannot be read: it is not a regular file")
        if found.st_size > MAX_OUTPUT:
            raise OutputInvalid(f"output of {found.st_size:,} bytes; at most {MAX_OUTPUT:,} are taken")
        return os.read(fd, MAX_OUTPUT + 1)
    finally:
        os.close(fd)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> Any:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value
