from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from runyard.documents import Document, Unreadable, find, load
from runyard.exits import Exit, Stop

if TYPE_CHECKING:
    from pathlib import Path


def test_a_folder_is_searched_for_documents_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.yaml", "a/c.json", "a/d.yml", "a/e.py", ".hidden.yaml", ".git/f.yaml", "a/.x/g.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find([tmp_path])] == ["a/c.json", "a/d.yml", "b.yaml"]


def test_a_file_named_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    assert find([tmp_path, tmp_path / "a.yaml"]) == [tmp_path / "a.yaml"]


@pytest.mark.parametrize(
    "name", ["nothing.yaml", "code.py", "empty"], ids=["missing", "no document", "an empty folder"]
)
def test_what_is_no_document_is_a_wrong_command_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "code.py").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(Stop) as stop:
        find([tmp_path / name])
    assert stop.value.code is Exit.USAGE
    assert name in stop.value.message


def test_a_document_says_which_dag_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("dag_id: a\ntasks: {}\n")
    assert load([path]) == [Document(path, "a", "yaml", b"dag_id: a\ntasks: {}\n")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", b"{"),
        ("a.yaml", b"a: [b"),
        ("a.yaml", b"\xff\xfe"),
        ("a.yaml", b"tasks: {}"),
        ("a.json", b'{"dag_id": 7}'),
    ],
    ids=["no JSON", "no YAML", "no text", "no id", "an id that is no text"],
)
def test_what_cannot_be_read_is_a_problem_of_that_file_only(tmp_path: Path, name: str, text: bytes) -> None:
    broken, whole = tmp_path / name, tmp_path / "whole.yaml"
    broken.write_bytes(text)
    whole.write_text("dag_id: whole\n")
    first, second = load([broken, whole])
    assert isinstance(first, Unreadable)
    assert first.problems
    assert isinstance(second, Document)


def test_a_dag_that_two_files_define_is_a_problem_of_the_second(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("dag_id: same\n")
    first, second = load(find([tmp_path]))
    assert isinstance(first, Document)
    assert isinstance(second, Unreadable)
    assert str(tmp_path / "a.yaml") in second.problems[0].message
