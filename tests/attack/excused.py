"""What schemathesis reports and is right as it is, each with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from schemathesis import Case
    from schemathesis.core.failures import Failure
    from schemathesis.core.transport import Response

#: Refusals of what fits the schema, by the code of the problem or of one of its errors.
_BEYOND_SCHEMAS: Final = {
    "bad_cursor": "a cursor is what a page gave out, signed; no schema can say that",
    "revision_mismatch": "an ETag that was drawn is not the one of the DAG: 412 is the point of If-Match",
    "precondition_failed": "If-None-Match and If-Match ask for what is or is not there",
    "idempotency_key_reused": "a drawn Idempotency-Key comes again with another request",
    "document_invalid": "references, cycles, durations, ids: what a DAG document is goes beyond its schema",
    "nul_character": "no text anywhere holds U+0000: no argument, variable or database takes it",
    "unknown_task": "which tasks a run has, its DAG says",
    "number_out_of_range": "a whole number has 64 bits, as in every database",
    "bad_output": "the output of an end is JSON within a text, and a schema sees the text",
    "queues_without_work": "a rule over two fields: queues are for keys of workers",
    "admin_prefix": "a rule over two fields: an admin has no prefix",
    "work_prefix": "a rule over two fields: a worker has no prefix",
    "log_too_long": "how long a log may get is counted from its offset and its bytes",
}
_PUBLIC: Final = frozenset({"GET /docs", "GET /openapi.json", "GET /health/live", "GET /health/ready"})


def excuse(failure: Failure, case: Case[Any], response: Response) -> str | None:
    """Return why *failure* is none, if it is none."""
    match type(failure).__name__:
        case "RejectedPositiveData" if response.status_code == 410 and case.path.startswith("/worker/v1/"):
            return "what a worker no longer holds is gone for it: that is what 410 says"
        case "RejectedPositiveData":
            problem = _problem(response)
            return _beyond_schemas(problem) or _of_the_dag(problem) or _written_otherwise(problem, case.body)
        case "AcceptedNegativeData" if "positive test case" in failure.message:
            return "schemathesis has made the case right and calls it so itself"
        case "UseAfterFree" if case.path == "/api/v1/keys/{key_id}":
            return "a revoked key stays where it can be seen, revoked"
        case "UnsupportedMethodResponse" if response.status_code == 401 and case.operation.label in _PUBLIC:
            return "what is not on the list of public routes asks for a key first (SEC-01)"
    return None


def _beyond_schemas(problem: dict[str, Any]) -> str | None:
    codes = {problem.get("code"), *(one["code"] for one in problem.get("errors") or ())}
    return next((why for code, why in _BEYOND_SCHEMAS.items() if code in codes), None)


def _of_the_dag(problem: dict[str, Any]) -> str | None:
    wrong = [one["pointer"] for one in problem.get("errors") or ()]
    return (
        "which params a run takes, its DAG says" if wrong and all(one.startswith("/params") for one in wrong) else None
    )


def _written_otherwise(problem: dict[str, Any], body: Any) -> str | None:
    """Whether all that is wrong are numbers such as 7.0, which are whole for JSON Schema."""
    found = problem.get("errors") or ()
    whole = [one for one in found if one["code"] == "wrong_type" and _is_whole(_at(body, one["pointer"]))]
    return "a whole number is written as one: 7 and not 7.0" if found and len(whole) == len(found) else None


def _is_whole(value: object) -> bool:
    return isinstance(value, float) and value.is_integer()


def _at(body: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        if isinstance(body, list) and part.isdigit() and int(part) < len(body):
            body = body[int(part)]
        elif isinstance(body, dict):
            body = body.get(part.replace("~1", "/").replace("~0", "~"))
        else:
            return None
    return body


def _problem(response: Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
