"""The loop of the simulation: virtual time, a fixed order, processes that freeze and die between two steps."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tests.simulation.loop import Process, Runaway, SimLoop, Stuck


def run(work: Any, loop: SimLoop | None = None) -> Any:
    return (loop or SimLoop()).run(work)


def test_an_hour_costs_nothing() -> None:
    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run(main()) == 3600


def test_what_is_due_at_once_comes_in_the_order_in_which_it_was_set() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        for number in (3, 1, 2):
            loop.call_at(5.0, seen.append, number)
        loop.call_at(4.0, seen.append, 0)
        await asyncio.sleep(6)
        return seen

    assert run(main()) == [0, 3, 1, 2]


def test_timeouts_and_tasks_are_those_of_asyncio() -> None:
    async def main() -> tuple[float, list[int]]:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.Event().wait()
        at = asyncio.get_running_loop().time()
        return at, list(await asyncio.gather(*(asyncio.sleep(n, n) for n in range(3))))

    assert run(main()) == (2.5, [0, 1, 2])


def _ticking(seen: list[float], process: Process) -> None:
    async def tick() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                seen.append(process.loop.time())
        finally:
            seen.append(-1)

    process.spawn(tick())


def test_a_killed_process_takes_no_further_step() -> None:
    loop = SimLoop()
    seen: list[float] = []
    died: list[float] = []

    async def main() -> list[float]:
        process = Process(loop, "p", "h")
        process.on_death.append(lambda: died.append(loop.time()))
        _ticking(seen, process)
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(5)
        return list(seen)

    assert run(main(), loop) == [1, 2]  # and no ``finally``
    assert died == [2.5]


def test_a_frozen_process_does_later_what_came_due_and_hears_first_what_arrived() -> None:
    loop = SimLoop()
    seen: list[str] = []

    async def main() -> list[str]:
        process = Process(loop, "p", "h")
        process.later(1, seen.append, "timer")
        process.later(2, seen.append, "bytes").is_io = True
        process.freeze()
        await asyncio.sleep(3)
        assert seen == []
        process.thaw()
        await asyncio.sleep(0)
        return list(seen)

    assert run(main(), loop) == ["bytes", "timer"]


def test_a_fuse_kills_between_two_steps_of_one_moment() -> None:
    loop = SimLoop()
    seen: list[int] = []

    async def main() -> list[int]:
        process = Process(loop, "p", "h")

        async def work() -> None:
            for number in range(10):
                seen.append(number)
                await asyncio.sleep(0)

        process.fuse = 4
        process.spawn(work())
        await asyncio.sleep(1)
        assert not process.is_alive
        return list(seen)

    assert run(main(), loop) == [0, 1, 2]


def test_who_waits_for_ever_is_told() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        run(main())


def test_who_goes_round_for_ever_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimLoop, "MOST_STEPS", 1_000)

    async def main() -> None:
        while True:  # noqa: ASYNC110  # it never waits for anything
            await asyncio.sleep(0)  # it never waits for anything

    with pytest.raises(Runaway):
        run(main())


def test_errors_that_nobody_caught_are_kept() -> None:
    loop = SimLoop()

    async def main() -> None:
        async def fail() -> None:
            raise ValueError("nobody waits for it")

        task = loop.create_task(fail())
        del task
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    run(main(), loop)
    assert len(loop.errors) == 2
    assert "nobody waits for it" in " ".join(loop.errors)


def test_a_loop_in_another_thread_is_left_alone() -> None:
    """A server that another test has left there goes on; what it began here was an error of the seed."""
    found: list[bool] = []

    async def elsewhere() -> None:
        found.append(asyncio.events.get_running_loop() is asyncio.get_running_loop())
        found.append(isinstance(asyncio.events._get_running_loop(), SimLoop))

    async def main() -> bool:
        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        thread.join()
        return asyncio.events.get_running_loop() is asyncio.get_running_loop()

    assert run(main())
    assert found == [True, False]
