"""Who waits for processes that nobody waits for."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runyard import reaper


def test_a_stranger_is_reaped_in_the_second_round_and_a_living_one_never() -> None:
    ended, living = os.posix_spawn("/bin/true", ["true"], {}), os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    deadline = time.monotonic() + 20
    while ended not in (seen := reaper.reap(set())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert living not in seen
    assert Path(f"/proc/{ended}").exists()  # whoever started it may be about to wait
    assert ended not in reaper.reap({ended, living})
    assert not Path(f"/proc/{ended}").exists()
    os.kill(living, 9)
    assert os.waitpid(living, 0)[0] == living
    with pytest.raises(ChildProcessError):
        os.waitpid(ended, 0)


async def test_only_the_first_process_of_a_machine_reaps() -> None:
    await reaper.reap_strangers()  # returns
