"""The executors that are configured, and how they are."""

from starlette.responses import Response

from api.auth import Scope
from api.dependencies import Asking, Service
from api.responses import answer
from api.routing import Router
from api.schemas import executors as schemas
from metastore.queries import executors as queries

router = Router(prefix="/api/v1", tags=["Executors"])


@router.call(
    "GET",
    "/executors",
    needs=Scope.READ,
    gives=(200, schemas.ExecutorList),
    summary="List executors",
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
)
async def list_executors(service: Service, caller: Asking) -> Response:
    """List the executors with their slots: those that are configured here, the default first, then those of others."""
    records = await service.store.read(queries.every)
    configured = service.settings.executors
    elsewhere = sorted({record.name for record in records} - set(configured))
    items = [
        schemas.render(
            name,
            [record for record in records if record.name == name],
            default=number == 0,
            # What others use of a host is not for a key that may not know of them.
            places=caller.dag_prefix is None,
        )
        for number, name in enumerate((*configured, *elsewhere))
    ]
    return answer({"items": items, "next_cursor": None})
