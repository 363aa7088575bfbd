"""DAGs: put, list, get, patch, delete; their versions."""

import asyncio
from functools import cache
from typing import Annotated, Any, Final, Literal

from fastapi import Path, Query, Request
from starlette.responses import Response

from api.auth import Scope
from api.dependencies import INTEGER, AnId, Asking, DagId, Service
from api.etags import ChangeConditions, IfNoneMatch, PutConditions, etag, is_known
from api.idempotency import Change
from api.pagination import Paged
from api.responses import answer, dumps
from api.routing import Router, parse
from api.schemas import dags as schemas
from dag import document, spec
from dag.errors import NotFound
from dag.fields import Label
from metastore.commands import dags as commands
from metastore.commands.once import Answer
from metastore.queries import dags as queries
from metastore.records import DagRecord, DagVersionRecord
from metastore.store import Tx

router = Router(prefix="/api/v1", tags=["DAGs"])

_YAML: Final = ("application/yaml", "text/yaml", "application/x-yaml")
#: Longer documents are checked beside the event loop.
_LONG: Final = 8 * 1024
_DOCUMENT_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "The DAG document, as JSON or YAML.",
    "content": {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/DagDocument"},
            "example": schemas.EXAMPLE_DOCUMENT,
        },
        "application/yaml": {
            "schema": {"$ref": "#/components/schemas/DagDocument"},
            "example": schemas.EXAMPLE_DOCUMENT,
        },
    },
}
_ETAG: Final = {"ETag": "The DAG's entity tag, for `If-Match` and `If-None-Match`."}

VersionNumber = Annotated[int, Path(ge=1, le=INTEGER, description="The number of the version.")]


@router.call(
    "PUT",
    "/dags/{dag_id}",
    needs=Scope.DEFINE,
    gives=(200, schemas.DagPut),
    also={201: "The DAG is new."},
    summary="Put a DAG",
    fails=(404, 412),
    example=schemas.EXAMPLE | {"created": False, "changed": True},
    headers=_ETAG,
    body=_DOCUMENT_BODY,
    media=("application/json", *_YAML),
)
async def put_dag(
    request: Request, dag_id: DagId, change: Change, service: Service, conditions: PutConditions
) -> Response:
    """Create the DAG, or give it a new version.

    The body is the whole DAG document. A document that is the same as the current one changes nothing (`changed:
    false`), so a PUT can be repeated. A bad document is refused with everything that is wrong with it, each with its
    place, its rule and its way out. Runs keep the version they were triggered with.
    """
    raw = await request.body()
    media = request.headers["content-type"].partition(";")[0].strip().lower()
    kind: Literal["json", "yaml"] = "yaml" if media in _YAML else "json"
    executors = service.settings.executors
    if len(raw) > _LONG:
        loaded = await asyncio.to_thread(_load, raw, kind, dag_id, executors)
    else:
        loaded = _load(raw, kind, dag_id, executors)

    def effect(tx: Tx) -> Answer:
        revision = conditions.check(queries.get(tx.conn, dag_id))
        put = commands.put_dag(
            tx,
            spec=loaded[0],
            document=loaded[1],
            content_hash=loaded[2],
            actor=change.caller.actor,
            if_revision=revision,
            must_not_exist=conditions.creates_only,
        )
        body = schemas.render(put.record) | {"created": put.created, "changed": put.changed}
        headers = {"ETag": etag(put.record), "Location": f"/api/v1/dags/{dag_id}"}
        return Answer(201 if put.created else 200, headers, dumps(body))

    outcome = await change.perform(effect)
    service.parameters.forget(dag_id)
    return outcome.respond()


def _load(
    raw: bytes, media: Literal["json", "yaml"], dag_id: str, executors: tuple[str, ...]
) -> tuple[spec.DagSpec, dict[str, Any], str]:
    read = parse(raw, media)
    return spec.load(read, dag_id=dag_id, executors=executors), read, document.content_hash(read)


@router.call(
    "GET",
    "/dags",
    needs=Scope.READ,
    gives=(200, schemas.DagPage),
    summary="List DAGs",
    fails=(422,),
    example={"items": [schemas.EXAMPLE], "next_cursor": None},
)
async def list_dags(
    *,
    service: Service,
    caller: Asking,
    page: Paged,
    paused: Annotated[bool | None, Query(description="Only paused DAGs (true), or only those that are not.")] = None,
    tag: Annotated[
        list[Label] | None, Query(description="Only DAGs with this tag; given several times, with all.")
    ] = None,
    id_contains: Annotated[
        AnId | None, Query(description="Only DAGs whose id has this in it; upper and lower case are the same.")
    ] = None,
    id_prefix: Annotated[AnId | None, Query(description="Only DAGs whose id begins with this.")] = None,
) -> Response:
    """List the DAGs that your key covers, by id. The documents are left out; a DAG on its own has it."""
    records = await service.store.read(
        queries.page,
        limit=page.fetch,
        after=None if page.position is None else page.position[0],
        paused=paused,
        tags=tag or (),
        id_contains=id_contains,
        id_prefix=id_prefix,
        dag_prefix=caller.dag_prefix,
    )
    return page.answer(records, schemas.render, lambda record: [record.dag_id])


