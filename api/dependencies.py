"""The words that routers are written in: what a call gets of the service, of its caller and of its path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from fastapi import Depends, Path, Query, Request
from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from api.auth import Caller
from api.routing import authenticate
from dag.ids import OTHER_ID_PATTERN, TASK_ID_PATTERN, is_id, is_task_id

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from api.attempts import Attempts
    from api.auth import Authenticator
    from api.heartbeats import Heartbeats
    from api.logwriter import LogWriter
    from api.metrics import Meters
    from api.parameters import ParameterSchemas
    from api.settings import ApiSettings
    from api.stream import Streams
    from dag.world import Clock, Entropy
    from executors.base import Door
    from metastore.store import Store

#: What fits into an integer column.
INTEGER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the front door gives to the API, and what the API keeps itself."""

    store: Store
    clock: Clock
    entropy: Entropy
    settings: ApiSettings
    registry: CollectorRegistry
    authenticator: Authenticator
    streams: Streams
    parameters: ParameterSchemas
    meters: Meters
    #: What workers' starts and ends go through; None: this API takes no workers.
    door: Door | None
    heartbeats: Heartbeats
    attempts: Attempts
    logs: LogWriter


async def _services(request: Request) -> Services:
    return request.app.state.services  # type: ignore[no-any-return]  # the state is a bag


# Dependencies here are leaves: FastAPI solves what a dependency depends on once for every path that leads to it.
Service = Annotated[Services, Depends(_services)]
Asking = Annotated[Caller, Depends(authenticate)]


def _an_id(text: str) -> str:
    if not is_id(text):
        raise PydanticCustomError(
            "invalid_id", "An id has 1 to 250 characters of A-Z a-z 0-9 _ . ~ : + - and is not '.' or '..'"
        )
    return text


def _a_task_id(text: str) -> str:
    if not is_task_id(text):
        raise PydanticCustomError(
            "invalid_id", "A task id begins with a letter or _, followed by up to 249 of A-Z a-z 0-9 _ -"
        )
    return text


AnId = Annotated[
    str, AfterValidator(_an_id), WithJsonSchema({"type": "string", "pattern": OTHER_ID_PATTERN, "maxLength": 250})
]
ATaskId = Annotated[
    str, AfterValidator(_a_task_id), WithJsonSchema({"type": "string", "pattern": TASK_ID_PATTERN, "maxLength": 250})
]


async def _dag_id(request: Request, dag_id: Annotated[AnId, Path(description="The DAG's id.")]) -> str:
    (await authenticate(request)).sees(dag_id)
    return dag_id


#: The DAG of the path; one that the caller's key does not cover is not there.
DagId = Annotated[str, Depends(_dag_id)]
RunId = Annotated[AnId, Path(description="The run's id, unique within its DAG.")]
TaskId = Annotated[ATaskId, Path(description="The task's id.")]
MapIndex = Annotated[
    int, Query(ge=-1, le=INTEGER, description="Which instance of a mapped task; -1 for a task that is not mapped.")
]
