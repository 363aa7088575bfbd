"""What a task can be: the objects below ``python``, ``http`` and ``empty``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from dag import fields
from dag.fields import Call, HeaderName, Interpreter, Method, Source, Text, Url


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


Headers = dict[HeaderName, Text]


class HttpSpec(Model):
    """One request over HTTP; its answer is the output: `{status, headers, body}`."""

    method: Annotated[Method, Field(description="The method of the request.", examples=["POST"])]
    url: Annotated[
        Url,
        Field(
            description="Where to, with http:// or https://. May hold references; behind the host their values are "
            "percent-encoded. Public addresses only, unless the operator allows more (`RUNYARD_HTTP_ALLOW`).",
            examples=["https://api.example.com/orders/${params.day}"],
        ),
    ]
    headers: Annotated[
        Headers,
        Field(
            description="Headers of the request. Values may hold references.",
            examples=[{"Accept": "application/json"}],
        ),
    ] = Field(default_factory=dict)
    query: Annotated[
        dict[str, Text],
        Field(
            description="What stands behind the `?` of the URL, encoded for you. Values may hold references.",
            examples=[{"day": "${params.day}"}],
        ),
    ] = Field(default_factory=dict)
    json_: Annotated[
        Any,
        Field(
            alias="json",
            description="A JSON value to send; references allowed, a string that is one whole reference keeps the type "
            "of its value. null: none.",
            examples=[{"loaded": "${outputs.load.count}"}],
        ),
    ] = None
    body: Annotated[
        str | None,
        Field(
            description="A text to send instead of `json`; references allowed. It is text/plain unless `headers` says "
            "otherwise.",
            examples=["day=${params.day}"],
        ),
    ] = None


class EmptySpec(Model):
    """Nothing to do."""


Empty = Annotated[EmptySpec, fields.true_is_empty, fields.also_true]
