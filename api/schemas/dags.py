"""DAGs and their versions."""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from api.schemas.base import EXAMPLE_AT, Answer, Instant, RequestBody, instant
from dag.fields import Label
from metastore.records import DagRecord, DagVersionRecord, DagVersionSummary

#: The DAG of every example: it runs as it stands.
EXAMPLE_DOCUMENT: Final[dict[str, Any]] = {
    "description": "Rolls two dice and reports the total.",
    "tags": ["demo"],
    "params": {"type": "object", "properties": {"sides": {"type": "integer", "minimum": 2, "default": 6}}},
    "tasks": {
        "roll": {
            "python": {
                "source": "import random\n\ndef main(sides):\n"
                "    return random.randint(1, sides) + random.randint(1, sides)\n",
                "kwargs": {"sides": "${params.sides}"},
            }
        },
        "report": {"command": ["echo", "The total is ${outputs.roll}"], "depends_on": ["roll"]},
    },
}
EXAMPLE_HASH: Final = "6d8a1f1a4f0d4f6c6b5e4f1f3a5b8c7d9e0f1a2b3c4d5e6f708192a3b4c5d6e7"
EXAMPLE: Final[dict[str, Any]] = {
    "dag_id": "dice",
    "version": 1,
    "paused": False,
    "description": EXAMPLE_DOCUMENT["description"],
    "tags": EXAMPLE_DOCUMENT["tags"],
    "owners": [],
    "created_at": EXAMPLE_AT,
    "updated_at": EXAMPLE_AT,
}
EXAMPLE_VERSION: Final[dict[str, Any]] = {
    "dag_id": "dice",
    "version": 1,
    "content_hash": EXAMPLE_HASH,
    "task_count": 2,
    "created_at": EXAMPLE_AT,
    "created_by": "key:admin",
}


class Dag(Answer):
    """A DAG as it is now."""

    dag_id: str = Field(description="Its id.", examples=["dice"])
    version: int = Field(description="The current version: what a trigger pins its run to.")
    paused: bool = Field(description="Whether its runs wait: a paused DAG accepts runs and starts none.")
    description: str | None = Field(description="What it is for.")
    tags: list[str] = Field(description="Words to find it by.")
    owners: list[str] = Field(description="Who to ask.")
    created_at: Instant = Field(description="When it was first put.")
    updated_at: Instant = Field(description="When it last changed.")


class DagWithDocument(Dag):
    """A DAG as it is now, with the document of its current version."""

    document: dict[str, Any] = Field(description="The DAG document, as it was put.")


class DagPut(Dag):
    """What a PUT came to."""

    created: bool = Field(description="Whether the DAG is new.")
    changed: bool = Field(description="Whether there is a new version; an identical document changes nothing.")


class DagPage(Answer):
    """A page of DAGs, by id."""

    items: list[Dag]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


class DagPatch(RequestBody):
    """What to change of a DAG outside of its document."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"paused": False}],
            "anyOf": [
                {"required": ["paused"], "properties": {"paused": {"type": "boolean"}}},
                {"required": ["tags"], "properties": {"tags": {"type": "array"}}},
            ],
        }
    )

    paused: StrictBool | None = Field(
        default=None, description="true: its runs wait from now on, what runs goes on; false: they start again."
    )
    tags: Annotated[list[Label], Field(max_length=100)] | None = Field(
        default=None,
        description="The new tags, all of them; the next PUT of the document sets them again.",
        examples=[["demo"]],
    )

    @model_validator(mode="after")
    def _something(self) -> "DagPatch":
        if not self.model_fields_set or all(getattr(self, name) is None for name in self.model_fields_set):
            raise PydanticCustomError("nothing_to_change", "There is nothing to change: give paused, tags or both")
        return self


class DagVersion(Answer):
    """One immutable version of a DAG."""

    dag_id: str = Field(description="The DAG.")
    version: int = Field(description="Its number, from 1 up.")
    content_hash: str = Field(description="SHA-256 over the document in canonical form.")
    task_count: int = Field(description="How many tasks it has.")
    created_at: Instant = Field(description="When it was put.")
    created_by: str = Field(description="Who put it: `key:` and the id of an API key.")


class DagVersionWithDocument(DagVersion):
    """One immutable version of a DAG with its document."""

    document: dict[str, Any] = Field(description="The DAG document, as it was put.")


class DagVersionPage(Answer):
    """A page of versions, newest first."""

    items: list[DagVersion]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


def render(record: DagRecord) -> dict[str, Any]:
    """Write a :class:`Dag`."""
    return {
        "dag_id": record.dag_id,
        "version": record.version,
        "paused": record.paused,
        "description": record.description,
        "tags": record.tags,
        "owners": record.owners,
        "created_at": instant(record.created_at),
        "updated_at": instant(record.updated_at),
    }


def render_version(record: DagVersionRecord | DagVersionSummary) -> dict[str, Any]:
    """Write a :class:`DagVersion`."""
    return {
        "dag_id": record.dag_id,
        "version": record.version,
        "content_hash": record.content_hash,
        "task_count": record.task_count,
        "created_at": instant(record.created_at),
        "created_by": record.created_by,
    }
