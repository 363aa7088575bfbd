"""What params a DAG takes: remembered, looked at again before a refusal, and not checked twice for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from api import parameters
from api.parameters import ParameterSchemas
from dag import params as dag_params
from tests.metastore.examples import a_document, put

if TYPE_CHECKING:
    import pytest

    from metastore.store import Store


def a_dag(kind: str) -> dict[str, Any]:
    return a_document(params={"type": "object", "properties": {"x": {"type": kind}}})


async def test_a_refusal_is_worked_out_once_where_nothing_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, a_dag("integer"))
    schemas = ParameterSchemas(store)
    assert (await schemas.check("d", None, {"x": 1})).wrong is None
    checks = 0

    def counted(schema: Any, given: Any) -> dict[str, Any]:
        nonlocal checks
        checks += 1
        return dag_params.apply(schema, given)

    class Counting:
        apply = staticmethod(counted)

    monkeypatch.setattr(parameters, "dag_params", Counting)

    assert (await schemas.check("d", None, {"x": "no"})).wrong is not None
    assert checks == 1


async def test_what_an_old_schema_refuses_is_checked_against_the_new_one(store: Store) -> None:
    await put(store, a_dag("integer"))
    schemas = ParameterSchemas(store)
    assert (await schemas.check("d", None, {"x": "yes"})).wrong is not None

    await put(store, a_dag("string"))

    assert (await schemas.check("d", None, {"x": "yes"})).params == {"x": "yes"}
