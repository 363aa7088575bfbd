"""What a task can be: the objects below ``python`` and ``empty``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dag import fields
from dag.fields import Call, Interpreter, Source  # noqa: TC001  pydantic reads them at run time


class Model(BaseModel):
    """An object of the document."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class PythonSpec(Model):
    """A Python function, in a file of the code folder (`call`) or in the document itself (`source`)."""

    call: Annotated[
        Call | None,
        Field(description="`module:function`, imported from the code folder.", examples=["warehouse.load:run"]),
    ] = None
    source: Annotated[
        Source | None,
        Field(
            description="Python code that defines a function `main`. It holds no references: pass values by "
            "`args`, `kwargs` or `env`.",
            examples=["def main(n):\n    return n * n\n"],
        ),
    ] = None
    interpreter: Annotated[
        Interpreter | None,
        Field(
            description="Another Python (3.8 or newer) to run it: an absolute path, or a name that is looked up on the "
            "PATH of the worker. null, `python` and `python3`: the interpreter of all tasks (`RUNYARD_TASK_PYTHON`).",
            examples=["/opt/reports/bin/python", "python3.12"],
        ),
    ] = None
    args: Annotated[
        tuple[Any, ...],
        Field(
            description="Positional arguments: JSON values, references allowed.", examples=[["${outputs.extract.rows}"]]
        ),
    ] = ()
    kwargs: Annotated[
        dict[str, Any],
        Field(description="Keyword arguments: JSON values, references allowed.", examples=[{"day": "${params.day}"}]),
    ] = Field(default_factory=dict)


class EmptySpec(Model):
    """Nothing to do."""


Empty = Annotated[EmptySpec, fields.true_is_empty, fields.also_true]
