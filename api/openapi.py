"""The OpenAPI document: made when somebody first asks for it, from what the routes declare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api import problems
from api.credentials import Credential
from api.routing import PUBLIC, Route
from api.schemas.base import Problem
from api.schemas.worker import ATTEMPT_ID, WORKER_ID
from dag import spec

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

    from api.routing import Call

DESCRIPTION: Final = """\
Runyard runs workflows that other systems drive over HTTP: put a DAG, trigger a run, watch it, read its logs and its
result.

**Keys.** Every call but a few that show nothing needs an API key: `Authorization: Bearer runyard_…`. A key has scopes:
`read`, `logs`, `trigger`, `define`, `work`, and `admin`, which has them all; of the others none implies another. It may
be limited to DAGs whose id begins with a prefix; for such a key other DAGs do not exist.

**Repeating.** Every change takes an `Idempotency-Key`. After a timeout or a lost connection send the same request with
the same key: it has one effect, and the first answer comes again. A 2xx says that the change is durable. A request that
was refused had no effect and is judged anew when it is repeated.

**Problems** are RFC 9457 documents: branch on `code`, retry what is `retryable`, show `detail` and `hint`, and find
every single thing that is wrong with an input in `errors`, with a JSON pointer.

**Waiting.** Trigger with `?wait=30` to get the run when it has ended; read its events as a stream to see every step;
follow the log of a task with `?follow=true`. Nothing needs to be asked for again and again.

**Versions.** A DAG's document has numbered versions that never change, and a run keeps the one it was triggered with.
DAGs have an `ETag`: send it as `If-Match`, and nobody's change in between gets lost.

**Lists** come in pages: `items` and `next_cursor`, which is the `cursor` of the next page. Times are RFC 3339 in UTC.

**Limits.** A body has at most 1 MiB and 64 levels, a DAG 10,000 tasks and 50,000 edges, params 256 KiB, a page 1,000
items. Fields and query parameters that are not known are refused, never ignored.
"""
PROTOCOL_TEXT: Final = """\
For programs that execute tasks: a worker can be written in any language. It registers with a key of the scope `work`,
takes offers from a broker, starts each attempt with the ticket of its offer, beats, sends the log, and tells how it
ended. Every call can be repeated.
"""
TAGS: Final = (
    ("DAGs", "Define what is to be done: documents, versions, pausing."),
    ("Runs", "Trigger what is defined, look at it, stop it, run parts of it again."),
    ("Tasks", "The tasks of a run: states, outputs, attempts."),
    ("Logs", "What tasks wrote, while they write it."),
    ("Events", "Everything that happens in a run, as it happens."),
    ("Executors", "What executes tasks, and how much of it is free."),
    ("Workers", "The machines that execute tasks, and how they are."),
    ("API keys", "Who may do what."),
    ("Worker protocol", PROTOCOL_TEXT),
    ("Operation", "Health, measurements, documentation."),
)
_BEARER: Final = "key"
#: How each kind of credential is called in the document, and what it is.
_SCHEMES: Final = {
    Credential.TOKEN: ("workerToken", "The token that the worker chose when it registered."),
    Credential.TICKET: ("ticket", "The ticket that came with the offer of the attempt: `rt1.…`."),
    Credential.KEY: ("attemptKey", "The key that the supervisor chose when it started the attempt."),
}
#: What paths are shown with: the DAG, the run and the task of the examples.
_EXAMPLES: Final = {
    "dag_id": "dice",
    "run_id": "monday",
    "task_id": "roll",
    "version": 1,
    "key_id": "c5hw3zrkqk6q7m2a",
    "worker_id": WORKER_ID,
    "attempt_id": ATTEMPT_ID,
}
_STATUS: Final = {
    400: "The body cannot be read.",
    401: "The credential is missing, not valid, or of another kind.",
    403: "The key lacks a right, or another website sends this.",
    404: "There is nothing of that name, or the key does not cover it.",
    409: "It clashes with what is there now.",
    410: "It is over for the caller for good.",
    412: "A precondition does not hold.",
    413: "The body is longer than this call takes.",
    415: "The body is of another type than this call reads.",
    422: "The request is not acceptable; `errors` has everything that is wrong.",
    429: "Too many open streams of this key.",
    500: "Something went wrong on our side; it is in the service's log under `instance`.",
    503: "Not possible at the moment; send the same request again.",
}


class Document:
    """The document of one app."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._made: dict[str, Any] | None = None
        self._text = ""

    def __call__(self) -> dict[str, Any]:
        if self._made is None:
            self._made = _make(self._app)
        return self._made

    def text(self) -> str:
        """Return it as JSON."""
        if not self._text:
            self._text = json.dumps(self(), ensure_ascii=False, separators=(",", ":"))
        return self._text


