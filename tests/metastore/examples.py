"""Small things to put into a metastore."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from dag.spec import load
from metastore.commands.dags import DagPut, put_dag

if TYPE_CHECKING:
    from metastore.store import Store


def a_document(dag_id: str = "d", **more: Any) -> dict[str, Any]:
    return {"dag_id": dag_id, "tasks": {"a": {"command": ["true"]}}, **more}


async def put(store: Store, document: dict[str, Any], **more: Any) -> DagPut:
    return await store.write(
        put_dag,
        spec=load(document),
        document=document,
        content_hash=hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest(),
        actor="key:k",
        **more,
    )