@router.call(
    "GET",
    "/dags/{dag_id}",
    needs=Scope.READ,
    gives=(200, schemas.DagWithDocument),
    also={304: "It is still what the ETag in `If-None-Match` stands for."},
    summary="Get a DAG",
    fails=(404, 422),
    example=schemas.EXAMPLE | {"document": schemas.EXAMPLE_DOCUMENT},
    headers=_ETAG,
)
async def get_dag(dag_id: DagId, service: Service, if_none_match: IfNoneMatch = None) -> Response:
    """Get a DAG with the document of its current version.

    Change the document and PUT it with the ETag as `If-Match`: nobody's change in between gets lost.
    """
    record, version = await service.store.read(_current, dag_id)
    headers = {"ETag": etag(record), "Cache-Control": "private, no-cache"}
    if is_known(headers["ETag"], if_none_match):
        return Response(status_code=304, headers=headers)
    return answer(schemas.render(record) | {"document": version.document}, headers=headers)


@router.call(
    "PATCH",
    "/dags/{dag_id}",
    needs=Scope.DEFINE,
    gives=(200, schemas.Dag),
    summary="Pause, unpause or tag a DAG",
    fails=(404, 412),
    example=schemas.EXAMPLE | {"paused": True},
    headers=_ETAG,
)
async def patch_dag(dag_id: DagId, body: schemas.DagPatch, change: Change, conditions: ChangeConditions) -> Response:
    """Change what is not in the document. A paused DAG accepts runs and starts none; what runs goes on."""

    def effect(tx: Tx) -> Answer:
        revision = conditions.check(_there(tx.conn, dag_id))
        record = commands.patch_dag(
            tx, dag_id, paused=body.paused, tags=body.tags, if_revision=revision, actor=change.caller.actor
        )
        return Answer(200, {"ETag": etag(record)}, dumps(schemas.render(record)))

    return (await change.perform(effect)).respond()


@router.call(
    "DELETE",
    "/dags/{dag_id}",
    needs=Scope.DEFINE,
    gives=(204, None),
    summary="Delete a DAG",
    fails=(404, 409, 412, 422),
)
async def delete_dag(dag_id: DagId, change: Change, service: Service, conditions: ChangeConditions) -> Response:
    """Delete the DAG, its versions, its runs and their history. Refused while one of its runs is active."""

    def effect(tx: Tx) -> Answer:
        revision = conditions.check(_there(tx.conn, dag_id))
        commands.delete_dag(tx, dag_id, actor=change.caller.actor, if_revision=revision)
        return Answer(204, {}, "")

    outcome = await change.perform(effect)
    service.parameters.forget(dag_id)
    return outcome.respond()


@router.call(
    "GET",
    "/dags/{dag_id}/versions",
    needs=Scope.READ,
    gives=(200, schemas.DagVersionPage),
    summary="List the versions of a DAG",
    fails=(404, 422),
    example={"items": [schemas.EXAMPLE_VERSION], "next_cursor": None},
)
async def list_versions(dag_id: DagId, service: Service, page: Paged) -> Response:
    """List the versions of a DAG, newest first, without their documents."""
    before = None if page.position is None else page.position[0]
    records = await service.store.read(_versions, dag_id, page.fetch, before)
    return page.answer(records, schemas.render_version, lambda record: [record.version])


@router.call(
    "GET",
    "/dags/{dag_id}/versions/{version}",
    needs=Scope.READ,
    gives=(200, schemas.DagVersionWithDocument),
    summary="Get a version of a DAG",
    fails=(404, 422),
    example=schemas.EXAMPLE_VERSION | {"document": schemas.EXAMPLE_DOCUMENT},
)
async def get_version(dag_id: DagId, version: VersionNumber, service: Service) -> Response:
    """Get one version with its document. Versions never change."""
    record = await service.store.read(queries.document, dag_id, version)
    if record is None:
        raise NotFound("DAG version", f"{dag_id}/{version}")
    return answer(schemas.render_version(record) | {"document": record.document})


@router.call(
    "GET",
    "/schema/dag",
    needs=Scope.READ,
    gives=(200, "application/schema+json"),
    summary="Get the JSON Schema of the DAG document",
)
async def get_dag_schema() -> Response:
    """Get the published JSON Schema (2020-12) of the DAG document: for editors, builders and checks before a PUT."""
    return Response(_published(), media_type="application/schema+json")


@cache
def _published() -> str:
    return dumps(spec.json_schema())


def _there(conn: Any, dag_id: str) -> DagRecord:
    record = queries.get(conn, dag_id)
    if record is None:
        raise NotFound("DAG", dag_id)
    return record


def _current(conn: Any, dag_id: str) -> tuple[DagRecord, DagVersionRecord]:
    record = _there(conn, dag_id)
    version = queries.document(conn, dag_id, record.version)
    if version is None:
        raise NotFound("DAG version", f"{dag_id}/{record.version}")
    return record, version


def _versions(conn: Any, dag_id: str, limit: int, before: int | None) -> Any:
    _there(conn, dag_id)
    return queries.versions(conn, dag_id, limit=limit, before=before)
