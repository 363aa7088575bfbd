"""API keys; the key itself is shown once."""

from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.auth import Scope
from api.schemas.base import EXAMPLE_AT, Answer, Clean, Instant, Moment, RequestBody, instant, maybe
from dag.fields import Queue
from metastore.records import KeyRecord

EXAMPLE: Final[dict[str, Any]] = {
    "key_id": "c5hw3zrkqk6q7m2a",
    "name": "ci",
    "scopes": ["read", "trigger"],
    "dag_prefix": "sales_",
    "queues": None,
    "created_at": EXAMPLE_AT,
    "created_by": "key:admin",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
}
EXAMPLE_CREATED: Final[dict[str, Any]] = EXAMPLE | {"key": "runyard_c5hw3zrkqk6q7m2a_<52 characters>_<8 characters>"}


class KeyCreate(RequestBody):
    """A key to be made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "ci", "scopes": ["read", "trigger"], "dag_prefix": "sales_"}]}
    )

    name: Annotated[str, StringConstraints(min_length=1, max_length=200, strict=True), Clean] = Field(
        description="What it is for, in your own words.", examples=["ci"]
    )
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)] = Field(
        description="What it may do: `read`, `logs`, `trigger`, `define`, `work`, or `admin` for everything. "
        "None implies another, but `admin` all.",
        examples=[["read", "trigger"]],
    )
    dag_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.~:+-]{1,250}$", strict=True)] | None = Field(
        default=None,
        description="It knows only DAGs whose id begins with this. Left out: all. Not for `admin` and `work`.",
        examples=["sales_"],
    )
    queues: Annotated[list[Queue], Field(min_length=1, max_length=100)] | None = Field(
        default=None,
        description="A worker with this key may serve only these queues. Left out: all. Only with `work`.",
        examples=[["gpu"]],
    )
    expires_at: Moment | None = Field(default=None, description="It is refused from then on. Left out: never.")

    @model_validator(mode="after")
    def _admin_is_everywhere(self) -> "KeyCreate":
        if self.dag_prefix is not None and Scope.ADMIN in self.scopes:
            raise PydanticCustomError(
                "admin_prefix", "A key with the scope admin has no dag_prefix: it makes other keys"
            )
        if self.dag_prefix is not None and Scope.WORK in self.scopes:
            raise PydanticCustomError(
                "work_prefix", "A key with the scope work has no dag_prefix: workers take what their queues hold"
            )
        if self.queues is not None and Scope.WORK not in self.scopes:
            raise PydanticCustomError("queues_without_work", "Only a key with the scope work has queues")
        return self


class Key(Answer):
    """An API key, without its secret."""

    key_id: str = Field(description="The public part of the key: the second of its four parts.")
    name: str = Field(description="What it is for.")
    scopes: list[Scope] = Field(description="What it may do.")
    dag_prefix: str | None = Field(description="It knows only DAGs whose id begins with this; null: all.")
    queues: list[str] | None = Field(description="The queues that a worker with it may serve; null: all.")
    created_at: Instant = Field(description="When it was made.")
    created_by: str = Field(description="Who made it.")
    expires_at: Instant | None = Field(description="It is refused from then on; null: never.")
    revoked_at: Instant | None = Field(description="When it was revoked.")
    last_used_at: Instant | None = Field(description="When it was last used, to about a minute.")


class KeyCreated(Key):
    """A key that was just made."""

    key: str = Field(description="The key, for the Authorization header. It is shown here and never again.")


class KeyPage(Answer):
    """A page of keys."""

    items: list[Key]
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last.")


def render(record: KeyRecord) -> dict[str, Any]:
    """Write a :class:`Key`."""
    return {
        "key_id": record.key_id,
        "name": record.name,
        "scopes": record.scopes,
        "dag_prefix": record.dag_prefix,
        "queues": record.queues,
        "created_at": instant(record.created_at),
        "created_by": record.created_by,
        "expires_at": maybe(record.expires_at),
        "revoked_at": maybe(record.revoked_at),
        "last_used_at": maybe(record.last_used_at),
    }
