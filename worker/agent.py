"""The agent: the process that hosts the attempts of one home, in a session of its own.

It outlives a crash of the service that started it, or of its feeder (:mod:`worker.remote`).  One per home: it holds
``agent/lock``, which is free again only when it and its zygote are gone.  It ends when it is drained, and by itself
after a minute without attempts and service.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from worker import environment, linux
from worker.link import Link
from worker.say import say, trim
from worker.settings import AgentSettings
from worker.spool import Spool
from worker.supervise import Supervisor

if TYPE_CHECKING:
    from worker.protocol import Message
    from worker.remote import RemoteAgent

#: How long the lock of a dying predecessor is waited for.
_LOCK_SECONDS: Final = 5.0
#: How long a drained agent waits for the service to note the last ends; they are on disk.
_LAST_ANSWERS: Final = 3.0


class Agent:
    """The connection to the service, and when to end."""

    def __init__(self, supervisor: Supervisor, patience: float) -> None:
        self._supervisor = supervisor
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._last: asyncio.TimerHandle | None = None
        self.over = asyncio.Event()
        supervisor.on_change = self.look

    def connected(self, link: Link) -> None:
        """Take over from an older connection: its service is gone, or will notice."""
        if self._link is not None:
            self._link.abort("another service connected")
        self._link = link
        self._supervisor.asker.send = link.send
        link.send(self._supervisor.hello())
        self.look()

    def received(self, link: Link, message: Message) -> None:
        if link is self._link:
            self._supervisor.receive(message)

    def unsent(self, link: Link, message: Message, why: str) -> None:  # noqa: ARG002  what all peers are told
        """Say what the service will not hear."""
        say(f"a message cannot be sent: {why}")

    def lost(self, link: Link, why: str) -> None:
        if link is self._link:
            self._link = None
            self._supervisor.asker.close()
            say(f"no service: {why}")
            self.look()

    def look(self) -> None:
        """Decide whether it is time to end."""
        quiet = not self._supervisor.busy
        if self._supervisor.draining and quiet:
            if self._supervisor.attempts == 0 or self._link is None:
                self.over.set()
            elif self._last is None:
                self._last = self._loop.call_later(_LAST_ANSWERS, self.over.set)
        if quiet and self._link is None:
            if self._idle is None:
                self._idle = self._loop.call_later(self._patience, self.over.set)
        elif self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def drain(self, grace: float) -> None:
        """Take nothing new, and end when nothing is left."""
        self._supervisor.drain(grace)

    def close(self) -> None:
        if self._link is not None:
            self._link.close()


def main(argument: str) -> int:
    """Be the agent that *argument* describes."""
    settings = AgentSettings.read(argument)
    os.closerange(3, 65536)  # whatever the service inherited from its own parent is not for tasks
    os.umask(0o077)
    if settings.remote:
        linux.hide_memory()  # it will hold secrets, and tasks are processes of the same user
    folder = Path(settings.home) / "agent"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _take_lock(folder / "lock")
    if lock is None:
        say("another agent holds the lock of this home")
        return 3
    os.chdir(folder)  # and not wherever the service was started
    trim()
    linux.become_subreaper()
    agent_id = (folder / "id").read_text().strip()
    killed = linux.kill_marked(f"{environment.MARKER}={agent_id}".encode())
    if killed:
        say(f"killed {killed} processes that a predecessor left behind")
    asyncio.run(_serve(settings, folder, lock, agent_id))
    return 0


async def _serve(settings: AgentSettings, folder: Path, lock: int, agent_id: str) -> None:
    loop = asyncio.get_running_loop()
    spool = Spool(str(folder / "attempts"))
    supervisor = Supervisor(settings, spool, lock, agent_id)
    supervisor.warm_up()
    agent: Agent | RemoteAgent
    if settings.remote:
        from worker.remote import RemoteAgent  # noqa: PLC0415  20 ms and 6 MB that a local agent does without

        agent = RemoteAgent(supervisor, spool, settings, agent_id, _count_boot(folder / "boots"))
    else:
        agent = Agent(supervisor, settings.patience)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.drain, 0.0)
    loop.add_signal_handler(signal.SIGHUP, say, "SIGHUP means nothing to an agent")
    server = await loop.create_unix_server(lambda: Link(agent), sock=_listen(folder))
    agent.look()
    await agent.over.wait()
    server.close()
    with suppress(OSError):
        (folder / "socket").unlink()
    agent.close()
    supervisor.close()
    await asyncio.sleep(0)  # the connection's last bytes


def _count_boot(file: Path) -> int:
    """Return a number that is larger than that of every earlier agent of this home.

    Not the clock alone, which may be set back; nor the file alone, which a crash of the host may set back.
    """
    try:
        last = int(file.read_text())
    except (OSError, ValueError):
        last = 0
    number = max(last + 1, int(time.time()))
    new = file.with_suffix(".new")
    with suppress(OSError):  # a full disk is no reason not to start
        new.write_text(f"{number}\n")
        new.replace(file)
    return number


def _take_lock(file: Path) -> int | None:
    lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return None
            time.sleep(0.01)
        else:
            return lock


def _listen(folder: Path) -> socket.socket:
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            os.unlink("socket", dir_fd=directory)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A UNIX address holds 107 bytes; a home may be longer than that.
        listener.bind(f"/proc/self/fd/{directory}/socket")
        os.chmod("socket", 0o600, dir_fd=directory)
        listener.listen(16)
        listener.setblocking(False)  # noqa: FBT003  the only parameter it has
    finally:
        os.close(directory)
    return listener
