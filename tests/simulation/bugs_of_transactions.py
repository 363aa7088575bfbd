"""Bugs in limits, leases and transactions: what the real SQL does with them."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, select

from metastore import each
from metastore.commands import turn, workers
from metastore.models.agents import agents as agents_table
from metastore.models.base import Instant
from metastore.models.limits import limits
from tests.simulation.hosts import here
from tests.simulation.store import Broken, Call, InDoubt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.planting import Planter
    from tests.simulation.sql import SqlDatabase
    from tests.simulation.store import Done, SimStore

# Limits


def limits_are_counted_first_and_claimed_later(planter: Planter) -> None:
    """Room is counted in one transaction, and taken in the next one."""
    counted: dict[str, dict[str, int | None]] = {}

    def count(conn: Any) -> dict[str, int | None]:
        rows = conn.execute(_ROOM).all()
        return {row.key: None if row.capacity is None else row.capacity - row.used for row in rows}

    def beforehand(once: Any) -> Any:
        async def write_once(self: SimStore, call: Call) -> Any:
            counted[self._process.name] = await self._database.query(self._process, Call(count, (), {}))
            return await once(self, call)

        return write_once

    def believed(lock: Any) -> Any:
        def locked(tx: Any, keys: Any, freed: Any, **how: Any) -> Any:
            rooms = lock(tx, keys, freed, **how)
            for key, room in rooms.items():
                if room.free is not None:
                    room.free = counted.get(here().name, {}).get(key, room.free)
            return rooms

        return locked

    planter.wrap("tests.simulation.store:SimStore._write_once", beforehand)
    planter.wrap("metastore.commands.admission:_lock", believed)


_ROOM: Final = select(limits.c.key, limits.c.capacity, limits.c.used)


def a_slot_is_given_back_twice(planter: Planter) -> None:
    """An end frees two slots of its executor."""
    planter.rewrite("metastore.commands.moves:Moves.end", ("turn.freed[row.slots] += 1", "turn.freed[row.slots] += 2"))


def a_slot_is_never_given_back(planter: Planter) -> None:
    """What a cancel ends in a queue keeps its slot."""
    planter.rewrite("metastore.commands.stopping:_end_unstarted", ("turn.freed[row.slots] += 1", "pass"))


def a_lowered_limit_is_ignored(planter: Planter) -> None:
    """A limit that a new version changes stays as it was."""
    planter.rewrite(
        "metastore.commands.dags:_set_limits",
        ("if before is not None and before.capacity == capacity:", "if before is not None:"),
    )


def max_active_runs_is_only_read(planter: Planter) -> None:
    """The limit of runs is looked at by the query, and not by the claim."""
    take = limits.update().where(limits.c.key == bindparam("limit_key")).values(used=limits.c.used + 1)
    planter.replace("metastore.commands.materialise:_TAKE_RUN_SLOT", take)


def a_worker_that_is_gone_keeps_its_credits(planter: Planter) -> None:
    """The queues of an expired worker go on having its slots: more is offered than anybody could take."""
    planter.rewrite(
        "metastore.commands.agents:forget_lease", ("set_capacities(tx, known.executor, known.queues)", "pass")
    )


# Leases


def a_rescue_is_no_compare_and_set(planter: Planter) -> None:
    """Attempts of an agent that was seen to be expired are given up, though it was heard of since."""
    planter.rewrite(
        "metastore.commands.attempts:_end",
        ("if expired is not None and not", "if expired is not None and False and not"),
    )
    planter.rewrite(
        "scheduler.placements:Placements._give_up", ("for one in", "await asyncio.sleep(1)\n    for one in")
    )


def a_lease_is_counted_by_the_hosts_clock(planter: Planter) -> None:
    """The lease of an agent is counted from the wall clock of the host that renews it."""
    planter.rewrite(
        "metastore.commands.leases:renewed",
        ("until = tx.now + lease", "until = host_now() + lease"),
        host_now=_host_now,
    )


def _host_now() -> Any:
    return here().clock.now()


def no_amnesty(planter: Planter) -> None:
    """Leases of workers run out while no API is there to renew them."""
    table = agents_table
    over = table.c.lease_until < bindparam("now", type_=Instant)
    expired = select(table.c.agent_id).where(over)
    still = expired.where(table.c.agent_id == bindparam("agent")).with_for_update()
    planter.replace("metastore.commands.agents:_EXPIRED", expired.order_by(table.c.agent_id).with_for_update())
    planter.replace("metastore.commands.agents:_STILL_EXPIRED", still)


def the_dead_boots_of_a_worker_are_kept(planter: Planter) -> None:
    """A new process of a worker does not give up what the old one ran, and keeps its lease alive."""
    planter.rewrite(
        "metastore.commands.workers:register_worker",
        ("return [row.id for row in found if row.id not in set(registration.held)]", "return []"),
    )


def a_superseded_process_goes_on(planter: Planter) -> None:
    """Every process that a worker ever had renews its lease, and starts attempts."""
    planter.rewrite("metastore.commands.workers:_known", ("if known.boot_id != boot_id:", "if False:"))
    planter.rewrite("metastore.commands.workers:require_server", ("if known.boot_id != boot_id:", "if False:"))
    for name in ("_BEAT", "_LEAVE"):
        statement = getattr(workers, name)._clone()
        statement._where_criteria = (statement.table.c.agent_id == bindparam("worker"),)
        planter.replace(f"metastore.commands.workers:{name}", statement)


def every_process_signs_with_a_key_of_its_own(planter: Planter) -> None:
    """The key of tickets is made anew by whoever asks."""
    planter.rewrite(
        "metastore.commands.workers:signing_key", ("return bytes.fromhex(str(found))", "return tx.entropy.token(32)")
    )


# Transactions


def the_run_is_not_locked(planter: Planter) -> None:
    """A run is read without its lock, what was read is believed, and no row count is looked at."""
    for name in ("_BY_ID", "_BY_NAME", "_BY_ATTEMPTS"):
        statement = getattr(turn, name)._clone()
        statement._for_update_arg = None
        planter.replace(f"metastore.commands.turn:{name}", statement)
    for name in ("_CLOSE", "_CLOSE_MOVED"):
        planter.replace(f"metastore.commands.turn:{name}", _without_seq(getattr(turn, name)))
    planter.replace("metastore.each:expect", lambda *_: None)


def _without_seq(close: Any) -> Any:
    """Return the update of a run that takes it as it is."""
    found = copy(close)
    found.one = close.one._clone()
    found.one._where_criteria = (close.one.table.c.id == bindparam("run"),)
    return found


def row_counts_are_not_looked_at(planter: Planter) -> None:
    """A run is read without its lock; its compare-and-set fails, and nobody looks."""
    for name in ("_BY_ID", "_BY_NAME", "_BY_ATTEMPTS"):
        statement = getattr(turn, name)._clone()
        statement._for_update_arg = None
        planter.replace(f"metastore.commands.turn:{name}", statement)
    planter.replace("metastore.each:expect", lambda *_: None)


def downstreams_are_told_afterwards(planter: Planter) -> None:
    """An end commits first; its downstream neighbours hear of it in a transaction of their own, or never."""
    planter.rewrite(
        "metastore.commands.moves:Moves.write",
        (
            "propagate(turns[run], news)",
            "self._tx.conn.late = [*getattr(self._tx.conn, 'late', ()), (run, news)]",
        ),
    )

    def tell(tx: Any, told: Any) -> None:
        from metastore.commands.advance import propagate  # noqa: PLC0415  # as the product has it now

        for run, news in told:
            opened = turn.open_turn(tx, run)
            if opened is not None and opened.state == "running":
                propagate(opened, news)
                opened.close()

    _afterwards(planter, lambda late: Call(tell, (late,), {}))


def events_are_written_afterwards(planter: Planter) -> None:
    """The event log is written in a transaction of its own, after the one that it is about."""

    def later(tx: Any, rows: Any) -> list[Any]:
        tx.conn.late = [*getattr(tx.conn, "late", ()), *rows]
        return []

    planter.rewrite(
        "metastore.commands.turn:close_turns",
        ("(_ADD_EVENTS, [event for _, event in happened])", "(_ADD_EVENTS, later(tx, [one for _, one in happened]))"),
        later=later,
    )

    def write(tx: Any, rows: Any) -> None:
        each.write(tx, (turn._ADD_EVENTS, rows))

    _afterwards(planter, lambda late: Call(write, (late,), {}))


def _afterwards(planter: Planter, make: Callable[[Any], Call]) -> None:
    """Run what a transaction has left for later in a second one, which may never come."""
    late: list[Any] = []

    def noting(commit: Any) -> Any:
        def noted(self: SqlDatabase, talk: Any) -> None:
            commit(self, talk)
            late[:] = [talk.late] if hasattr(talk, "late") else []

        return noted

    def following(transact: Any) -> Any:
        async def followed(self: SqlDatabase, process: Any, entropy: Any, command: Call) -> Done:
            done: Done = await transact(self, process, entropy, command)
            for one in late[:]:
                late.clear()
                try:
                    await transact(self, process, entropy, make(one))
                except (Broken, InDoubt):
                    continue  # nobody tries it again, or asks
            return done

        return followed

    planter.wrap("tests.simulation.sql:SqlDatabase._commit", noting)
    planter.wrap("tests.simulation.sql:SqlDatabase.transact", following)


def answers_come_before_the_commit(planter: Planter) -> None:
    """A client is answered when its request was looked at; it is written down a moment later."""

    class _SeenError(Exception):
        def __init__(self, result: Any) -> None:
            self.result = result

    def early(once: Any) -> Any:
        async def write_once(self: SimStore, call: Call) -> Any:
            if call.function.__name__ not in ("once", "effect"):
                return await once(self, call)

            def look(tx: Any) -> None:
                raise _SeenError(call(tx))

            try:
                await self._database.transact(self._process, self._entropy, Call(look, (), {}))
            except _SeenError as seen:
                self._process.later(0.05, lambda: self._process.spawn(self._repeatedly(lambda: once(self, call))))
                return seen.result
            raise AssertionError(call)

        return write_once

    planter.wrap("tests.simulation.store:SimStore._write_once", early)


def an_idempotency_key_is_not_looked_at(planter: Planter) -> None:
    """A repeated request has its effect again."""
    planter.rewrite(
        "metastore.commands.once:once",
        (
            "if tx.conn.execute(_CLAIM[tx.conn.dialect.name], claim).first() is not None:",
            "if tx.conn.execute(_CLAIM[tx.conn.dialect.name], claim) is not None:",
        ),
    )


def a_repeated_transaction_makes_a_second_run(planter: Planter) -> None:
    """A run is not known again by its request: who lost an answer is told that the name is taken."""
    planter.rewrite(
        "metastore.commands.runs:create_run",
        ("if there is None or there.request_id != new.request_id:", "if True:"),
    )


ALL: Final[list[Callable[[Planter], None]]] = [
    limits_are_counted_first_and_claimed_later,
    a_slot_is_given_back_twice,
    a_slot_is_never_given_back,
    a_lowered_limit_is_ignored,
    max_active_runs_is_only_read,
    a_worker_that_is_gone_keeps_its_credits,
    a_rescue_is_no_compare_and_set,
    a_lease_is_counted_by_the_hosts_clock,
    no_amnesty,
    the_dead_boots_of_a_worker_are_kept,
    a_superseded_process_goes_on,
    every_process_signs_with_a_key_of_its_own,
    the_run_is_not_locked,
    row_counts_are_not_looked_at,
    downstreams_are_told_afterwards,
    events_are_written_afterwards,
    answers_come_before_the_commit,
    an_idempotency_key_is_not_looked_at,
    a_repeated_transaction_makes_a_second_run,
]
