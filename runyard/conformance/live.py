"""The live metastore: a real database and a real API behind the bench, for executors whose workers speak HTTP."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from dag.document import content_hash
from dag.errors import Unavailable
from dag.ids import AttemptId, new_id
from dag.outcomes import Ended
from dag.spec import load
from dag.tickets import sign
from executors.base import Launch, Phase
from executors.conformance.metastore import Row
from metastore.commands.admission import Outlet
from metastore.commands.agents import expired_agents, forget_lease, register_agent
from metastore.commands.attempts import End, end_attempt
from metastore.commands.dags import put_dag
from metastore.commands.leases import shorten
from metastore.commands.materialise import start_run
from metastore.commands.runs import NewRun, create_run
from metastore.commands.stopping import cancel_run
from metastore.commands.workers import Registration, register_worker
from metastore.queries import work
from metastore.queries.workers import workers
from runyard.conformance.bodies import document_of
from runyard.conformance.facts import facts_of, finish_of, state_of, steps_of, stop, wrong_books
from runyard.conformance.service import HEARTBEAT, LEASE
from worker import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dag.world import Entropy
    from executors.base import Door, Executor
    from metastore.commands.admission import Admitted
    from metastore.records import AttemptRecord, RunRecord
    from runyard.conformance.gate import State
    from runyard.conformance.service import Service
    from worker.protocol import Finish, Message, Start, StopReason, TaskBody

_TICK: Final = 0.02
#: An offer that nobody has taken for this long is made again, where the medium cannot say what became of it.
_PATIENCE: Final = 1.0
#: So many heartbeats after a lease has got another length, a worker knows it.
_CERTAIN: Final = 3
#: Who has said nothing for so many heartbeats is dead, unless this machine stands still.
_SILENT: Final = 10 * HEARTBEAT
_PHANTOM: Final = "f" * 32
_MANY: Final = 10_000
_MOST: Final = 1_000
_BAD: Final = ("lost", "never_started", "drained")


class Live:
    """A :class:`~executors.conformance.metastore.Metastore` for one scenario."""

    #: A finish over HTTP never asks for more.
    backlog: list[AttemptId] | None = None
    ships_logs = True

    def __init__(self, service: Service, *, shared: bool = False) -> None:
        """*shared*: the service goes on for other scenarios, and its owner stops it."""
        self.service = service
        self.clock = service.clock
        self.entropy: Entropy = service.entropy
        self.door: Door = self
        self.rows: dict[AttemptId, Row] = {}
        self.lose_answers: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        #: How many heartbeats came, by worker.
        self.beats: Counter[str] = Counter()
        self.poisoned: set[str] = set()
        #: Bodies that no document says, by the attempt that stands in for them.
        self.stand_ins: dict[str, TaskBody] = {}
        self._shared = shared
        self._queues: set[str] = set()
        self._runs: dict[AttemptId, RunRecord] = {}
        self._launches: dict[AttemptId, Launch] = {}
        self._offered: dict[AttemptId, float] = {}
        self._executor: Executor | None = None
        self._reader: asyncio.Task[None] | None = None
        #: What is admitted and what is given up must not mix.
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        await self.service.start()
        await self.service.have_lease(LEASE)
        self.service.tenant = self
        self._reader = asyncio.get_running_loop().create_task(self._keep_reading())

    async def close(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        self.service.gate.state = "open"
        self.service.clock.skew = timedelta(0)
        for run in self._runs.values():
            await self._abandon(run)
        for attempt_id, row in self.rows.items():
            if row.state == "running":
                await self.lose(attempt_id)
        self.service.tenant = None
        if not self._shared:
            await self.service.stop()

    async def serve(self, executor: Executor) -> None:
        self._executor = executor
        if not getattr(executor, "by_queue", False):
            place = executor.placed_on or "kit"
            facts = {"name": executor.name, "slots": _MANY, "placed": executor.placed_on is not None, "status": "ok"}
            await self.service.store.write(
                register_agent, place, host="here", executors=[{**facts, "detail": ""}], lease=None
            )

    async def _have_credit(self, queue: str) -> None:
        """Have a worker that takes nothing; it is why everything that a scenario queues is admitted at once."""
        assert self._executor is not None  # noqa: S101  # the bench serves it first
        if not getattr(self._executor, "by_queue", False) or queue in self._queues:
            return
        self._queues.add(queue)
        registration = Registration(
            worker_id=_PHANTOM,
            boot_id=_PHANTOM,
            token_hash="",
            name="phantom",
            host="nowhere",
            pid=0,
            version="",
            executor=self._executor.name,
            queues=tuple(sorted(self._queues)),
            slots=_MANY,
        )
        await self.service.store.write(register_worker, registration, timedelta(days=1))

    # What a scenario asks for

    async def queue(self, body: TaskBody, *, queue: str = "default") -> AttemptId:
        assert self._executor is not None  # noqa: S101  # the bench serves it first
        document, whole = document_of(body, executor=self._executor.name, queue=queue)
        await self._have_credit(queue)
        async with self._turn:
            run = await self._trigger(document, body)
            attempt_id = await self._admit(run)
        self._runs[attempt_id] = run
        self.rows[attempt_id] = Row(attempt_id, body, history=["queued"])
        if not whole:
            self.stand_ins[attempt_id] = body
        return attempt_id

    async def _trigger(self, document: dict[str, Any], body: TaskBody) -> RunRecord:
        spec = load(document)
        await self.service.store.write(
            put_dag, spec=spec, document=document, content_hash=content_hash(document), actor="kit"
        )
        number = new_id(self.clock, self.entropy)
        # Every attempt is in a run of its own; a scenario that is about the run's name has but one.
        run_id = body["run_id"] if body["run_id"] != "manual" else f"manual-{number}"
        new = NewRun(
            dag_id=spec.dag_id,
            run_id=run_id,
            request_id=number,
            params={},
            logical_date=self.clock.now(),
            run_after=self.clock.now(),
            actor="kit",
        )
        return (await self.service.store.write(create_run, new)).run

    async def _admit(self, run: RunRecord) -> AttemptId:
        executor = self._executor
        assert executor is not None  # noqa: S101  # as above
        by_queue = getattr(executor, "by_queue", False)
        outlet = Outlet(executor.name, executor.placed_on, by_queue=by_queue)
        admitted = await self.service.store.write(start_run, run.id, executor.name, [outlet])
        mine: Admitted | None = None
        for one in admitted:
            if (one.labels["dag_id"], one.labels["run_id"]) == (run.dag_id, run.run_id):
                mine = one
            else:  # the next try of what was lost: scenarios are about one
                await self.service.store.write(cancel_run, one.labels["dag_id"], one.labels["run_id"], actor="kit")
        if mine is None:
            raise AssertionError(f"the run {run.run_id} was not admitted")
        ticket = self.ticket(mine.attempt_id) if by_queue else ""
        self._launches[mine.attempt_id] = Launch(mine.attempt_id, mine.labels, mine.queue, mine.priority, ticket)
        return mine.attempt_id

    def ticket(self, attempt_id: str) -> str:
        """Return what a worker shows to start an attempt."""
        return sign(self.service.signing_key, attempt_id)

    def launch(self, attempt_id: AttemptId) -> Launch:
        self._offered[attempt_id] = self.clock.monotonic()
        return self._launches[attempt_id]

    async def cancel(self, attempt_id: AttemptId, reason: StopReason = "user") -> None:
        if reason == "user":
            with suppress(Exception):  # a run that is over is not cancelled any more
                run = self._runs[attempt_id]
                await self.service.store.write(cancel_run, run.dag_id, run.run_id, actor="kit")
        else:
            await self.service.store.write(stop, attempt_id, reason)
        await self.read()

    async def lose(self, attempt_id: AttemptId) -> None:
        end = End(attempt_id=attempt_id, ended=Ended.LOST, cause="worker_lost", error="the kit says so")
        await self.service.store.write(end_attempt, end, actor="scheduler")
        await self.read()

    def log(self, attempt_id: str) -> bytes:
        """Return what has arrived of a log."""
        try:
            return logs.path(self.service.logs, attempt_id).read_bytes()
        except FileNotFoundError:
            return b""

    # What may go wrong

    @property
    def is_down(self) -> bool:
        return self.service.gate.state != "open"

    @is_down.setter
    def is_down(self, down: bool) -> None:
        self.service.gate.state = "refuses" if down else "open"

    def partition(self, state: State) -> None:
        """Cut workers off from the API, which goes on without them, or mend it (``open``)."""
        self.service.gate.state = state

    async def outage(self, on: bool) -> None:  # noqa: FBT001  # on or off is all it says
        """Have no API at all, or have it again."""
        await (self.service.fall_silent() if on else self.service.serve())

    def skew(self, by: timedelta) -> None:
        """Have the service's clock be wrong, beside those of its workers."""
        self.service.clock.skew = by

    async def have_lease(self, lease: timedelta) -> None:
        """Give workers leases of that length from now on; return when they have heard of it."""
        await self.service.have_lease(lease)
        before = self.beats.copy()
        there = await self._workers()
        # Whoever sends the next heartbeat has had the answer to the last, unless that was interrupted.
        while any(self.beats[one] < before[one] + _CERTAIN for one in there):
            await asyncio.sleep(_TICK)
            there = await self._workers()
        await self.service.store.write(shorten, there, lease)

    async def _workers(self) -> list[str]:
        """Return the workers that are there: another scenario may have killed some whose lease is not over yet."""
        now = self.clock.now()
        known = await self.service.store.read(workers, now, "", _MOST)
        live = [one for one in known if one.kind == "worker" and one.state == "live" and one.worker_id != _PHANTOM]
        return [one.worker_id for one in live if now - one.seen_at < _SILENT]

    def secrets(self) -> list[str]:
        tickets = [launch.ticket for launch in self._launches.values() if launch.ticket]
        return [self.service.key, self.service.signing_key.hex(), *tickets]

    # The scheduler

    async def reconcile(self) -> None:
        executor = self._executor
        if executor is None:
            return
        async with self._turn:
            await self._give_up_expired()
            await self.read()
            rows = [row for row in self.rows.values() if not row.is_over]
            observed = await executor.observe([row.attempt_id for row in rows])
            for row, seen in zip(rows, observed, strict=True):
                late = self.clock.monotonic() - self._offered.get(row.attempt_id, -_MANY) > _PATIENCE
                if row.state == "queued":
                    if seen.phase is Phase.GONE or (late and getattr(executor, "by_queue", False)):
                        await executor.launch([self.launch(row.attempt_id)])
                elif seen.phase is Phase.GONE and seen.boot_id is not None:
                    if seen.boot_id != row.boot_id:
                        await self.lose(row.attempt_id)
                    else:
                        await executor.launch([self.launch(row.attempt_id)])
                elif row.stop_reason is not None and seen.phase in (Phase.PENDING, Phase.RUNNING):
                    await executor.cancel([row.attempt_id], reason=row.stop_reason)

    async def _give_up_expired(self) -> None:
        store, lease = self.service.store, self.service.lease
        for agent_id in await store.write(expired_agents, lease):
            for one in await store.read(work.placed, [agent_id]):
                end = End(attempt_id=one.id, ended=Ended.LOST, cause="worker_lost", error="its lease ran out")
                await store.write(end_attempt, end, actor="scheduler", expired_agent=agent_id, lease=lease)
            await store.write(forget_lease, agent_id, lease)

    async def check(self) -> None:
        """Every attempt has ended once, and the counts of runs and limits are those of their rows."""
        wrong = await self.service.store.read(wrong_books)
        if wrong:
            raise AssertionError(f"wrong books: {', '.join(wrong)}")
        for row in self.rows.values():
            steps = await self.service.store.read(steps_of, self._runs[row.attempt_id].id, row.attempt_id)
            if row.is_over and steps.count("end") != 1:
                raise AssertionError(f"{row.attempt_id} is {row.state} and has ended {steps.count('end')} times")

    # Reading what became of them

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            with suppress(Unavailable):
                await self.read()

    async def read(self) -> None:
        """See what the database says of every attempt that is not over."""
        open_rows = [row for row in self.rows.values() if not row.is_over]
        for row in open_rows:
            record, output = await self.service.store.read(facts_of, row.attempt_id)
            if not row.is_over:
                await self._note(row, record, output)

    async def _note(self, row: Row, record: AttemptRecord, output: str | None) -> None:
        row.boot_id, row.placed_on = record.boot_id, record.placed_on
        row.stop_reason = record.stop_reason  # type: ignore[assignment]  # the column holds nothing else
        state = state_of(record)
        if state in (row.state, "queued"):  # somebody else may have read what was later
            return
        if state == "running":
            row.become(state)
            return
        run = self._runs[row.attempt_id]
        steps = await self.service.store.read(steps_of, run.id, row.attempt_id)
        if row.is_over:
            return  # somebody else has read it meanwhile
        if "running" in steps and row.state == "queued":
            row.become("running")
        if record.log_size is not None:
            row.finish = finish_of(record, output)
        row.become(state)
        if state in _BAD:
            await self._abandon(run)

    async def _abandon(self, run: RunRecord) -> None:
        """Have no other try: scenarios are about one."""
        with suppress(Exception):  # it is over
            await self.service.store.write(cancel_run, run.dag_id, run.run_id, actor="kit")

    # The door, for executors whose supervisors go through it

    async def start(self, message: Start, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        return await self._through("start", partial(self.service.door.start, message, placed_on, key_hash=key_hash))

    async def finish(self, message: Finish, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        return await self._through("finish", partial(self.service.door.finish, message, placed_on, key_hash=key_hash))

    async def _through(self, kind: str, ask: Callable[[], Awaitable[list[Message]]]) -> list[Message]:
        if self.is_down:
            raise Unavailable("the metastore is away")
        self.heard[kind] += 1
        answers = await ask()
        if self.lose_answers[kind] > 0:
            self.lose_answers[kind] -= 1
            raise Unavailable("the answer was lost")
        return answers
