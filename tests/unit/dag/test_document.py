"""From bytes to an object: honest documents in both languages, and what hostile ones meet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from dag import document, yaml_reader
from dag.document import MAX_BYTES, MAX_DEPTH, content_hash, read
from dag.errors import DocumentInvalid
from dag.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Mapping


def objects(texts: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects as JSON can write them, of these texts."""
    values: st.SearchStrategy[Any] = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )
    return st.dictionaries(texts, values, max_size=4)


def texts(*, last: str = "\U0010ffff") -> st.SearchStrategy[str]:
    """Texts of whole characters but NUL, up to *last*."""
    return st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"], max_codepoint=ord(last)))


# The characters a key may take, as written and with its quotes, where no "? " goes before it (YAML 1.2.2, 7.4.2).
MAX_PLAIN_KEY = 1024


def longest_key(value: object) -> int:
    """How many characters the longest key in *value* takes in JSON."""
    match value:
        case dict():
            return max([len(json.dumps(key)) for key in value] + [longest_key(inner) for inner in value.values()] + [0])
        case list():
            return max(map(longest_key, value), default=0)
        case _:
            return 0


def problems(raw: bytes, media: Literal["json", "yaml"]) -> list[tuple[str, str]]:
    """What reading *raw* complains about."""
    with pytest.raises(DocumentInvalid) as caught:
        read(raw, media=media)
    assert all(problem.message.endswith(".") and problem.hint for problem in caught.value.problems)
    return [(problem.pointer, problem.code) for problem in caught.value.problems]


@given(objects(texts()))
def test_json_is_read_as_it_was_written(value: dict[str, Any]) -> None:
    assert read(json.dumps(value).encode(), media="json") == value


@given(objects(texts(last="\uffff")))  # YAML's escapes know no surrogate pairs: beyond, the character has to be there
def test_json_is_yaml(value: dict[str, Any]) -> None:
    text = json.dumps(value)
    assume(longest_key(value) <= MAX_PLAIN_KEY)
    assert read(text.encode(), media="yaml") == value


@pytest.mark.parametrize("around", ["{%s: 1}", '{"x": [{%s: 1}]}', "%s: 1"])
def test_a_key_too_long_for_yaml_is_refused_with_the_way_out(around: str) -> None:
    longest, beyond = ('"' + "k" * (MAX_PLAIN_KEY + more - 2) + '"' for more in (0, 1))
    assert read((around % longest).encode(), media="yaml")
    with pytest.raises(DocumentInvalid) as caught:
        read((around % beyond).encode(), media="yaml")
    (problem,) = caught.value.problems
    assert problem.code == "not_yaml"
    assert problem.hint == "Check the quotes there; YAML wants '? ' before a key longer than 1,024 characters."
    way_out = read((around % f"? {beyond}\n").encode(), media="yaml")
    assert str(way_out) == str(read((around % '"k"').encode(), media="yaml")).replace("k", "k" * (MAX_PLAIN_KEY - 1))


def test_a_byte_order_mark_is_passed_over() -> None:
    assert read(b'\xef\xbb\xbf{"a": 1}', media="json") == {"a": 1}


