"""Calls that share transactions: what comes while one is on its way goes into the next, all of it at once.

A transaction costs a dozen round trips and a flush of the disk, whoever needs it; and those that change the same run
wait for each other's lock anyway.  So one goes at once, and what comes meanwhile shares the next: under load a commit
is paid by many, and without load nobody waits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dag.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from metastore.store import Store

C = TypeVar("C")
R = TypeVar("R")


class Together(Generic[C, R]):
    """One command's calls on their way into transactions.

    *command* ``(tx, calls, *args)`` returns, for each call, its result or the error that is about it alone.  Whatever
    it raises is about one of them, and nobody knows which: each is tried again by itself, and keeps nobody waiting.
    """

    def __init__(
        self,
        store: Store,
        command: Callable[..., Sequence[R | Exception]],
        *args: Any,
        most: int,
        pause: float = 0,
        key: Callable[[C], Hashable] = id,
    ) -> None:
        self._store = store
        self._command = command
        self._args = args
        #: At most so many calls share a transaction.
        self._most = most
        #: Seconds between two transactions; the first one goes at once.
        self._pause = pause
        #: Of two calls with the same key, the later one goes into a later transaction.
        self._key = key
        self._pending: list[tuple[C, asyncio.Future[R]]] = []
        self._lane: asyncio.Task[None] | None = None
        self._alone: set[asyncio.Task[None]] = set()

    async def do(self, call: C) -> R:
        """Return what became of *call*; a caller that goes away does not take it back."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._pending.append((call, future))
        if self._lane is None or self._lane.done():
            self._lane = asyncio.create_task(self._drive(), name=f"together:{self._command.__name__}")
        return await future

    async def _drive(self) -> None:
        while self._pending:
            await self._share(self._next())
            if self._pause:
                await asyncio.sleep(self._pause)

    def _next(self) -> list[tuple[C, asyncio.Future[R]]]:
        batch: dict[Hashable, tuple[C, asyncio.Future[R]]] = {}
        later = []
        for one in self._pending:
            key = self._key(one[0])
            if len(batch) < self._most and key not in batch:
                batch[key] = one
            else:
                later.append(one)
        self._pending = later
        return list(batch.values())

    async def _share(self, batch: list[tuple[C, asyncio.Future[R]]]) -> None:
        found: Sequence[R | Exception]
        try:
            found = await self._store.write(self._command, [call for call, _ in batch], *self._args)
        except Exception as error:  # noqa: BLE001  # it is theirs who called; the next ones go on
            if len(batch) > 1 and not isinstance(error, Unavailable):
                for one in batch:
                    task = asyncio.create_task(self._share([one]), name="together:alone")
                    self._alone.add(task)
                    task.add_done_callback(self._alone.discard)
                return
            found = [error] * len(batch)
        for (_, future), result in zip(batch, found, strict=True):
            if future.done():  # whoever asked has gone; what was written stays
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
                future.exception()  # seen, also where whoever asked goes away in this very moment
            else:
                future.set_result(result)
