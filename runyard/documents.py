"""DAG documents in files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from dag.document import read
from dag.errors import DocumentInvalid, Problem
from runyard.exits import Exit, Stop

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Media = Literal["json", "yaml"]
_MEDIA: Final[dict[str, Media]] = {".yaml": "yaml", ".yml": "yaml", ".json": "json"}


@dataclass(frozen=True, slots=True)
class Document:
    """A file that says which DAG it is; whether the DAG is right is for the service to say."""

    path: Path
    dag_id: str
    media: Media
    raw: bytes


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file that could not even be read as a document."""

    path: Path
    problems: tuple[Problem, ...]


def find(places: Sequence[Path]) -> list[Path]:
    """Return the document files at *places*, each a file or a folder to look through; Stop where there is none."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            inside = sorted(path for path in place.rglob("*") if path.suffix in _MEDIA and _shown(path, place))
            if not inside:
                raise Stop(Exit.USAGE, f"There is no .yaml, .yml or .json file in {place}.")
            found |= dict.fromkeys(inside)
        elif place.exists():
            if place.suffix not in _MEDIA:
                raise Stop(Exit.USAGE, f"{place} is no DAG document: its name must end in .yaml, .yml or .json.")
            found[place] = None
        else:
            raise Stop(Exit.USAGE, f"There is no file or folder {place}.")
    return list(found)


def load(paths: Sequence[Path]) -> list[Document | Unreadable]:
    """Read every file, also after one that cannot be read."""
    loaded: list[Document | Unreadable] = []
    first: dict[str, Path] = {}
    for path in paths:
        document = _load(path)
        if isinstance(document, Document) and (other := first.setdefault(document.dag_id, path)) != path:
            document = Unreadable(
                path,
                (
                    Problem(
                        pointer="/dag_id",
                        code="duplicate",
                        message=f"The DAG {document.dag_id!r} is defined by {other} too.",
                        hint="one of the two must go, or take another dag_id",
                    ),
                ),
            )
        loaded.append(document)
    return loaded


def _load(path: Path) -> Document | Unreadable:
    media = _MEDIA[path.suffix]
    try:
        raw = path.read_bytes()
        document = read(raw, media=media)
    except OSError as error:
        return Unreadable(path, (Problem(pointer="", code="unreadable", message=f"{error.strerror}."),))
    except DocumentInvalid as error:
        return Unreadable(path, error.problems)
    dag_id = document.get("dag_id")
    if not isinstance(dag_id, str) or not dag_id:
        problem = Problem(
            pointer="/dag_id", code="missing", message="The document does not say its dag_id.", hint="add: dag_id: name"
        )
        return Unreadable(path, (problem,))
    return Document(path, dag_id, media, raw)


def _shown(path: Path, top: Path) -> bool:
    """Whether neither *path* nor a folder on the way from *top* is hidden."""
    return path.is_file() and not any(part.startswith(".") for part in path.relative_to(top).parts)