@pytest.mark.parametrize("media", ["json", "yaml"])
@pytest.mark.parametrize(
    ("raw", "found"),
    [
        pytest.param(b"", [("", "empty_document")], id="nothing"),
        pytest.param(b" \n\t", [("", "empty_document")], id="white space"),
        pytest.param(b"\xef\xbb\xbf", [("", "empty_document")], id="a byte order mark alone"),
        pytest.param(b" " * (MAX_BYTES + 1), [("", "too_large")], id="one byte too many"),
        pytest.param('{"a": "ü"}'.encode("latin-1"), [("", "not_utf8")], id="not UTF-8"),
        pytest.param('{"a": 1}'.encode("utf-16"), [("", "not_utf8")], id="UTF-16"),
        pytest.param(b"[1]", [("", "not_an_object")], id="a list"),
        pytest.param(b"null", [("", "not_an_object")], id="null"),
        pytest.param(b'"x"', [("", "not_an_object")], id="a text"),
        pytest.param(b'{"a": 1, "a": 2}', [("/a", "duplicate_key")], id="a key twice"),
        pytest.param(b'{"x": [{"a/~b": 1, "a/~b": 2}]}', [("/x/0/a~1~0b", "duplicate_key")], id="a key twice, deep"),
        pytest.param(b'{"a": 9223372036854775808}', [("/a", "number_out_of_range")], id="65 bits"),
        pytest.param(b'{"a": -9223372036854775809}', [("/a", "number_out_of_range")], id="65 bits below zero"),
        pytest.param(b'{"a": ' + b"9" * 100_000 + b"}", [("/a", "number_out_of_range")], id="digits without end"),
        pytest.param(b'{"a\\u0000": 1}', [("/a\0", "nul_character")], id="NUL in a key"),
        pytest.param(b'{"a": ["\\u0000"]}', [("/a/0", "nul_character")], id="NUL in a text"),
        pytest.param(b'{"a": 1e999}', [("/a", "number_not_finite")], id="a number that becomes infinite"),
        pytest.param(
            b'{"a": [' * (MAX_DEPTH // 2) + b"[" + b"]" + b"]}" * (MAX_DEPTH // 2), [("", "too_deep")], id="65 levels"
        ),
        pytest.param(b'{"a": ' + b"[" * 500_000, [("", "too_deep")], id="a tower of brackets"),
        pytest.param(b"[" * 100_000, [("", "too_deep")], id="a tower without an object"),
    ],
)
def test_what_both_languages_refuse(raw: bytes, media: Literal["json", "yaml"], found: list[tuple[str, str]]) -> None:
    assert problems(raw, media) == found


@pytest.mark.parametrize("media", ["json", "yaml"])
def test_sixty_four_levels_are_taken(media: Literal["json", "yaml"]) -> None:
    raw = b'{"a": [' * (MAX_DEPTH // 2) + b"1" + b"]}" * (MAX_DEPTH // 2)
    assert read(raw, media=media)


def test_brackets_inside_texts_are_not_depth() -> None:
    value = {"a": "[" * 100 + '"\\' + "{" * 100}
    assert read(json.dumps(value).encode(), media="json") == value


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        pytest.param(b"{", [("", "not_json")], id="unfinished"),
        pytest.param(b'{"a": "x', [("", "not_json")], id="an open text"),
        pytest.param(b"{'a': 1}", [("", "not_json")], id="single quotes"),
        pytest.param(b'{"a": 1,}', [("", "not_json")], id="a comma too many"),
        pytest.param(b'{"a": 1} {}', [("", "not_json")], id="more behind it"),
        pytest.param(b'{"a": "x\ny"}', [("", "not_json")], id="a raw line break in a text"),
        pytest.param(b'{"a": NaN}', [("/a", "number_not_finite")], id="NaN"),
        pytest.param(b'{"a": [-Infinity]}', [("/a/0", "number_not_finite")], id="-Infinity"),
        pytest.param(b'{"a": "\\ud800"}', [("/a", "lone_surrogate")], id="half a surrogate pair"),
        pytest.param(
            b'{"a": 1, "a": {"b": 1, "b": NaN}, "a": {"b": 1, "b": NaN}}',
            [("/a", "duplicate_key"), ("/a/b", "duplicate_key"), ("/a/b", "number_not_finite")],
            id="several at once",
        ),
    ],
)
def test_what_json_refuses(raw: bytes, found: list[tuple[str, str]]) -> None:
    assert problems(raw, "json") == found


