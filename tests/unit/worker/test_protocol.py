from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from worker import protocol

if TYPE_CHECKING:
    from worker.protocol import Message

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
    ],
)
def test_other_bytes_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(protocol.FrameInvalid, match=why):
        protocol.decode(bytearray(data))
