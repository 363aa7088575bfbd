from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from dag.states import RunState, TaskState
from runyard import show

EVIL = "a\x1b]0;owned\x07b\x1b[2Jc\x9bd\x00e\x1b[31mred\x1b[0m"


def test_ids_and_reasons_cannot_drive_a_terminal() -> None:
    assert not any(ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 for letter in show.plain(EVIL))


def test_a_log_keeps_its_colours_and_nothing_else_that_a_terminal_obeys() -> None:
    assert show.Screen().clean(EVIL) == "a\\x1b]0;owned\\x07b\\x1b[2Jc\\x9bd\\x00e\x1b[31mred\x1b[0m"


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_colour_survives_being_cut_between_two_pieces(cut: int) -> None:
    text = "x\x1b[1;31mred\x1b[0m!"
    screen = show.Screen()
    assert screen.clean(text[:cut]) + screen.clean(text[cut:]) == text


def test_an_escape_cannot_hide_in_a_cut() -> None:
    text = "\x1b]0;t\x07"
    for cut in range(len(text)):
        screen = show.Screen()
        assert "\x1b" not in screen.clean(text[:cut]) + screen.clean(text[cut:])


def test_line_ends_and_tabs_stay() -> None:
    assert show.Screen().clean("a\tb\r\nc\n") == "a\tb\r\nc\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "12 ms"), (1.25, "1.2 s"), (75, "1 min 15 s"), (3661, "1 h 01 min")],
    ids=str,
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert show.duration(seconds) == said


def test_a_table_in_a_pipe_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    items: list[dict[str, Any]] = [{"id": "x" * 250, "state": "running"}, {"id": "[bold]y[/]", "state": None}]
    show.table(items, [("ID", lambda one: one["id"]), ("STATE", lambda one: one["state"])], "nothing")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["ID", "STATE"], ["x" * 250, "running"], ["[bold]y[/]", "-"]]


def test_an_empty_table_says_what_to_do_beside_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    show.table([], [("ID", lambda one: one)], "There are none.")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "There are none.\n")


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    show.as_json({"a": "ü\x1b"})
    out = capsys.readouterr().out
    assert json.loads(out) == {"a": "ü\x1b"}
    assert "\x1b" not in out


def test_every_state_that_can_be_seen_has_a_colour() -> None:
    assert set(itertools.chain(TaskState, RunState)) <= show.STYLES.keys()
