"""A small language for the life of runs: what the API, the scheduler and a supervisor do, told to the commands."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from dag.document import content_hash
from dag.outcomes import Ended
from dag.spec import load
from metastore.commands.admission import Admitted, Outlet, admit_ready
from metastore.commands.advance import advance_run
from metastore.commands.agents import register_agent
from metastore.commands.attempts import End, EndNoted, NotStarted, Started, end_attempt, start_attempt
from metastore.commands.dags import put_dag
from metastore.commands.materialise import materialise, start_run
from metastore.commands.runs import NewRun, create_run
from metastore.commands.stopping import cancel_run
from metastore.models.attempts import attempts
from metastore.models.limits import limits
from metastore.models.runs import task_instances
from metastore.queries import events as event_queries
from metastore.queries import runs as run_queries
from metastore.queries import tasks as task_queries
from metastore.queries import work
from tests.metastore.history import judged

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from metastore.records import EventRecord, RunRecord
    from metastore.store import Store
    from tests.world import FakeClock

AGENT = "agent-1"
BOOT = "boot-1"


class Flow:
    """One scheduler with one local executor, step by step."""

    def __init__(self, store: Store, clock: FakeClock, *, agent: str = AGENT, boot: str = BOOT) -> None:
        self.store = store
        self.clock = clock
        self.agent = agent
        self.boot = boot
        self.outlet = Outlet("local", agent)
        self._numbers = itertools.count(1)

    async def slots(self, slots: int | None = 4) -> None:
        executors = [{"name": "local", "slots": slots, "placed": True, "status": "ok", "detail": ""}]
        await self.store.write(register_agent, self.agent, host="here", executors=executors, lease=None)

    async def put(self, tasks: dict[str, Any], *, dag_id: str = "d", **fields: Any) -> None:
        document = {"tasks": {name: {"command": ["true"]} | task for name, task in tasks.items()}} | fields
        for task in document["tasks"].values():
            if "empty" in task or "python" in task:
                del task["command"]
        spec = load(document, dag_id=dag_id)
        digest = content_hash(document)
        await self.store.write(put_dag, spec=spec, document=document, content_hash=digest, actor="key:test")

    async def create(self, *, dag_id: str = "d", params: dict[str, Any] | None = None, **more: Any) -> RunRecord:
        number = next(self._numbers)
        new = NewRun(
            dag_id=dag_id,
            run_id=more.pop("run_id", f"r{number}"),
            request_id=more.pop("request_id", f"q{number}"),
            params=params or {},
            logical_date=self.clock.now(),
            run_after=more.pop("run_after", self.clock.now()),
            actor="key:test",
            **more,
        )
        return (await self.store.write(create_run, new)).run

    async def begin(self, run: RunRecord) -> list[Admitted]:
        return await self.store.write(start_run, run.id, "local", [self.outlet])

    async def trigger(self, **more: Any) -> tuple[RunRecord, list[Admitted]]:
        run = await self.create(**more)
        return run, await self.begin(run)

    async def go_on(self, run: RunRecord) -> list[Admitted]:
        return await self.store.write(materialise, run.id, "local", [self.outlet])

    async def admit(self) -> list[Admitted]:
        return await self.store.write(admit_ready, [self.outlet])

    async def advance(self, run: RunRecord) -> bool:
        return await self.store.write(advance_run, run.id)

    async def start(self, attempt_id: str, *, boot: str | None = None) -> Started | NotStarted:
        return await self.store.write(start_attempt, attempt_id, boot or self.boot, self.agent)

    async def end(
        self,
        attempt_id: str,
        ended: Ended = Ended.SUCCESS,
        *,
        boot: str | None = None,
        more: bool = False,
        output: Any = None,
    ) -> EndNoted:
        """End an attempt as its supervisor; *more* asks for started attempts in return."""
        end = End(
            attempt_id=attempt_id,
            ended=ended,
            boot_id=boot or self.boot,
            output=None if output is None else json.dumps(output),
            error=None if ended is Ended.SUCCESS else "it went wrong",
        )
        outlet = Outlet("local", self.agent, self.boot if more else None)
        return await self.store.write(end_attempt, end, [outlet])

    async def conclude(self, attempt_id: str, ended: Ended) -> EndNoted:
        """End an attempt as the scheduler, from a proof."""
        end = End(attempt_id=attempt_id, ended=ended, cause="worker_lost")
        return await self.store.write(end_attempt, end, [self.outlet], actor="scheduler")

    async def cancel(self, run: RunRecord) -> RunRecord:
        return await self.store.write(cancel_run, run.dag_id, run.run_id, actor="key:test")

    async def finish_all(self, admitted: list[Admitted], fail: frozenset[str] = frozenset()) -> list[str]:
        """Start and end everything until nothing is admitted any more; return the task ids in their order."""
        order = []
        queue = list(admitted)
        while queue:
            one = queue.pop(0)
            if one.body is None:
                assert isinstance(await self.start(one.attempt_id), Started)
            task_id = one.labels["task_id"]
            order.append(task_id)
            noted = await self.end(one.attempt_id, Ended.FAILED if task_id in fail else Ended.SUCCESS)
            assert noted.accepted
            queue += noted.admitted
        return order

    async def run(self, run: RunRecord) -> RunRecord:
        found = await self.store.read(run_queries.get, run.dag_id, run.run_id)
        assert found is not None
        return found

    async def states(self, run: RunRecord) -> dict[str, str]:
        rows = await self.store.read(task_queries.page, run.id, limit=20_000)
        return {row.task_id: row.state for row in rows}

    async def events(self, run: RunRecord) -> list[EventRecord]:
        return await self.store.read(event_queries.of_run, run.id, after_seq=0, limit=100_000)

    async def used(self) -> dict[str, int]:
        return await self.store.read(_used)

    async def check(self, *, healed: bool = False) -> None:
        """Assert what must hold at any moment: one active attempt an instance, counts that agree with the rows.

        And that the whole log is a good one, unless something was spoiled on purpose and *healed*.
        """
        wrong = await self.store.read(_wrong_limits)
        assert wrong == []
        twice = await self.store.read(_twice_active)
        assert twice == 0
        if not healed:
            report = await judged(self.store, rest=False)
            assert not report.total, str(report)


def _used(conn: Connection) -> dict[str, int]:
    return {row.key: row.used for row in conn.execute(select(limits.c.key, limits.c.used).order_by(limits.c.key))}


def _wrong_limits(conn: Connection) -> list[str]:
    keys = work.limit_keys(conn, "", 1_000)
    used = _used(conn)
    return [f"{key}: {used[key]} != {work.used(conn, key)}" for key in keys if used[key] != work.used(conn, key)]


def _twice_active(conn: Connection) -> int:
    active = (
        select(attempts.c.instance)
        .where(attempts.c.state.in_(["queued", "running"]))
        .group_by(attempts.c.instance)
        .having(func.count() > 1)
    )
    return len(conn.execute(active).all()) + len(
        conn.execute(
            select(task_instances.c.id)
            .where(task_instances.c.state.in_(["queued", "running", "cancelling"]))
            .where(
                ~select(attempts.c.id)
                .where(attempts.c.instance == task_instances.c.id, attempts.c.state.in_(["queued", "running"]))
                .exists()
            )
        ).all()
    )
