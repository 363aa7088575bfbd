"""A DAG's params: the JSON Schema that declares them, and what a trigger passes in.

The schema is the part of JSON Schema 2020-12 that :mod:`dag.param_schema` takes.  That module and
:mod:`dag.param_values` are imported only for DAGs that have params: the library behind them costs start-up time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from dag import document
from dag.errors import Invalid, Problem
from dag.findings import Findings
from dag.references import escape

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: The params of one run, as JSON.
MAX_BYTES: Final = 256 * 1024


def check_schema(schema: Any) -> list[Problem]:
    """Return what is wrong with the field ``params`` of a document; pointers begin with ``/params``."""
    from dag import param_schema  # noqa: PLC0415  # only where there are params: jsonschema costs start-up time

    findings = Findings()
    param_schema.check(schema, findings)
    return findings.problems


def apply(schema: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return *given* with the defaults of *schema* filled in.

    Raises :exc:`~dag.errors.Invalid` with every problem, pointers from ``/params``.  Without a schema no param is
    taken; with one, what it does not declare is refused unless its ``additionalProperties`` says otherwise.
    """
    findings = Findings()
    document.sweep({"params": given}, findings)
    findings.raise_if_any(Invalid)
    size = len(json.dumps(given, ensure_ascii=False).encode())
    if size > MAX_BYTES:
        hint = f"At most {MAX_BYTES:,} bytes are taken; pass the place where the data is."
        findings.add("/params", "too_large", f"The params have {size:,} bytes.", hint)
        findings.raise_if_any(Invalid)
    if schema is None:
        hint = "Leave it out, or declare `params` in the DAG."
        for name in given:
            findings.add(f"/params/{escape(name)}", "unknown_param", "This DAG takes no params.", hint)
        findings.raise_if_any(Invalid)
        return {}
    from dag import param_values  # noqa: PLC0415  # as above

    whole = param_values.filled(schema, given, findings)
    findings.raise_if_any(Invalid)
    param_values.validate(schema, whole, findings)
    findings.raise_if_any(Invalid)
    return whole


def declared(schema: Any) -> Collection[str] | None:
    """Return the names that *schema* lets a trigger pass, or None where it lets pass any."""
    if schema is None:
        return ()
    if not isinstance(schema, dict) or schema.get("additionalProperties", False) is not False:
        return None
    properties = schema.get("properties")
    return tuple(properties) if isinstance(properties, dict) else ()
