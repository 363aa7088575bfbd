"""The zygote by itself: it sees all children, however many there are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import worker

FOLDER = Path(worker.__file__).parent
#: More than a page of ``/proc/…/children`` holds.
MANY = 900
CROWD = f"""
import os, runpy, signal
names = runpy.run_path({str(FOLDER / "zygote.py")!r})
for _ in range({MANY}):
    if os.fork() == 0:
        signal.pause()
print(len(names["_Zygote"](None, None).children()), len(names["_children"](os.getpid())), flush=True)
os.killpg(0, signal.SIGKILL)
"""


def test_children_are_seen_however_many_there_are() -> None:
    """The kernel gives a page at a time, of whole pids: a read that brings less than was asked for is not the last."""
    done = subprocess.Popen([sys.executable, "-I", "-S", "-c", CROWD], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert done.stdout is not None
        assert done.stdout.readline().split() == [str(MANY).encode()] * 2
    finally:
        with suppress(ProcessLookupError):
            os.killpg(done.pid, signal.SIGKILL)
        done.communicate()
