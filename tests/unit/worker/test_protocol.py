from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.unit.worker.bodies import a_body
from worker import protocol

if TYPE_CHECKING:
    from worker.protocol import Message, Refused

LAUNCH: Message = {"type": "launch", "attempt_id": "a"}
BEAT: Message = {"type": "beat", "ttl": None}


def test_frames_that_arrive_byte_by_byte_come_out_once_and_in_order() -> None:
    data = protocol.encode([LAUNCH, BEAT]) + protocol.encode([]) + protocol.encode([LAUNCH])
    buffer = bytearray()
    found: list[Message] = []
    for byte in data:
        buffer.append(byte)
        found += protocol.decode(buffer)
    assert found == [LAUNCH, BEAT, LAUNCH]
    assert not buffer


def test_a_frame_that_is_not_whole_stays_in_the_buffer() -> None:
    data = protocol.encode([LAUNCH])
    buffer = bytearray(data + data[:-1])
    assert protocol.decode(buffer) == [LAUNCH]
    assert buffer == data[:-1]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        pytest.param(b"\xff\xff\xff\xff", "at most", id="longer than any frame"),
        pytest.param(b"\0\0\0\2[,", "not JSON", id="no JSON"),
        pytest.param(b"\0\0\0\2\xff\xfe", "not JSON", id="no UTF-8"),
        pytest.param(b"\0\0\0\2{}", "not a list", id="no list"),
        pytest.param(b"\0\3\x0d\x40" + b"[" * 200_000, "nests too deeply", id="200,000 levels"),
    ],
)
def test_other_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(protocol.FrameInvalid, match=why):
        protocol.decode(bytearray(data))


def test_a_frame_that_the_other_side_would_refuse_is_not_made() -> None:
    huge: Message = {"type": "refused", "attempt_id": "0190-a", "code": "failed", "detail": "x" * protocol.MAX_FRAME}
    with pytest.raises(protocol.FrameInvalid) as caught:
        protocol.encode([huge])
    assert str(caught.value) == "refused of 0190-a: a frame of 67,108,934 bytes; at most 67,108,864 are accepted"
    with pytest.raises(protocol.FrameInvalid, match="2 messages: a frame of"):
        protocol.encode([BEAT, huge])


def test_a_frame_of_exactly_the_cap_is_made_and_read() -> None:
    fits: Refused = {"type": "refused", "attempt_id": "a", "code": "failed", "detail": ""}
    room = protocol.MAX_FRAME - (len(protocol.encode([fits])) - 4)
    fits["detail"] = "x" * room
    assert protocol.decode(bytearray(protocol.encode([fits]))) == [fits]


def test_a_message_that_nests_too_deeply_is_refused_by_name() -> None:
    value: Any = None
    for _ in range(100_000):
        value = [value]
    with pytest.raises(protocol.FrameInvalid, match="task of 0190-a: cannot be JSON: "):
        protocol.encode([{"type": "task", "attempt_id": "0190-a", "body": a_body(args=[value])}])