def test_broken_json_names_line_and_column() -> None:
    with pytest.raises(DocumentInvalid, match=r"Line 2, column 8 is not JSON: Expecting value\."):
        read(b'{\n  "a": ?}', media="json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("On", "On"),
        ("n", "n"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("12", 12),
        ("-12", -12),
        ("+12", 12),
        ("012", 12),
        ("0o17", 15),
        ("0x1F", 31),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        ("=", "="),
        ("<<", "<<"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  line\n  two\n", "line\ntwo\n"),
        (">\n  one\n  line\n", "one line\n"),
        ("[a, 1, {b: c}]", ["a", 1, {"b": "c"}]),
    ],
)
def test_yaml_scalars_follow_its_version_1_2(text: str, value: Any) -> None:
    assert read(f"a: {text}".encode(), media="yaml") == {"a": value}


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        pytest.param(b"a: &x [1]\nb: *x", [("/b", "yaml_alias")], id="an alias"),
        pytest.param(b"a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]", [("/b/0", "yaml_alias")], id="a bomb"),
        pytest.param(b"a: &x {b: *x}", [("/a/b", "yaml_alias")], id="a value inside itself"),
        pytest.param(b"*x : 1", [("", "yaml_alias")], id="an alias as a key"),
        pytest.param(b"a: &x {q: 1}\nb:\n  <<: *x", [("/b/<<", "yaml_alias")], id="a merge key"),
        pytest.param(b"a: !!python/object/apply:os.system [x]", [("/a", "yaml_tag")], id="a Python object"),
        pytest.param(b"a: !!binary aGk=", [("/a", "yaml_tag")], id="binary"),
        pytest.param(b"a: !x {}", [("/a", "yaml_tag")], id="a tag on a mapping"),
        pytest.param(b"--- {a: 1}\n--- {b: 2}", [("", "several_documents")], id="two documents"),
        pytest.param(b"1: x", [("", "key_not_text")], id="a number as a key"),
        pytest.param(b"a: {true: x}", [("/a", "key_not_text")], id="a boolean as a key"),
        pytest.param(b"? [a]\n: b", [("", "key_not_text")], id="a list as a key"),
        pytest.param(b"? {a: b}\n: b", [("", "key_not_text")], id="a mapping as a key"),
        pytest.param(b"? \n: b", [("", "key_not_text")], id="no key at all"),
        pytest.param(b"a: .inf", [("/a", "number_not_finite")], id="infinite"),
        pytest.param(b"a: -.Inf", [("/a", "number_not_finite")], id="infinite below zero"),
        pytest.param(b"a: .nan", [("/a", "number_not_finite")], id="not a number"),
        pytest.param(b"a: 0x" + b"F" * 30, [("/a", "number_out_of_range")], id="digits without end"),
        pytest.param(b"a: [", [("", "not_yaml")], id="unfinished"),
        pytest.param(b"a: b: c", [("", "not_yaml")], id="two colons"),
        pytest.param(b"a: @x", [("", "not_yaml")], id="a character that cannot begin anything"),
        pytest.param(b"a: \x01", [("", "not_yaml")], id="a control character"),
        pytest.param(b"a:\n\t- b", [("", "not_yaml")], id="a tabulator"),
        pytest.param(b'a: "\\ud800"', [("", "not_yaml")], id="half a surrogate pair"),
        pytest.param(b"%YAML 1.1\na: 1", [("", "not_yaml")], id="a directive without a document"),
        pytest.param(b"- " * 100_000, [("", "too_deep")], id="a tower of dashes"),
        pytest.param(b"? " * 100_000, [("", "key_not_text")], id="a tower of question marks"),
        pytest.param(b"# nothing\n", [("", "not_an_object")], id="a comment alone"),
    ],
)
def test_what_yaml_refuses(raw: bytes, found: list[tuple[str, str]]) -> None:
    assert problems(raw, "yaml") == found


def test_broken_yaml_names_line_and_column() -> None:
    with pytest.raises(DocumentInvalid, match=r"Line 2, column 3 is not YAML"):
        read(b"a: 1\n b: 2", media="yaml")


@pytest.mark.parametrize("raw", [b"a: [1, {b: yes}]\nc: |\n x", b"a: &x 1\nb: *x", b"a: [", b"1: 2", b"a: \x01"])
def test_the_parser_in_python_answers_like_the_one_in_c(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> Any:
        try:
            return read(raw, media="yaml")
        except DocumentInvalid as wrong:
            return [(problem.pointer, problem.code) for problem in wrong.problems]

    fast = answer()
    monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)
    assert answer() == fast


@given(objects(texts()))
def test_the_hash_does_not_see_the_order_of_keys(value: dict[str, Any]) -> None:
    def turned(inner: Any) -> Any:
        if isinstance(inner, dict):
            return {key: turned(inner[key]) for key in reversed(inner)}
        return [turned(one) for one in inner] if isinstance(inner, list) else inner

    assert content_hash(turned(value)) == content_hash(value)


@pytest.mark.parametrize("other", [{"a": [2, 1]}, {"a": [1, 2], "b": None}, {"a": "12"}, {}])
def test_the_hash_sees_everything_else(other: Mapping[str, Any]) -> None:
    assert content_hash({"a": [1, 2]}) != content_hash(other)


def test_the_hash_is_the_same_everywhere() -> None:
    assert content_hash({"b": "ü", "a": 1}) == "810a43bc0215b9ea42773ffb4fc92c184749b3676b4e3fda524018da652e229f"


def test_values_that_are_not_json_are_told_from_a_python_caller_too() -> None:
    findings = Findings()
    assert not document.sweep({"a": {1, 2}, 3: "x", "b": (2**64,)}, findings)
    assert [(problem.pointer, problem.code) for problem in findings.problems] == [
        ("/3", "key_not_text"),
        ("/a", "not_json"),
        ("/b/0", "number_out_of_range"),
    ]


def test_a_deep_value_of_a_python_caller_is_not_walked_to_its_end() -> None:
    value: Any = {}
    for _ in range(100_000):
        value = {"a" * 10: value}
    findings = Findings()
    assert not document.sweep(value, findings)
    assert [problem.code for problem in findings.problems] == ["too_deep"]
    while value:
        value = value["a" * 10]  # take it apart step by step: freeing it at once would recurse
