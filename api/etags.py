"""Entity tags of DAGs, and the preconditions that come with a request."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import Depends, Header

from api.problems import BY_ERROR, PRECONDITION_FAILED, Refused
from dag.errors import RevisionMismatch
from metastore.records import DagRecord

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ANY: Final = "*"


def etag(record: DagRecord) -> str:
    """Return the entity tag of a DAG.

    Its birth is part of it: the revisions of a DAG that was deleted and made again begin anew.
    """
    return f'"{(record.created_at - _EPOCH) // timedelta(microseconds=1):x}-{record.revision}"'


def is_known(tag: str, if_none_match: str | None) -> bool:
    """Whether a reader has *tag* already."""
    return bool((_tags(if_none_match) or frozenset()) & {_ANY, tag, _weak(tag)})


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What must hold for a request to go on."""

    if_match: frozenset[str] | None
    if_none_match: frozenset[str] | None

    @property
    def creates_only(self) -> bool:
        return self.if_none_match is not None and _ANY in self.if_none_match

    def check(self, record: DagRecord | None) -> int | None:
        """Raise where they do not hold for *record*; return the revision a change has to find, if that matters."""
        tag = None if record is None else etag(record)
        if self.if_none_match is not None and tag is not None and self.if_none_match & {_ANY, _weak(tag), tag}:
            raise Refused(
                PRECONDITION_FAILED,
                "The DAG exists, and the request is for one that does not (If-None-Match).",
                hint="Leave If-None-Match out to change it.",
            )
        if self.if_match is None:
            return None
        if record is None:
            raise Refused(
                PRECONDITION_FAILED,
                "The DAG does not exist, and the request is for one that does (If-Match).",
                hint="Leave If-Match out to create it.",
            )
        if not self.if_match & {_ANY, tag}:
            raise Refused(BY_ERROR[RevisionMismatch], "The DAG was changed since you read it: its ETag is another one.")
        return record.revision


def _weak(tag: str) -> str:
    return f"W/{tag}"


IfNoneMatch = Annotated[
    str | None, Header(description="An ETag, or several: 304 without a body if the DAG is still that.")
]


_IF_MATCH: Final = Header(
    description="An ETag: go on only if the DAG is still the one you read, else 412. `*`: only if it exists."
)


async def _of_put(
    if_match: Annotated[str | None, _IF_MATCH] = None,
    if_none_match: Annotated[
        str | None, Header(description="`*`: go on only if there is no such DAG yet, else 412.")
    ] = None,
) -> Preconditions:
    return Preconditions(_tags(if_match), _tags(if_none_match))


async def _of_change(if_match: Annotated[str | None, _IF_MATCH] = None) -> Preconditions:
    return Preconditions(_tags(if_match), None)


PutConditions = Annotated[Preconditions, Depends(_of_put)]
ChangeConditions = Annotated[Preconditions, Depends(_of_change)]


def _tags(header: str | None) -> frozenset[str] | None:
    # Our tags hold no comma, so a list is split at commas; what is no tag of ours matches nothing.
    return None if header is None else frozenset(part.strip() for part in header.split(","))
