from __future__ import annotations

import json
from typing import Any

import pytest

from executors.queues.delivery import pack, unpack
from executors.queues.message import NAME, Hidden, NotOurs, body, read

ATTEMPT = "01a203c8-3a72-7bed-b8bb-8ecb011a1b1f"
TICKET = "rt1.c2VjcmV0"


def test_a_message_says_which_attempt_and_shows_the_ticket() -> None:
    assert read(body(ATTEMPT, TICKET)) == (ATTEMPT, TICKET)
    assert body(ATTEMPT, TICKET) == {"v": 1, "attempt_id": ATTEMPT, "ticket": TICKET}


def test_a_packed_message_is_small_and_has_the_id_of_the_attempt() -> None:
    packed = pack("runyard.default", ATTEMPT, TICKET)
    assert len(packed) < 1024
    assert json.loads(packed)["message_id"] == ATTEMPT
    assert json.loads(packed)["options"]["redis_message_id"] == ATTEMPT
    assert unpack(packed) == (ATTEMPT, TICKET)


def test_a_ticket_that_was_read_is_not_printed() -> None:
    offer = read(body(ATTEMPT, TICKET))
    assert TICKET not in repr(offer)
    assert TICKET not in repr({"ticket": offer.ticket})
    assert "%r" % (Hidden("x"),) == "'***'"  # noqa: UP031  # as libraries do


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        "x",
        {},
        {"v": 2, "attempt_id": ATTEMPT, "ticket": TICKET},
        {"v": True, "attempt_id": ATTEMPT, "ticket": TICKET},
        {"v": "1", "attempt_id": ATTEMPT, "ticket": TICKET},
        {"attempt_id": ATTEMPT, "ticket": TICKET},
        {"v": 1, "attempt_id": ATTEMPT},
        {"v": 1, "attempt_id": 7, "ticket": TICKET},
        {"v": 1, "attempt_id": "../../etc", "ticket": TICKET},
        {"v": 1, "attempt_id": ATTEMPT + "\n", "ticket": TICKET},
        {"v": 1, "attempt_id": ATTEMPT, "ticket": ""},
        {"v": 1, "attempt_id": ATTEMPT, "ticket": "a\r\nHost: b"},
        {"v": 1, "attempt_id": ATTEMPT, "ticket": "x" * 513},
        {"v": 1, "attempt_id": ATTEMPT, "ticket": TICKET, "api_url": "http://elsewhere"},
    ],
)
def test_anything_else_is_no_message(found: Any) -> None:
    with pytest.raises(NotOurs) as caught:
        read(found)
    assert TICKET not in str(caught.value)


@pytest.mark.parametrize(
    "found",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        b'{"actor_name": "other", "kwargs": {}}',
        json.dumps({"actor_name": NAME}).encode(),
        json.dumps({"actor_name": NAME, "kwargs": [1]}).encode(),
        b'{"v": "' + b"x" * 20_000 + b'"}',
    ],
    ids=["empty", "no text", "null", "deep", "another actor", "no arguments", "a list", "large"],
)
def test_what_no_scheduler_has_packed_is_no_message(found: bytes) -> None:
    with pytest.raises(NotOurs):
        unpack(found)
