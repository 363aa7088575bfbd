from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from worker import protocol
from worker.link import Link

if TYPE_CHECKING:
    from worker.protocol import Message

BEAT: Message = {"type": "beat", "ttl": None}
LAUNCH: Message = {"type": "launch", "attempt_id": "a"}
HUGE: Message = {"type": "refused", "attempt_id": "b", "code": "failed", "detail": "x" * protocol.MAX_FRAME}


class Recorder:
    """One side of a connection: what it heard."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.unsendable: list[tuple[Message, str]] = []
        self.why = ""
        self.heard = asyncio.Event()

    def connected(self, _: Link, /) -> None:
        pass

    def received(self, _: Link, /, message: Message) -> None:
        self.messages.append(message)
        self.heard.set()

    def unsent(self, _: Link, /, message: Message, why: str) -> None:
        self.unsendable.append((message, why))

    def lost(self, _: Link, /, why: str) -> None:
        self.why = why


async def test_a_message_that_is_too_large_takes_no_other_one_with_it() -> None:
    loop = asyncio.get_running_loop()
    here, there = Recorder(), Recorder()
    ends = socket.socketpair()
    _, sender = await loop.create_unix_connection(lambda: Link(here), sock=ends[0])
    _, receiver = await loop.create_unix_connection(lambda: Link(there), sock=ends[1])
    for message in (LAUNCH, HUGE, BEAT):
        sender.send(message)
    while len(there.messages) < 2:
        there.heard.clear()
        await asyncio.wait_for(there.heard.wait(), 20)
    there.heard.clear()
    sender.send(BEAT)
    await asyncio.wait_for(there.heard.wait(), 20)
    assert there.messages == [LAUNCH, BEAT, BEAT]
    assert [message for message, _ in here.unsendable] == [HUGE]
    assert here.unsendable[0][1].startswith("refused of b: a frame of 67,108,929 bytes; at most ")
    assert (here.why, there.why) == ("", "")
    sender.abort("the test is over")
    receiver.abort("the test is over")
    await asyncio.sleep(0)
