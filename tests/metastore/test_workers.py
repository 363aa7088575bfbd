"""Workers on other hosts: what their registration, heartbeats, silence and return do to queues and attempts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from dag.errors import BadCredential, Forbidden, Gone, NotFound, Unavailable
from dag.outcomes import Ended
from dag.tickets import holds, sign
from metastore.commands import workers
from metastore.commands.admission import Admitted, Outlet, admit_ready
from metastore.commands.agents import beat, expired_agents, forget_lease, register_agent, release_agent
from metastore.commands.attempts import End, EndNoted, NotStarted, Started, end_attempt, start_attempt
from metastore.commands.keys import create_key, revoke_key
from metastore.commands.leases import shorten
from metastore.commands.lone import beat_attempt, lone
from metastore.commands.materialise import start_run
from metastore.commands.offers import defer_attempt, take_up
from metastore.commands.staging import read_input, stage_output
from metastore.commands.workers import (
    Registration,
    ask_to_drain,
    beat_worker,
    credits_of,
    forget_workers,
    leave_worker,
    mark_serving,
    register_worker,
    signing_key,
)
from metastore.models.agents import agents
from metastore.models.attempts import attempts
from metastore.models.limits import limits
from metastore.models.service import presence
from metastore.queries import offers, work
from metastore.queries import tasks as task_queries
from metastore.queries import workers as queries
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from metastore.records import RunRecord
    from metastore.store import Store, Tx
    from tests.world import FakeClock

LEASE = timedelta(seconds=90)
OUTLET = Outlet("dramatiq", None, by_queue=True)
W1, W2 = "1" * 32, "2" * 32
KEY = "key-hash"


class Fleet(Flow):
    """A scheduler whose tasks go to queues, and workers that serve them."""

    lease = LEASE

    async def register(
        self,
        worker: str = W1,
        *,
        boot: str = "b1",
        slots: int = 2,
        queues: tuple[str, ...] = ("default",),
        held: tuple[str, ...] = (),
        executor: str = "dramatiq",
        key: str | None = None,
        number: int | None = None,
    ) -> list[str]:
        registration = Registration(
            worker_id=worker,
            boot_id=boot,
            boot_number=number,
            token_hash=f"token of {worker}",
            key_id=key,
            name="w",
            host="h",
            pid=1,
            version="0",
            executor=executor,
            queues=queues,
            slots=slots,
            held=held,
        )
        return await self.store.write(register_worker, registration, self.lease)

    async def beat(self, worker: str = W1, *, boot: str = "b1", draining: bool = False) -> bool:
        token = f"token of {worker}"
        return await self.store.write(
            beat_worker, worker, token_hash=token, boot_id=boot, lease=self.lease, draining=draining
        )

    async def go(self, tasks: dict[str, Any], **fields: Any) -> tuple[RunRecord, list[Admitted]]:
        await self.put({name: {"executor": "dramatiq"} | task for name, task in tasks.items()}, **fields)
        run = await self.create()
        return run, await self.store.write(start_run, run.id, "local", [OUTLET])

    async def take(self, attempt_id: str, worker: str | None = W1, *, boot: str = "b1") -> Started | NotStarted:
        lease = LEASE if worker is None else None
        return await self.store.write(start_attempt, attempt_id, boot, worker, key_hash=KEY, lease=lease)

    async def done(
        self, attempt_id: str, ended: Ended = Ended.SUCCESS, *, boot: str = "b1", key: str = KEY
    ) -> EndNoted:
        end = End(attempt_id=attempt_id, ended=ended, boot_id=boot, key_hash=key)
        return await self.store.write(end_attempt, end, [OUTLET])

    async def output(self, run: RunRecord, task_id: str) -> str | None:
        task = await self.store.read(task_queries.get, run.id, task_id)
        assert task is not None
        return await self.store.read(task_queries.output, task.id)

    async def offer(self) -> list[str]:
        return [one.labels["task_id"] for one in await self.store.write(admit_ready, [OUTLET])]

    async def capacity(self, queue: str = "default") -> int | None:
        def ask(conn: Connection) -> int | None:
            key = f"slots:dramatiq/{queue}"
            found: int | None = conn.execute(select(limits.c.capacity).where(limits.c.key == key)).scalar()
            return found

        return await self.store.read(ask)

    async def expire(self, agent: str, by: timedelta = timedelta(hours=1)) -> None:
        """Let the lease of an agent have run out *by* ago, with an API that was there all the time."""

        def do(tx: Tx) -> None:
            mark_serving(tx, timedelta(days=1))
            tx.conn.execute(update(presence).values(since=tx.now - timedelta(days=1), seen_at=tx.now))
            tx.conn.execute(update(agents).where(agents.c.agent_id == agent).values(lease_until=tx.now - by))

        await self.store.write(do)


@pytest.fixture
async def fleet(store: Store, clock: FakeClock) -> Fleet:
    return Fleet(store, clock)


def test_a_queue_is_offered_a_little_more_than_its_workers_have_and_nothing_without_them() -> None:
    assert [credits_of(slots) for slots in ([], [1], [4, 4], [10], [100, 50])] == [0, 2, 9, 11, 165]


def test_a_ticket_is_of_one_attempt_and_one_key() -> None:
    ticket = sign(b"k" * 32, "a")
    assert holds(b"k" * 32, "a", ticket)
    assert not holds(b"k" * 32, "b", ticket)
    assert not holds(b"l" * 32, "a", ticket)
    assert not holds(b"k" * 32, "a", ticket[:-1])
    assert not holds(b"k" * 32, "a", "\udcff é")


async def test_the_key_of_tickets_is_made_once(fleet: Fleet) -> None:
    keys = await asyncio.gather(*(fleet.store.write(signing_key) for _ in range(4)))
    assert len(set(keys)) == 1
    assert len(keys[0]) == 32


async def test_nothing_is_offered_to_a_queue_that_nobody_serves(fleet: Fleet) -> None:
    run, admitted = await fleet.go({"a": {}, "b": {"queue": "gpu"}})
    assert admitted == []
    await fleet.register()
    assert await fleet.store.read(offers.executors_with_offers, ["dramatiq"]) == ["dramatiq"]
    assert await fleet.offer() == ["a"]
    assert await fleet.store.read(offers.executors_with_offers, ["dramatiq"]) == []
    assert await fleet.states(run) == {"a": "queued", "b": "scheduled"}
    await fleet.check()


async def test_the_credits_of_a_queue_are_never_exceeded_and_the_best_go_first(fleet: Fleet) -> None:
    await fleet.register(slots=2)
    tasks = {f"t{n}": {"priority_weight": n} for n in range(6)}
    _, admitted = await fleet.go(tasks)
    assert [one.labels["task_id"] for one in admitted] == ["t5", "t4", "t3"]
    assert {one.queue for one in admitted} == {"default"}
    assert [one.priority for one in admitted] == [5, 4, 3]
    assert await fleet.offer() == []
    assert isinstance(await fleet.take(admitted[0].attempt_id), Started)
    noted = await fleet.done(admitted[0].attempt_id)
    assert [one.labels["task_id"] for one in noted.admitted] == ["t2"]
    await fleet.check()


async def test_queues_do_not_hold_each_other_up(fleet: Fleet) -> None:
    await fleet.register(W1, slots=1, queues=("slow",))
    await fleet.register(W2, slots=1, queues=("fast", "slow"))
    assert await fleet.capacity("slow") == 3
    assert await fleet.capacity("fast") == 2
    tasks = {f"s{n}": {"queue": "slow", "priority_weight": 9} for n in range(9)} | {"f": {"queue": "fast"}}
    _, admitted = await fleet.go(tasks)
    assert sorted(one.labels["task_id"] for one in admitted) == ["f", "s0", "s1", "s2"]


async def test_local_tasks_beside_them_are_admitted_whatever_their_queue(fleet: Fleet) -> None:
    await fleet.slots(4)
    await fleet.put({"here": {"queue": "anything"}, "there": {"executor": "dramatiq"}})
    run = await fleet.create()
    admitted = await fleet.store.write(start_run, run.id, "local", [OUTLET, fleet.outlet])
    assert [one.labels["task_id"] for one in admitted] == ["here"]
    await fleet.check()


async def test_an_attempt_is_started_by_one_worker_which_is_registered_and_serves_its_queue(fleet: Fleet) -> None:
    await fleet.register(W1)
    await fleet.register(W2, queues=("other",))
    _, [a] = await fleet.go({"a": {}})
    with pytest.raises(NotFound):
        await fleet.take(a.attempt_id, "3" * 32)
    with pytest.raises(Forbidden):
        await fleet.take(a.attempt_id, W2)
    with pytest.raises(Gone, match="since"):
        await fleet.take(a.attempt_id, W1, boot="b2")
    assert isinstance(await fleet.take(a.attempt_id), Started)
    assert isinstance(await fleet.take(a.attempt_id), Started)
    await fleet.register(W2)
    assert await fleet.take(a.attempt_id, W2) == NotStarted("conflict", "another supervisor has it")
    with pytest.raises(BadCredential):
        await fleet.store.write(start_attempt, a.attempt_id, "b1", W1, key_hash="another")


async def test_a_worker_whose_lease_is_over_starts_nothing_before_it_is_heard_of(fleet: Fleet) -> None:
    await fleet.register()
    _, [a] = await fleet.go({"a": {}})
    await fleet.expire(W1)
    with pytest.raises(Unavailable):
        await fleet.take(a.attempt_id)
    await fleet.beat()
    assert isinstance(await fleet.take(a.attempt_id), Started)


async def test_an_end_needs_the_key_and_is_accepted_once_and_answered_always(fleet: Fleet) -> None:
    await fleet.register()
    run, [a] = await fleet.go({"a": {}})
    await fleet.take(a.attempt_id)
    with pytest.raises(BadCredential):
        await fleet.done(a.attempt_id, key="another")
    assert (await fleet.done(a.attempt_id)).accepted
    before = len(await fleet.events(run))
    assert (await fleet.done(a.attempt_id)).accepted
    assert not (await fleet.done(a.attempt_id, Ended.FAILED)).accepted
    assert not (await fleet.done(a.attempt_id, boot="b2")).accepted
    assert len(await fleet.events(run)) == before
    assert set((await fleet.used()).values()) == {0}


@pytest.mark.parametrize("holder", ["worker", "agent", "lone"])
async def test_a_renewal_promises_no_less_than_the_one_before_it(fleet: Fleet, holder: str) -> None:
    """Its answer may be lost, and the holder goes on until the end of what it was promised before."""
    executors = [{"name": "local", "slots": 3, "placed": True, "status": "ok", "detail": ""}]
    if holder == "lone":
        await fleet.register()
        _, [a] = await fleet.go({"a": {}})
        await fleet.store.write(start_attempt, a.attempt_id, "b1", None, key_hash="k", lease=LEASE)
        place = lone(a.attempt_id)

    async def renew(lease: timedelta, *, anew: bool = False) -> timedelta:
        fleet.lease = lease
        match holder:
            case "worker" if anew:
                await fleet.register()
            case "worker":
                await fleet.beat()
            case "agent" if anew:
                await fleet.store.write(register_agent, "agent-1", host="h", executors=executors, lease=lease)
            case "agent":
                assert await fleet.store.write(beat, "agent-1", "h", lease)
            case _:
                await fleet.store.write(beat_attempt, a.attempt_id, key_hash="k", boot_id="b1", lease=lease)
        where = {"worker": W1, "agent": "agent-1"}.get(holder) or place
        until = select(agents.c.lease_until).where(agents.c.agent_id == where)
        left: timedelta = await fleet.store.write(lambda tx: tx.conn.execute(until).scalar_one() - tx.now)
        return left

    second = timedelta(seconds=1)
    assert abs(await renew(LEASE, anew=True) - LEASE) < 9 * second
    for anew in (False, True):
        assert abs(await renew(LEASE / 3, anew=anew) - LEASE) < 9 * second
    assert abs(await renew(LEASE * 2) - LEASE * 2) < 9 * second
    # An hour more than that was never promised: the clock was wrong.
    assert await renew(timedelta(hours=1)) > timedelta(minutes=59)
    assert abs(await renew(LEASE) - LEASE) < 9 * second


async def test_a_promise_is_ended_of_those_who_are_known_to_have_heard_of_less(fleet: Fleet) -> None:
    for worker in (W1, W2):
        await fleet.register(worker)

    def leases(conn: Connection) -> list[datetime]:
        return list(conn.execute(select(agents.c.lease_until).order_by(agents.c.agent_id)).scalars())

    before = await fleet.store.read(leases)
    await fleet.store.write(shorten, [W1], LEASE * 2)
    assert await fleet.store.read(leases) == before
    await fleet.store.write(shorten, [W1], LEASE / 3)
    first, second = await fleet.store.read(leases)
    assert second == before[1]
    assert before[0] - first > LEASE / 2


async def test_a_copy_of_a_home_does_not_judge_what_the_first_one_runs(fleet: Fleet) -> None:
    async def register(host: str) -> str | None:
        return await fleet.store.write(register_agent, "agent-1", host=host, executors=[], lease=LEASE)

    assert await register("first") is None
    assert await register("copy") == "first"
    assert not await fleet.store.write(beat, "agent-1", "copy", LEASE)
    assert await fleet.store.write(beat, "agent-1", "first", LEASE)
    await fleet.store.write(release_agent, "agent-1", "copy")
    assert await register("copy") == "first"
    # The same home under another name, a container made anew: after a stop at once, after a crash with the lease.
    await fleet.store.write(release_agent, "agent-1", "first")
    assert await register("second") is None
    assert not await fleet.store.write(beat, "agent-1", "first", LEASE)
    assert await register("first") == "second"
    await fleet.expire("agent-1")
    assert await register("third") is None


@pytest.mark.postgres
async def test_of_two_copies_of_a_home_that_nobody_knows_one_has_it(postgres_store: Store) -> None:
    """Neither sees a row of the other before both have written one."""

    async def register(agent: str, host: str) -> str | None:
        return await postgres_store.write(register_agent, agent, host=host, executors=[], lease=LEASE)

    for n in range(30):
        agent = f"agent-{n}"
        said = await asyncio.gather(register(agent, "first"), register(agent, "copy"))
        assert sorted(said, key=str) in ([None, "first"], [None, "copy"], ["copy", None], ["first", None])
        (winner,) = (name for name, holder in zip(("first", "copy"), said, strict=True) if holder is None)
        assert await postgres_store.write(beat, agent, winner, LEASE)


async def test_a_silent_worker_is_given_up_and_its_slots_are_gone(fleet: Fleet) -> None:
    await fleet.register(slots=1)
    run, [a] = await fleet.go({"a": {}})
    await fleet.take(a.attempt_id)
    end = End(attempt_id=a.attempt_id, ended=Ended.LOST, cause="worker_lost")
    assert await fleet.store.write(expired_agents, LEASE) == []
    assert not (await fleet.store.write(end_attempt, end, expired_agent=W1, lease=LEASE)).accepted
    await fleet.expire(W1)
    assert await fleet.store.write(expired_agents, LEASE) == [W1]
    assert [one.id for one in await fleet.store.read(work.placed, [W1])] == [a.attempt_id]
    assert (await fleet.store.write(end_attempt, end, expired_agent=W1, lease=LEASE)).accepted
    await fleet.store.write(forget_lease, W1, LEASE)
    assert await fleet.capacity() == 0
    assert await fleet.states(run) == {"a": "scheduled"}
    assert not (await fleet.done(a.attempt_id)).accepted
    await fleet.beat()
    assert await fleet.capacity() == 2
    assert await fleet.offer() == ["a"]
    await fleet.check()


async def test_what_was_on_its_way_to_a_worker_that_was_given_up_is_given_up_too(fleet: Fleet) -> None:
    """Its lease is forgotten by then: nobody would look there again, and the run would wait for ever."""
    await fleet.register()
    _, [a] = await fleet.go({"a": {}})
    await fleet.take(a.attempt_id)
    await fleet.expire(W1)
    await fleet.store.write(forget_lease, W1, LEASE)
    assert await fleet.store.write(expired_agents, LEASE) == [W1]
    end = End(attempt_id=a.attempt_id, ended=Ended.LOST, cause="worker_lost")
    assert (await fleet.store.write(end_attempt, end, expired_agent=W1, lease=LEASE)).accepted
    assert await fleet.store.write(expired_agents, LEASE) == []


async def test_what_was_on_its_way_to_an_agent_that_was_given_up_is_given_up_too(fleet: Fleet) -> None:
    executors = [{"name": "local", "slots": 3, "placed": True, "status": "ok", "detail": ""}]
    await fleet.store.write(register_agent, "agent-1", host="h", executors=executors, lease=LEASE)
    await fleet.expire("agent-1")
    assert await fleet.store.write(expired_agents, LEASE) == ["agent-1"]
    await fleet.store.write(forget_lease, "agent-1", LEASE)
    assert await fleet.store.write(expired_agents, LEASE) == []
    flow = Flow(fleet.store, fleet.clock)
    await flow.put({"a": {}}, dag_id="late", executor="local")
    run, [one] = await flow.trigger(dag_id="late")
    assert await fleet.store.write(expired_agents, LEASE) == ["agent-1"]
    end = End(attempt_id=one.attempt_id, ended=Ended.NEVER_STARTED, cause="worker_lost")
    assert (await fleet.store.write(end_attempt, end, expired_agent="agent-1", lease=LEASE)).accepted
    assert await fleet.store.write(expired_agents, LEASE) == []
    # On SQLite nobody has a lease, and nobody is given up for having none.
    await flow.slots()
    assert [again.attempt_id for again in await flow.admit()] != [one.attempt_id]
    assert await fleet.store.write(expired_agents, LEASE) == []
    assert (await flow.run(run)).state == "running"


async def test_no_lease_of_a_worker_runs_out_for_time_without_an_api(fleet: Fleet) -> None:
    await fleet.register()
    await fleet.expire(W1)

    def api(since: timedelta, seen: timedelta) -> Any:
        def do(tx: Tx) -> None:
            tx.conn.execute(update(presence).values(since=tx.now - since, seen_at=tx.now - seen))

        return do

    second, day = timedelta(seconds=1), timedelta(days=1)
    await fleet.store.write(api(day, LEASE))
    assert await fleet.store.write(expired_agents, LEASE) == []
    await fleet.store.write(api(LEASE - second, second))
    assert await fleet.store.write(expired_agents, LEASE) == []
    await fleet.store.write(api(LEASE + second, second))
    assert await fleet.store.write(expired_agents, LEASE) == [W1]


async def test_the_amnesty_is_not_for_agents_whom_their_scheduler_renews(fleet: Fleet) -> None:
    await fleet.store.write(register_agent, "agent-1", host="h", executors=[], lease=LEASE)

    def expire(tx: Tx) -> None:
        tx.conn.execute(update(agents).values(lease_until=tx.now - LEASE))

    await fleet.store.write(expire)
    assert await fleet.store.write(expired_agents, LEASE) == ["agent-1"]


async def test_the_api_is_present_again_from_when_it_comes_back(fleet: Fleet) -> None:
    def since(conn: Connection) -> Any:
        return conn.execute(select(presence.c.since)).scalar()

    await fleet.store.write(mark_serving, timedelta(seconds=15))
    first = await fleet.store.read(since)
    await fleet.store.write(mark_serving, timedelta(seconds=15))
    assert await fleet.store.read(since) == first

    def away(tx: Tx) -> None:
        tx.conn.execute(update(presence).values(seen_at=tx.now - timedelta(seconds=16), since=tx.now - LEASE))

    await fleet.store.write(away)
    await fleet.store.write(mark_serving, timedelta(seconds=15))
    assert await fleet.store.read(since) >= first


async def test_a_registration_of_a_dead_process_that_was_held_up_changes_nothing(fleet: Fleet) -> None:
    """Else the living process, and what it runs, would be taken for dead (simulation, seed 1002090)."""
    await fleet.register(boot="b2", number=2)
    run, [a] = await fleet.go({"a": {}})
    await fleet.take(a.attempt_id, boot="b2")
    with pytest.raises(Gone, match="Another process has registered"):
        await fleet.register(boot="b1", number=1)
    await fleet.beat(boot="b2")
    assert (await fleet.done(a.attempt_id, boot="b2")).accepted
    assert await fleet.states(run) == {"a": "success"}
    await fleet.register(boot="b2", number=2)
    await fleet.register(boot="clone", number=2)
    await fleet.register(boot="b3", number=3)
    await fleet.register(boot="uncounted")
    await fleet.register(boot="b1", number=1)
    await fleet.check()


async def test_a_new_process_of_a_worker_proves_the_old_one_dead(fleet: Fleet) -> None:
    await fleet.register(slots=3)
    run, admitted = await fleet.go({"a": {}, "b": {}, "c": {}})
    for one in admitted:
        await fleet.take(one.attempt_id)
    a, b, c = (one.attempt_id for one in admitted)
    lost = await fleet.register(boot="b2", slots=3, held=(b,))
    assert lost == sorted([a, c])
    ends = [End(attempt_id=one, ended=Ended.LOST, cause="worker_lost") for one in lost]
    for end in ends:
        assert (await fleet.store.write(end_attempt, end, earlier_boot_of=(W1, "b2"))).accepted
    noted = await fleet.done(b, boot="b1")  # the old process wrote it down before it died
    assert noted.accepted
    assert await fleet.states(run) == {"a": "queued", "b": "success", "c": "queued"}
    again = noted.admitted[0]
    await fleet.take(again.attempt_id, boot="b2")
    end = End(attempt_id=again.attempt_id, ended=Ended.LOST, cause="worker_lost")
    assert not (await fleet.store.write(end_attempt, end, earlier_boot_of=(W1, "b2"))).accepted
    with pytest.raises(Gone):
        await fleet.beat(boot="b1")
    await fleet.check()


async def test_heartbeats_need_the_token_of_a_known_worker(fleet: Fleet) -> None:
    with pytest.raises(NotFound):
        await fleet.beat()
    await fleet.register()
    with pytest.raises(BadCredential):
        await fleet.store.write(beat_worker, W1, token_hash="x", boot_id="b1", lease=LEASE, draining=False)  # noqa: S106  a hash of none
    await fleet.slots()
    with pytest.raises(Forbidden):
        await fleet.register(fleet.agent)


async def test_a_key_that_is_revoked_takes_its_workers_with_it(fleet: Fleet) -> None:
    for key in ("k1", "k2"):
        await fleet.store.write(
            create_key,
            key_id=key,
            name=key,
            secret_hash=key,
            scopes=["work"],
            dag_prefix=None,
            expires_at=None,
            actor="key:admin",
        )
    await fleet.register(W1, key="k1")
    await fleet.register(W2, key="k2")
    await fleet.store.write(revoke_key, "k1", "key:admin")
    with pytest.raises(BadCredential):
        await fleet.beat(W1)
    await fleet.beat(W2)


async def test_who_drains_takes_nothing_new(fleet: Fleet) -> None:
    await fleet.register(W1, slots=2)
    await fleet.register(W2, slots=3)
    assert await fleet.capacity() == 6
    assert not await fleet.beat(W1, draining=True)
    assert await fleet.capacity() == 4
    await fleet.beat(W1)
    assert await fleet.capacity() == 6
    await fleet.store.write(ask_to_drain, W2)
    assert await fleet.beat(W2)
    await fleet.store.write(leave_worker, W2, token_hash=f"token of {W2}", boot_id="b1")
    assert await fleet.capacity() == 3
    with pytest.raises(NotFound):
        await fleet.store.write(ask_to_drain, "3" * 32)


async def test_a_beat_that_waited_for_whoever_counted_its_worker_out_counts_it_in(fleet: Fleet) -> None:
    """By the time of its own transaction, which began earlier, the lease was not over yet."""
    await fleet.register(W1, slots=2)
    await fleet.expire(W1, by=-timedelta(seconds=1))

    def count_out(tx: Tx) -> None:
        tx.conn.execute(update(limits).where(limits.c.key == "slots:dramatiq/default").values(capacity=0))

    await fleet.store.write(count_out)
    await fleet.beat(W1)
    assert await fleet.capacity() == 3


async def test_workers_that_come_at_once_are_all_counted(fleet: Fleet) -> None:
    await asyncio.gather(*(fleet.register(f"{n:032x}", slots=1) for n in range(12)))
    assert await fleet.capacity() == 13


async def test_a_worker_that_moves_to_other_queues_leaves_its_old_ones(fleet: Fleet) -> None:
    await fleet.register(queues=("a", "b"))
    await fleet.register(queues=("b", "c"))
    assert [await fleet.capacity(queue) for queue in "abc"] == [0, 3, 3]
    await fleet.register(queues=("b",), executor="celery")
    assert await fleet.capacity("b") == 0


async def test_a_supervisor_of_one_attempt_has_a_lease_of_its_own(fleet: Fleet) -> None:
    await fleet.register()
    run, [a, b] = await fleet.go({"a": {}, "b": {}})
    assert isinstance(await fleet.take(a.attempt_id, None), Started)
    assert isinstance(await fleet.take(a.attempt_id, None), Started)

    async def beat(key: str = KEY, boot: str = "b1") -> str | None:
        return await fleet.store.write(beat_attempt, a.attempt_id, key_hash=key, boot_id=boot, lease=LEASE)

    assert await beat() is None
    with pytest.raises(BadCredential):
        await beat(key="x")
    with pytest.raises(Gone):
        await beat(boot="b2")
    await fleet.cancel(run)
    assert await beat() == "user"
    [told] = await fleet.store.read(queries.stopping_on, [lone(a.attempt_id)])
    assert (told.attempt_id, told.reason) == (a.attempt_id, "user")
    assert (await fleet.done(a.attempt_id, Ended.CANCELLED)).accepted
    with pytest.raises(Gone):
        await beat()
    assert [w.worker_id for w in await fleet.store.read(queries.workers, fleet.clock.now(), "", 10)] == [W1]
    assert isinstance(await fleet.take(b.attempt_id, None), NotStarted)


async def test_an_output_that_was_staged_comes_with_the_end(fleet: Fleet) -> None:
    await fleet.register()
    run, [a] = await fleet.go({"a": {}, "b": {"depends_on": ["a"]}, "x": {"depends_on": ["b"]}})
    await fleet.take(a.attempt_id)
    with pytest.raises(BadCredential):
        await fleet.store.write(stage_output, a.attempt_id, key_hash="x", value="1")
    await fleet.store.write(stage_output, a.attempt_id, key_hash=KEY, value="1")
    await fleet.store.write(stage_output, a.attempt_id, key_hash=KEY, value='{"n":2}')
    assert await fleet.output(run, "a") is None
    [b] = (await fleet.done(a.attempt_id)).admitted
    await fleet.take(b.attempt_id)
    assert await fleet.store.write(read_input, b.attempt_id, key_hash=KEY, task_id="a") == '{"n":2}'
    for wrong in ("x", "b", "nothing"):
        with pytest.raises(NotFound):
            await fleet.store.write(read_input, b.attempt_id, key_hash=KEY, task_id=wrong)
    with pytest.raises(BadCredential):
        await fleet.store.write(read_input, b.attempt_id, key_hash="x", task_id="a")
    with pytest.raises(Gone):
        await fleet.store.write(stage_output, a.attempt_id, key_hash=KEY, value="3")
    await fleet.done(b.attempt_id)
    with pytest.raises(Gone):
        await fleet.store.write(read_input, b.attempt_id, key_hash=KEY, task_id="a")


async def test_an_output_of_an_attempt_that_failed_is_seen_by_nobody(fleet: Fleet) -> None:
    await fleet.register()
    run, [a] = await fleet.go({"a": {"retries": 1, "retry_delay": "PT0S"}})
    await fleet.take(a.attempt_id)
    await fleet.store.write(stage_output, a.attempt_id, key_hash=KEY, value="1")
    await fleet.done(a.attempt_id, Ended.FAILED)
    await fleet.advance(run)
    [again] = await fleet.store.write(admit_ready, [OUTLET])
    await fleet.take(again.attempt_id)
    await fleet.done(again.attempt_id)
    assert await fleet.output(run, "a") is None


async def test_an_offer_that_should_have_been_taken_is_looked_at_by_one_scheduler(fleet: Fleet) -> None:
    await fleet.register()
    _, [a] = await fleet.go({"a": {}})
    names = ["dramatiq"]

    async def due() -> list[str]:
        def ask(tx: Tx) -> list[str]:
            return [one.id for one in offers.offered(tx.conn, tx.now, names)]

        return await fleet.store.write(ask)

    def late(tx: Tx) -> None:
        tx.conn.execute(update(attempts).values(launch_after=tx.now))

    assert await due() == []
    assert await fleet.store.read(offers.next_offer, names) is not None
    await fleet.store.write(late)
    assert await due() == [a.attempt_id]
    look: dict[str, tuple[timedelta, int]] = {a.attempt_id: (timedelta(seconds=30), 1)}
    both = await asyncio.gather(*(fleet.store.write(take_up, look) for _ in range(2)))
    assert sorted(both) == [[], [a.attempt_id]]
    assert await due() == []
    assert await fleet.store.write(defer_attempt, a.attempt_id, "the broker is away", timedelta(seconds=9))
    assert await fleet.store.write(take_up, look) == []
    assert await fleet.store.write(take_up, look, eager=True) == [a.attempt_id]
    await fleet.take(a.attempt_id)
    await fleet.store.write(late)
    assert await due() == []


async def test_idle_slots_are_those_of_live_workers_that_run_nothing(fleet: Fleet) -> None:
    await fleet.register(W1, slots=2, queues=("default", "x"))
    await fleet.register(W2, slots=1)
    _, [a] = await fleet.go({"a": {}})
    await fleet.take(a.attempt_id)

    async def idle() -> dict[str, tuple[int, int]]:
        return await fleet.store.write(lambda tx: offers.idle_slots(tx.conn, tx.now, "dramatiq"))

    assert await idle() == {"default": (2, 2), "x": (1, 1)}
    await fleet.expire(W1)
    assert await idle() == {"default": (1, 1)}


async def test_queues_and_workers_are_described(fleet: Fleet) -> None:
    await fleet.register(W1, slots=1)
    _, [a, _b] = await fleet.go({"a": {}, "b": {}, "c": {"queue": "gpu"}})
    await fleet.take(a.attempt_id)

    def ask(tx: Tx) -> Any:
        return queries.queues(tx.conn, tx.now, ["dramatiq"]), queries.workers(tx.conn, tx.now, "", 10)

    (default, gpu), [worker] = await fleet.store.write(ask)
    assert (default.queue, default.workers, default.slots, default.queued, default.running) == ("default", 1, 1, 1, 1)
    assert (gpu.queue, gpu.workers, gpu.ready, gpu.oldest_ready_at is not None) == ("gpu", 0, 1, True)
    assert (worker.worker_id, worker.state, worker.running, worker.attempts) == (W1, "live", 1, [a.attempt_id])
    await fleet.expire(W1)
    [worker] = (await fleet.store.write(ask))[1]
    assert worker.state == "lost"


async def test_workers_that_are_long_gone_and_hold_nothing_are_forgotten(fleet: Fleet) -> None:
    await fleet.register(W1)
    await fleet.register(W2)
    _, [a] = await fleet.go({"a": {}})
    await fleet.take(a.attempt_id)
    await fleet.expire(W1)
    await fleet.expire(W2)

    def age(tx: Tx) -> None:
        tx.conn.execute(update(agents).values(seen_at=tx.now - timedelta(days=2)))

    assert await fleet.store.write(forget_workers, timedelta(days=1)) == 0
    await fleet.store.write(age)
    assert await fleet.store.write(forget_workers, timedelta(days=1)) == 1
    await fleet.conclude(a.attempt_id, Ended.LOST)
    assert await fleet.store.write(forget_workers, timedelta(days=1)) == 1


async def test_a_cancel_of_what_is_queued_leaves_nothing_to_start(fleet: Fleet) -> None:
    await fleet.register()
    run, [a] = await fleet.go({"a": {}})
    await fleet.cancel(run)
    assert isinstance(await fleet.take(a.attempt_id), NotStarted)
    assert set((await fleet.used()).values()) == {0}


async def test_64_claimers_of_a_queue_never_exceed_its_credits_and_leave_nothing_idle(fleet: Fleet) -> None:
    await fleet.register(slots=2)
    await fleet.go({f"t{n}": {} for n in range(40)})
    for _ in range(3):
        await asyncio.gather(*(fleet.store.write(admit_ready, [OUTLET]) for _ in range(21)))
        await fleet.check()
    await fleet.offer()
    assert (await fleet.used())["slots:dramatiq/default"] == 3


async def test_of_two_first_registrations_at_once_the_later_process_stays(fleet: Fleet) -> None:
    """The older one looked when there was no row yet: what writes it has to look again."""
    row: dict[str, Any] = {"executors": [], "queues": ["default"], "draining": False, "drain_asked": False}
    row |= {"agent_id": W1, "kind": "worker", "host": "h", "executor": "dramatiq", "slots": 1, "name": "w", "pid": 1}
    row |= {"version": "0", "token_hash": "t", "key_id": None}

    def upsert(boot: str, number: int | None) -> Any:
        def do(tx: Tx) -> bool:
            times = {"seen_at": tx.now, "lease_until": tx.now + LEASE, "registered_at": tx.now}
            new = row | times | {"boot_id": boot, "boot_number": number}
            return tx.conn.execute(workers._REGISTER[tx.conn.dialect.name], new).first() is not None

        return do

    assert await fleet.store.write(upsert("b2", 2))
    assert not await fleet.store.write(upsert("b1", 1))
    assert await fleet.store.write(upsert("b2", 2))
    assert await fleet.store.write(upsert("uncounted", None))
    assert await fleet.store.write(upsert("b1", 1))
