"""The public calls of the API, as far as the simulation makes them: what the routers do with the commands."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dag.document import content_hash
from dag.spec import load
from metastore.commands.clear import clear_run
from metastore.commands.dags import patch_dag, put_dag
from metastore.commands.once import Answer, once
from metastore.commands.runs import NewRun, create_run
from metastore.commands.stopping import cancel_run
from metastore.queries import runs as queries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.hosts import SimProcess
    from tests.simulation.store import SimStore

Reply = tuple[int, dict[str, Any]]


def within(tx: Any, command: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run *command* in a transaction that is open: the product's own, or its twin in the model."""
    twin = getattr(tx, "twin_of", None)
    return (command if twin is None else twin(command))(tx, *args, **kwargs)


class Requests:
    """What every API process answers clients with."""

    async def answer(
        self, store: SimStore, process: SimProcess, op: str, client: str, key: str | None, body: dict[str, Any]
    ) -> Reply:
        if op == "read":
            run = await store.read(queries.get, body["dag_id"], body["run_id"])
            return (404, {}) if run is None else (200, _shown(run))
        request_id = process.entropy.token(16).hex()
        effect = getattr(self, f"_{op}")(client, request_id, body)
        if key is None and op == "trigger":  # it knows its own run again
            answer = await store.write(effect)
        else:
            whole = hashlib.sha256(json.dumps([op, body], sort_keys=True).encode()).hexdigest()
            answer, _ = await store.write(once, client, key or f" {request_id}", whole, effect)
        return answer.status, json.loads(answer.body)

    def _put(self, client: str, request_id: str, body: dict[str, Any]) -> Callable[[Any], Answer]:
        del request_id
        spec = load(body["document"], dag_id=body["dag_id"])
        digest = content_hash(body["document"])

        def effect(tx: Any) -> Answer:
            put = within(
                tx, put_dag, spec=spec, document=body["document"], content_hash=digest, actor=f"key:{client}"
            )  # fmt: skip
            return _answer(
                201 if put.created else 200, {"version": put.version, "created": put.created, "changed": put.changed}
            )

        return effect

    def _patch(self, client: str, request_id: str, body: dict[str, Any]) -> Callable[[Any], Answer]:
        del request_id

        def effect(tx: Any) -> Answer:
            record = within(tx, patch_dag, body["dag_id"], actor=f"key:{client}", paused=body["paused"])
            return _answer(200, {"paused": record.paused})

        return effect

    def _trigger(self, client: str, request_id: str, body: dict[str, Any]) -> Callable[[Any], Answer]:
        run_id = body.get("run_id") or f"manual__{request_id[-12:]}"

        def effect(tx: Any) -> Answer:
            new = NewRun(
                dag_id=body["dag_id"],
                run_id=run_id,
                request_id=request_id,
                params={},
                logical_date=tx.now,
                run_after=tx.now if body.get("run_after") is None else datetime.fromisoformat(body["run_after"]),
                actor=f"key:{client}",
            )
            return _answer(201, _shown(within(tx, create_run, new).run))

        return effect

    def _cancel(self, client: str, request_id: str, body: dict[str, Any]) -> Callable[[Any], Answer]:
        del request_id

        def effect(tx: Any) -> Answer:
            run = within(tx, cancel_run, body["dag_id"], body["run_id"], actor=f"key:{client}")
            return _answer(202, _shown(run))

        return effect

    def _clear(self, client: str, request_id: str, body: dict[str, Any]) -> Callable[[Any], Answer]:
        del request_id

        def effect(tx: Any) -> Answer:
            tasks = within(
                tx,
                clear_run,
                body["dag_id"],
                body["run_id"],
                task_ids=body.get("task_ids"),
                only_failed=body.get("only_failed", False),
                downstream=body.get("downstream", False),
                dry_run=body.get("dry_run", False),
                actor=f"key:{client}",
            )
            touched = [
                {"task_id": task.task_id, "map_index": task.map_index, "try_number": task.try_number} for task in tasks
            ]
            return _answer(200, {"items": touched})

        return effect


def _answer(status: int, document: dict[str, Any]) -> Answer:
    return Answer(status, {}, json.dumps(document))


def _shown(run: Any) -> dict[str, Any]:
    return {"dag_id": run.dag_id, "run_id": run.run_id, "state": run.state, "version": run.version}