def _make(app: FastAPI) -> dict[str, Any]:
    order = [name for name, _ in TAGS]
    routes = sorted((r for r in app.routes if isinstance(r, Route)), key=lambda route: order.index(str(route.tags[0])))
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="A workflow orchestrator that other systems drive over HTTP.",
        description=app.description,
        routes=routes,
        tags=[{"name": name, "description": says} for name, says in TAGS],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    models: list[type[BaseModel]] = [Problem, *_models(routes)]
    _, defined = models_json_schema(
        [(model, "serialization") for model in models], ref_template="#/components/schemas/{model}"
    )
    schemas |= defined["$defs"]
    read = sorted({r.call.reads for r in routes if r.call.reads is not None}, key=lambda model: model.__name__)
    _, defined = models_json_schema(
        [(model, "validation") for model in read], ref_template="#/components/schemas/{model}"
    )
    schemas |= defined.get("$defs", {})
    schemas["DagDocument"] = _inline(spec.json_schema(), schemas)
    document["components"]["securitySchemes"] = {
        _BEARER: {"type": "http", "scheme": "bearer", "description": "An API key: `runyard_…`."}
    } | {name: {"type": "http", "scheme": "bearer", "description": says} for name, says in _SCHEMES.values()}
    document["security"] = [{_BEARER: []}]
    document["x-problems"] = [
        {"code": k.code, "status": k.status, "title": k.title, "retryable": k.retryable, "hint": k.hint}
        for k in sorted(problems.ALL, key=lambda k: (k.status, k.code))
    ]
    for number, route in enumerate(routes):
        operation = document["paths"][route.path][next(iter(route.answers)).lower()]
        operation["x-order"] = number
        _describe(operation, route.call)
    return document


def _models(routes: list[Route]) -> list[type[BaseModel]]:
    found = {route.call.gives[1] for route in routes}
    return sorted((m for m in found if isinstance(m, type)), key=lambda m: m.__name__)


def _inline(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the DAG document's schema with its definitions moved to the components."""
    text = json.dumps(schema).replace("#/$defs/", "#/components/schemas/")
    moved: dict[str, Any] = json.loads(text)
    schemas |= moved.pop("$defs", {})
    moved["required"] = [name for name in moved["required"] if name != "dag_id"]  # the path has it
    moved.pop("$schema", None)
    moved.pop("$id", None)
    return moved


def _describe(operation: dict[str, Any], call: Call) -> None:
    if call.needs == PUBLIC:
        operation["security"] = []
        operation["x-runyard-scope"] = None
    elif isinstance(call.needs, Credential):
        operation["security"] = [{_SCHEMES[call.needs][0]: []}]
        operation["x-runyard-scope"] = None
        operation["x-runyard-credential"] = str(call.needs)
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds {call.needs.named}."
    else:
        operation["x-runyard-scope"] = str(call.needs)
        operation["description"] = f"{operation.get('description', '')}\n\nNeeds the scope `{call.needs}`."
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
        if parameter["in"] == "path":
            parameter["schema"]["examples"] = [_EXAMPLES[parameter["name"]]]
        if parameter["in"] == "header":
            parameter["name"] = parameter["name"].title().replace("-Id", "-ID")
    if call.body is not None:
        operation["requestBody"] = call.body
    elif call.reads is not None:
        schema = {"$ref": f"#/components/schemas/{call.reads.__name__}"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    answers = {str(call.gives[0]): _answer(call)}
    for status, says in call.also.items():
        answers[str(status)] = {"description": says} | ({} if status == 304 else {"content": _content(call)})  # noqa: PLR2004  # the status is the fact
    for status in call.fails:
        answers[str(status)] = _problem(status, call)
    operation["responses"] = dict(sorted(answers.items()))


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter; one that is left out has no value, and none has the value null."""
    others: list[dict[str, Any]] = [one for one in schema.pop("anyOf", ()) if one != {"type": "null"}]
    schema.pop("title", None)
    if len(others) == 1:
        return others[0] | schema
    return schema | ({"anyOf": others} if others else {})


def _answer(call: Call) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": _SUCCESS.get(call.gives[0], "The answer.")}
    if call.gives[1] is not None:
        answer["content"] = _content(call)
    if call.headers:
        answer["headers"] = {
            name: {"description": says, "schema": {"type": "string"}} for name, says in call.headers.items()
        }
    return answer


_SUCCESS: Final = {201: "It was made.", 202: "It was asked for.", 204: "It is done."}


def _content(call: Call) -> dict[str, Any]:
    model = call.gives[1]
    media = "application/json" if model is None or isinstance(model, type) else model
    entry: dict[str, Any] = {}
    if isinstance(model, type):
        entry["schema"] = {"$ref": f"#/components/schemas/{model.__name__}"}
    elif media.endswith("json"):
        entry["schema"] = {"type": "object"}
    else:
        entry["schema"] = {"type": "string"}
    if call.example is not None:
        entry["example"] = call.example
    content = {media: entry}
    if call.streams is not None:
        content[call.streams] = {"schema": {"type": "string"}}
    return content


def _problem(status: int, call: Call) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": _STATUS[status],
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status == 401:  # noqa: PLR2004  # the status is the fact
        answer["headers"] = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}}
    if status in {429, 503} and call.needs != PUBLIC:
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
    return answer
