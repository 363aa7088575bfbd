"""The reference scenario: every command, by a scheduler, supervisors and clients that repeat what was not answered.

Nothing in it follows a script: each part looks at what is there and does the next thing, as the real ones do.  So it
can be broken at any statement and goes on; and what is outside of the service (clients, tasks, agents) keeps its memory
in a file, so that another process can go on as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import select

from dag.errors import AlreadyExists, IllegalStep, Unavailable
from dag.outcomes import Ended
from metastore.commands.admission import Outlet, admit_ready
from metastore.commands.advance import advance_run
from metastore.commands.agents import beat, expired_agents, forget_lease, register_agent
from metastore.commands.attempts import End, Started, end_attempt, start_attempt
from metastore.commands.heal import verify_limit, verify_run
from metastore.commands.materialise import materialise, start_run
from metastore.commands.offers import defer_attempt, take_up
from metastore.commands.once import Answer, once
from metastore.commands.staging import read_input, stage_output
from metastore.commands.stopping import time_out_run
from metastore.commands.workers import (
    Registration,
    beat_worker,
    mark_serving,
    register_worker,
    signing_key,
)  # fmt: skip
from metastore.models.attempts import attempts
from metastore.models.runs import runs
from metastore.queries import work
from tests.metastore.requests import REQUESTS, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from metastore.store import Store, Tx
    from tests.metastore.outside import Outside
    from tests.world import FakeClock

P = ParamSpec("P")
T = TypeVar("T")

AGENT: Final = "agent-1"
BOOT: Final = "boot-1"
LOCAL: Final = Outlet("local", AGENT)
FARM: Final = Outlet("farm", None, by_queue=True)
WORKERS: Final = ("1" * 32, "2" * 32)
HOUR: Final = timedelta(hours=1)
SOON: Final = timedelta(milliseconds=20)
#: So often all look again before it is given up; the scenario takes some 20, and more where it waits after a loss.
_MOST_ROUNDS: Final = 400
#: So often somebody asks again who got no answer.
_TRIES: Final = 3

#: How each attempt of a task ends, by its fence; the last one goes on.  What is not here succeeds.
ENDS: Final[dict[str, tuple[Ended, ...]]] = {
    "flaky": (Ended.FAILED, Ended.TIMED_OUT, Ended.SUCCESS),
    "lost": (Ended.LOST, Ended.SUCCESS),  # a second loss waits for five seconds
    "unlucky": (Ended.NEVER_STARTED, Ended.SUCCESS),
    "drained": (Ended.DRAINED, Ended.SUCCESS),
    "wrong": (Ended.FAILED,),
    "refused": (Ended.REJECTED,),
}


class Reference:
    """One service, and all that is around it."""

    def __init__(self, store: Store, outside: Outside, clock: FakeClock) -> None:
        self._store = store
        self._outside = outside
        self._clock = clock
        self._registered = False

    async def play(self) -> None:
        """Go on until everything has ended and every request has its answer."""
        for _ in range(_MOST_ROUNDS):
            await self._scheduler()
            await self._local()
            await self._far()
            done = await self._clients()
            if done and set((await self._read(_states)).values()) <= {"success", "failed", "cancelled"}:
                await self._tidy()
                return
            await self._outside.wait(self._clock)
        raise AssertionError(f"the scenario does not come to its end: {await self.states()}")

    async def states(self) -> dict[tuple[str, str], str]:
        return await self._read(_states)

    # The scheduler

    async def _scheduler(self) -> None:
        if not self._registered:
            slots = [{"name": "local", "slots": 2, "placed": True, "status": "ok", "detail": ""}]
            await self._write(register_agent, AGENT, host="here", executors=slots, lease=HOUR)
            await self._write(signing_key)
            self._registered = True
        now = self._clock.now()
        for run in await self._read(work.startable_runs, now):
            await self._write(start_run, run, "local", [])
        for run in await self._read(work.unmaterialised_runs, now):
            await self._write(materialise, run, "local", [])
        for run in await self._read(work.overdue_runs, now):
            await self._write(time_out_run, run)
        for run in await self._read(work.due_runs, now):
            await self._write(advance_run, run)
        await self._write(mark_serving, HOUR)
        for agent in await self._write(expired_agents, SOON):
            for one in await self._read(work.placed, [agent]):
                end = End(attempt_id=one.id, ended=Ended.LOST, cause="worker_lost")
                await self._write(end_attempt, end, actor="scheduler", expired_agent=agent, lease=SOON)
            await self._write(forget_lease, agent, SOON)
        await self._write(admit_ready, [LOCAL, FARM])

    async def _tidy(self) -> None:
        """The safety poll: it has to find nothing."""
        for key in await self._read(work.limit_keys, "", 100):
            assert not await self._write(verify_limit, key), f"{key} was counted wrong"
        for run in await self._read(work.active_runs, self._clock.now(), 0, 100):
            assert not await self._write(verify_run, run)

    # The agent of the service's host

    async def _local(self) -> None:
        assert await self._write(beat, AGENT, "here", HOUR)
        for one in await self._read(work.placed, [AGENT]):
            await self._look_after(one)

    async def _look_after(self, one: work.Placed) -> None:
        task_id = one.labels["task_id"]
        ends = ENDS.get(task_id, (Ended.SUCCESS,))
        ended = ends[min(int(one.labels["try_number"]), len(ends)) - 1]
        if one.state == "queued":
            if ended in (Ended.NEVER_STARTED, Ended.REJECTED):
                await self._write(defer_attempt, one.id, "not now", timedelta(0))
                await self._conclude(one.id, ended)
                return
            await self._begin(one.id, one.labels)
        elif not self._outside.begun(one.id):
            if self._outside.noted("asked", one.id):  # its answer was lost
                await self._begin(one.id, one.labels)
            else:  # started with an end whose answer was lost: nobody has heard of it
                await self._conclude(one.id, Ended.LOST)
        elif task_id == "stops" and one.stop_reason is None:
            return
        elif ended in (Ended.LOST, Ended.NEVER_STARTED):  # the latter came with an end, and was started by it
            await self._conclude(one.id, Ended.LOST)
        else:
            ended = Ended.FAILED if ended is Ended.REJECTED else ended
            await self._finish(one, Ended.CANCELLED if one.stop_reason else ended)

    async def _begin(self, attempt_id: str, labels: Any) -> None:
        self._outside.note("asked", attempt_id)
        answer = await self._write(start_attempt, attempt_id, BOOT, AGENT)
        if isinstance(answer, Started) and answer.stop_reason is None:
            self._outside.wrote("start", attempt_id, labels)

    async def _finish(self, one: work.Placed, ended: Ended) -> None:
        if ended is Ended.SUCCESS:
            self._outside.wrote("end", one.id, one.labels)
        elif ended is Ended.FAILED:
            self._outside.wrote("fail", one.id, one.labels)
        output = json.dumps(one.id) if ended is Ended.SUCCESS else None
        end = End(attempt_id=one.id, ended=ended, boot_id=BOOT, output=output)
        noted = await self._write(end_attempt, end, [Outlet("local", AGENT, BOOT)])
        for more in noted.admitted:
            if more.body is not None:
                self._outside.wrote("start", more.attempt_id, more.labels)

    async def _conclude(self, attempt_id: str, ended: Ended) -> None:
        await self._write(
            end_attempt, End(attempt_id=attempt_id, ended=ended, cause="gone"), [LOCAL], actor="scheduler"
        )

    # Workers elsewhere: the first one takes one task and dies, the second one does the rest

    async def _far(self) -> None:
        first, second = WORKERS
        alive = second if self._outside.noted("died", first) else first
        for old in await self._write(register_worker, _registration(alive), HOUR):
            await self._write(end_attempt, End(attempt_id=old, ended=Ended.LOST), actor="scheduler")
        for one in await self._read(_on_the_farm):
            if one.placed_on is None:
                await self._write(take_up, {one.id: (timedelta(0), 1)})
                await self._begin_far(one, alive)
            elif one.placed_on == alive:
                await self._finish_far(one, alive)
        token = _hash(f"token {alive}")
        await self._write(beat_worker, alive, token_hash=token, boot_id=f"boot {alive}", lease=HOUR, draining=False)
        if alive == first and self._outside.noted("holds", first):
            # Its last heartbeat; nothing is heard of it any more.
            await self._write(beat_worker, first, token_hash=token, boot_id=f"boot {first}", lease=SOON, draining=False)
            self._outside.note("died", first)

    async def _begin_far(self, one: Any, worker: str) -> None:
        key = _hash(f"key {one.id}")
        started = await self._write(start_attempt, one.id, f"boot {worker}", worker, key_hash=key)
        if isinstance(started, Started):
            self._outside.wrote("start", one.id, one.labels)
            self._outside.note("holds", worker)

    async def _finish_far(self, one: Any, worker: str) -> None:
        if not self._outside.begun(one.id):  # the answer to its start was lost
            await self._begin_far(one, worker)
            return
        key = _hash(f"key {one.id}")
        if one.labels["task_id"] == "y":
            saw = json.loads(str(await self._write(read_input, one.id, key_hash=key, task_id="x")))
            self._outside.wrote("saw", one.id, one.labels, from_task="x", from_attempt=saw)
        await self._write(stage_output, one.id, key_hash=key, value=json.dumps(one.id))
        self._outside.wrote("end", one.id, one.labels)
        end = End(attempt_id=one.id, ended=Ended.SUCCESS, boot_id=f"boot {worker}", key_hash=key)
        noted = await self._write(end_attempt, end, [FARM])
        assert noted.accepted, "a remote supervisor is told again that its end was accepted"

    # Clients

    async def _clients(self) -> bool:
        """Send the next requests, each once the one before it is answered; return whether there is none left."""
        for number, request in enumerate(REQUESTS):
            key = f"k{number}"
            if self._outside.answered(key):
                continue
            # Who has sent one and died repeats it, whatever it has come to: what it is about may be gone.
            if not self._outside.noted("sent", key) and not request.ready(await self._read(_states)):
                return False
            self._outside.note("sent", key)
            await self._request(request, key)
        return True

    async def _request(self, request: Request, key: str) -> None:
        asked = (request.op, request.dag_id, request.run_id, key)

        def effect(tx: Tx) -> Answer:
            return Answer(200, {}, json.dumps(request.effect(tx)))

        for _ in range(_TRIES):
            try:
                answer, _ = await self._store.write(once, "key:test", key, request.op, effect)
            except Unavailable:
                self._outside.call(*asked, None, None)
            except (AlreadyExists, IllegalStep) as refused:
                self._outside.call(*asked, 409, str(refused))
                return
            else:
                self._outside.call(*asked, answer.status, json.loads(answer.body))
                return

    # How everybody asks: again, when there was no answer

    async def _write(self, command: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_TRIES):
            try:
                return await self._store.write(command, *args, **kwargs)
            except Unavailable:
                await asyncio.sleep(0)
        return await self._store.write(command, *args, **kwargs)

    async def _read(self, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_TRIES):
            try:
                return await self._store.read(query, *args, **kwargs)
            except Unavailable:
                await asyncio.sleep(0)
        return await self._store.read(query, *args, **kwargs)


def _states(conn: Connection) -> dict[tuple[str, str], str]:
    rows = conn.execute(select(runs.c.dag_id, runs.c.run_id, runs.c.state)).all()
    return {(row.dag_id, row.run_id): row.state for row in rows}


def _on_the_farm(conn: Connection) -> list[work.Placed]:
    active = attempts.c.state.in_(["queued", "running"])
    rows = conn.execute(work.PLACED.where(attempts.c.executor == "farm", active).order_by(attempts.c.id))
    return [work.to_placed(row) for row in rows]


def _registration(worker: str) -> Registration:
    return Registration(
        worker_id=worker, boot_id=f"boot {worker}", token_hash=_hash(f"token {worker}"), name="w", host="far", pid=1,
        version="0", executor="farm", queues=("gpu",), slots=1,
    )  # fmt: skip


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
