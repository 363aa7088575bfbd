"""The model as a database server: transactions in an instant, with everything that a network does to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.chance import true_time
from tests.simulation.model import attempts, commands, queries, strays, workers
from tests.simulation.model.rows import RUN_FINAL, Metastore, ModelTx
from tests.simulation.store import Broken, Done, Dump, InDoubt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.chance import SimEntropy
    from tests.simulation.loop import Process, SimLoop
    from tests.simulation.store import Call
    from tests.simulation.weather import Weather

_MODULES: Final = (commands, attempts, workers, queries, strays)
#: Every command and query of the product that the simulated world calls, by its name.
TWINS: Final[dict[str, Callable[..., Any]]] = (
    {
        name: function
        for module in _MODULES
        for name, function in vars(module).items()
        if callable(function) and getattr(function, "__module__", "") == module.__name__
    }
    | {"_snapshot": queries.snapshot, "_look": queries.look}
    | {
        "_renew_workers": queries.renew_workers,
        "_renew_attempts": queries.renew_attempts,
    }
)
_COLUMNS: Final = (
    "kind", "dag_id", "run_id", "run_seq", "task_id", "map_index", "try_number", "attempt_id", "from_state",
    "to_state", "actor", "reason", "data",
)  # fmt: skip


class MemoryDatabase:
    """The server."""

    def __init__(self, loop: SimLoop, weather: Weather) -> None:
        self._loop = loop
        self._weather = weather
        self.data = Metastore()
        self.restarts = 0

    def close(self) -> None:
        """Nothing is left behind."""

    async def transact(self, process: Process, entropy: SimEntropy, command: Call) -> Done:
        tx = ModelTx(self.data, true_time(self._loop), entropy, TWINS)
        tx.passes_over = self._passes_over
        self._break_or("db.error")
        await self._perish(process)
        result = self._call(tx, command)
        await self._perish(process)
        done = Done(result, tx.topics)
        if self._weather.strikes("db.lost_reply"):
            raise InDoubt(done)
        return done

    async def query(self, process: Process, query: Call) -> Any:
        del process
        self._break_or("db.error")
        tx = ModelTx(self.data, true_time(self._loop), None, TWINS)  # type: ignore[arg-type]  # a query draws nothing
        return self._call(tx, query)

    def _call(self, tx: ModelTx, call: Call) -> Any:
        twin = TWINS.get(call.function.__name__)
        if twin is None:  # what is put together for one call, and asks for twins itself
            return call(tx)
        return twin(tx, *call.args, **call.kwargs)

    async def _perish(self, process: Process) -> None:
        """Have a process die right here, now and then: before its COMMIT, or after it and before the answer."""
        if self._weather.strikes("db.crash"):
            process.kill()
            await asyncio.sleep(0)

    def _passes_over(self) -> bool:
        return self._weather.strikes("db.skip_locked")

    def _break_or(self, fault: str) -> None:
        if self._weather.is_down("database"):
            raise Broken("the server ended the connection")
        if self._weather.strikes(fault):
            raise Broken("connection reset")

    def leave(self, process: Process) -> None:
        """Nothing is under way for longer than an instant."""

    def break_all(self) -> None:
        """Restart: transactions take an instant here, and only answers can be on their way."""
        self.restarts += 1

    def is_at_rest(self) -> bool:
        data = self.data
        waiting = [run for run in data.runs.values() if not (run.state == "queued" and run.dag.paused)]
        return (
            all(run.state in RUN_FINAL for run in waiting)
            and not any(limit.used for limit in data.limits.values())
            and not data.active
        )

    def last_event(self) -> int:
        return self.data.events[-1]["id"] if self.data.events else 0

    def dump(self) -> Dump:
        data = self.data
        events = [
            {"id": event["id"], "at": event["at"].isoformat(), **{name: event.get(name) for name in _COLUMNS}}
            for event in data.events
        ]
        runs = [
            {
                "dag_id": run.dag.dag_id,
                "run_id": run.run_id,
                "state": run.state,
                "version": run.version,
                "counts": dict(Counter(one.state for one in run.instances)),
            }
            for run in data.runs.values()
        ]
        instances = [
            {
                "dag_id": run.dag.dag_id,
                "run_id": run.run_id,
                "task_id": one.task.task_id,
                "map_index": -1,
                **{name: getattr(one, name) for name in ("state", "try_number", "failures", "losses")},
            }
            for run in data.runs.values()
            for one in run.instances
        ]
        documents = [
            (dag.dag_id, number, version.document)
            for dag in sorted(data.dags.values(), key=lambda dag: dag.dag_id)
            for number, version in enumerate(dag.versions, 1)
        ]
        used = {key: limit.used for key, limit in sorted(data.limits.items())}
        held = [
            f"{run.dag.dag_id}/{run.run_id}" for run in data.runs.values() if run.state == "queued" and run.dag.paused
        ]
        return Dump(events, data.capacities, documents, runs, instances, used, held)
