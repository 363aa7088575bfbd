"""Two neighbours with the same things each, everybody who might ask for them, and what is nobody's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from api.auth import Scope
from metastore.commands.keys import revoke_key
from tests.api.remote import TASK, Worker, a_worker, admit, hex_id, offer, secret, ticket_of

if TYPE_CHECKING:
    from tests.api.service import Api

#: Scopes that a key for some DAGs only may have.
LIMITED: Final = (Scope.READ, Scope.LOGS, Scope.TRIGGER, Scope.DEFINE)
_TASKS: Final = {"roll": TASK, "report": TASK | {"depends_on": ["roll"]}}


@dataclass(frozen=True)
class Side:
    """What one neighbour has, or what there is not."""

    dag_id: str
    run_id: str
    task_id: str
    #: A DAG without a run, which can be deleted; a run that has ended, which can be cleared.
    idle_dag: str
    ended_run: str
    key_id: str
    worker: Worker
    #: An attempt that runs, and one that waits.
    attempt_id: str
    queued: str
    version: int = 1


class Scene:
    """Who and what there is."""

    def __init__(self, api: Api, number: int) -> None:
        self.api = api
        self.prefix = f"own{number}_"
        self._others = f"other{number}_"
        self._nobody = f"nobody{number}_"
        self.sides: dict[str, Side] = {}
        #: What each of them shows; the empty text is nothing.
        self.credentials: dict[str, str] = {"nobody": ""}

    async def build(self) -> Scene:
        own, other = await self._side(self.prefix), await self._side(self._others)
        nothing = Worker(self.api, own.worker.key, hex_id(), hex_id())
        missing = Side(
            dag_id=own.dag_id,
            run_id="missing",
            task_id="missing",
            idle_dag=f"{self.prefix}missing",
            ended_run="missing",
            key_id="a" * 16,
            worker=nothing,
            attempt_id="00000000-0000-7000-8000-000000000001",
            queued="00000000-0000-7000-8000-000000000002",
            version=7,
        )
        nowhere = Side(
            **missing.__dict__ | {"dag_id": f"{self._nobody}dag", "idle_dag": f"{self._nobody}idle", "run_id": "r"}
        )
        self.sides = {"own": own, "other": other, "missing": missing, "nowhere": nowhere}
        await self._credentials(own, other)
        return self

    async def _side(self, prefix: str) -> Side:
        api, dag_id = self.api, f"{prefix}dag"
        worker = await a_worker(api)
        first = await offer(api, _TASKS, dag_id=dag_id, run_id="r")
        await worker.start(first)
        await worker.log(first, 0, b"The total is 7\n")
        assert (await worker.finish(first, output='{"total": 7}', log_size=15)).json()["accepted"]
        running = await admit(api, "report")
        assert (await worker.start(running)).is_success
        queued = await offer(api, _TASKS, dag_id=dag_id, run_id="q")
        ended = await api.flow.create(dag_id=dag_id, run_id="e")
        await api.flow.begin(ended)
        await api.flow.cancel(ended)
        await api.put(f"{prefix}idle")
        return Side(
            dag_id=dag_id,
            run_id="r",
            task_id="roll",
            idle_dag=f"{prefix}idle",
            ended_run="e",
            key_id=(await api.key("read")).key_id,
            worker=worker,
            attempt_id=running,
            queued=queued,
        )

    async def _credentials(self, own: Side, other: Side) -> None:
        api, known = self.api, self.credentials
        for scope in Scope:
            known[scope] = (await api.key(scope)).text
        for scope in LIMITED:
            known[f"{scope}, limited"] = (await api.key(scope, prefix=self.prefix)).text
        known["all but admin, limited"] = (await api.key(*LIMITED, prefix=self.prefix)).text
        known["work, other queue"] = (await api.key("work", queues=["gpu"])).text
        revoked = await api.key("admin")
        await api.store.write(revoke_key, revoked.key_id, "system")
        known["revoked admin"] = revoked.text
        known["expired admin"] = (await api.key("admin", expires_in=timedelta(seconds=-1))).text
        for name, side in (("own", own), ("other", other)):
            known[f"{name} worker token"] = side.worker.token
            known[f"{name} attempt key"] = side.worker.keys[side.attempt_id]
            known[f"{name} ticket"] = await ticket_of(api, side.queued)
        known["strange token"] = secret()
        known["strange ticket"] = f"rt1.{secret()}"
