from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from dag import document
from worker import output, runner
from worker.protocol import MAX_DEPTH, MAX_OUTPUT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "text",
    ["null", "0", "-1.5e3", '"\\ud83d\\ude82"', '"a\\u0000b"', ' {"a": [1, {"b": null}]}\n', '"日本"', '"\\\\ud800"'],
)
def test_json_is_taken_as_it_is(text: str) -> None:
    assert output.check(text.encode()) == text


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(b" \n", "the file is empty", id="blank"),
        pytest.param(b"{oops", "line 1 column 2", id="broken"),
        pytest.param(b"1 2", "Extra data", id="two values"),
        pytest.param(b"NaN", "NaN is no number of JSON", id="NaN"),
        pytest.param(b"[-Infinity]", "-Infinity is no number of JSON", id="infinity"),
        pytest.param(b"[1e400]", "1e400 is too large for a number", id="a number that becomes infinite"),
        pytest.param(b"9" * 5000, "limit", id="an integer of 5000 digits"),
        pytest.param(b'"\xff"', "byte 1 is not UTF-8", id="no UTF-8"),
        pytest.param(b'"\\ud800"', "lone surrogate", id="half a character"),
        pytest.param(b'{"\\uDC00": 1}', "lone surrogate", id="half a character in a key"),
        pytest.param(b"[" * 100_000 + b"]" * 100_000, "nests deeper than 64 levels", id="100,000 levels"),
        pytest.param(b"[" * 1_000_000, "nests deeper than 64 levels", id="a million brackets that never close"),
        pytest.param(b"[" * 65 + b"]" * 65, "nests deeper than 64 levels", id="65 levels"),
        pytest.param(b'{"a":[' * 32 + b"{}" + b"]}" * 32, "nests deeper than 64 levels", id="65 levels of both kinds"),
        pytest.param(
            rb'["\\",' * 65 + b"0" + b"]" * 65, "nests deeper than 64 levels", id="65 levels after backslashes"
        ),
        pytest.param(b'"' + b"[" * 70, "Unterminated string", id="brackets in a string without an end"),
        pytest.param(b'"' + b"x" * MAX_OUTPUT + b'"', "1,048,578 bytes; at most 1,048,576", id="too long"),
    ],
)
def test_what_is_not_one_json_value_is_refused_and_says_why(data: bytes, why: str) -> None:
    with pytest.raises(output.OutputInvalid) as caught:
        output.check(data)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 64 + "]" * 64, id="64 levels"),
        pytest.param('{"a":[' * 32 + "1" + "]}" * 32, id="64 levels of both kinds"),
        pytest.param("[" + ",".join(["[{}]"] * 1000) + "]", id="many beside each other"),
        pytest.param(
            json.dumps(["[" * 100, {"{" * 100: 0}, '"' + "[" * 100, "\\" + "[" * 100, '\\"' + "[" * 100]), id="texts"
        ),
    ],
)
def test_only_levels_of_lists_and_objects_count(text: str) -> None:
    assert output.check(text.encode()) == text


def test_an_output_nests_as_deep_as_a_document_may() -> None:
    assert MAX_DEPTH == document.MAX_DEPTH


@pytest.mark.parametrize("levels", [65, 100_000])
@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_a_return_value_that_nests_too_deeply_is_refused_and_says_why(tmp_path: Path, kind: type, levels: int) -> None:
    value: Any = None
    for _ in range(levels):
        value = {"a": value} if kind is dict else kind([value])
    with pytest.raises(runner._Refused, match="output nests deeper than 64 levels"):
        runner._write_output(str(tmp_path / "output.json"), value)
    assert not (tmp_path / "output.json").exists()


def test_an_output_of_exactly_the_cap_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "output.json"
    file.write_text(json.dumps("x" * (MAX_OUTPUT - 2)))
    assert output.read(str(file)) == file.read_text()


def test_no_file_is_no_output(tmp_path: Path) -> None:
    assert output.read(str(tmp_path / "output.json")) is None


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/etc/hostname")
    for name in ("pipe", "folder", "link"):
        with pytest.raises(output.OutputInvalid, match="cannot be read"):
            output.read(str(tmp_path / name))


def test_a_huge_sparse_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(output.OutputInvalid, match="1,099,511,627,776 bytes"):
        output.read(str(tmp_path / "huge"))
