"""The service's side of an agent: one connection a home, kept up, shared by the executors that use it.

What is known about placements is what the agent said in its hello plus what was sent and answered since, on this
ordered connection; so ``observe`` asks nobody.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from dag.errors import Unavailable
from executors import spawn
from executors.base import Phase
from worker import linux
from worker.link import Link
from worker.protocol import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from dag.ids import AttemptId
    from executors.base import Context
    from worker.protocol import Finish, Hello, Message, Start
    from worker.settings import AgentSettings

log = structlog.get_logger(__name__)

_PHASES: Final = {"starting": Phase.PENDING, "running": Phase.RUNNING, "ended": Phase.EXITED}
_FIRST_PAUSE: Final = 0.004
_LONGEST_PAUSE: Final = 1.0
#: A spawned agent that has not taken the lock by then is not going to.
_BOOT_SECONDS: Final = 15.0
#: How long tasks of an agent that speaks another protocol get to end by themselves.
_REPLACE_GRACE: Final = 10.0
#: How long a stop waits for an agent that is just being started.
_GREETING_SECONDS: Final = 2.0
#: What an agent needs beyond the drain: SIGTERM, its grace, SIGKILL, the last answers.
_DRAIN_MARGIN: Final = 7.0


class User(Protocol):
    """An executor that places through the agent."""

    slots: int | None


class AgentClient:
    """The connection to the agent of one home."""

    def __init__(self, home: Path, settings: AgentSettings, environ: Mapping[str, str]) -> None:
        self._home = home
        self._settings = settings
        self._environ = environ
        self._loop = asyncio.get_running_loop()
        self._users: dict[User, Context] = {}
        self._link: Link | None = None
        self._hello: Hello | None = None
        self._replacing = False
        self._stopping = False
        self._lost = asyncio.Event()
        self._greeted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._child = 0
        self._spawned_at = 0.0
        self._phases: dict[str, Phase] = {}
        self._owners: dict[str, User] = {}
        self._calls: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._lease_until: float | None = None
        self._leased = False
        #: How many leases ran out before they were renewed.
        self._lapses = 0
        self.why_down = "the agent is being started"

    @property
    def users(self) -> int:
        return len(self._users)

    @property
    def boot_id(self) -> str | None:
        """Which agent answers; None while there is none to place anything with."""
        return self._hello["boot_id"] if self._hello is not None and not self._replacing else None

    def attach(self, user: User, context: Context) -> None:
        """Serve *user* too; the first one brings the connection up, in the background."""
        self._users[user] = context
        if self._keeper is None:
            self._try_to_connect()  # now, so that an agent starts while the service does
            self._keeper = self._loop.create_task(self._keep())

    async def detach(self, user: User, drain: timedelta) -> None:
        """Serve *user* no more; with the last one the agent is drained, and ends."""
        if len(self._users) > 1:
            del self._users[user]
            return
        if self._hello is None and (self._child or spawn.is_alive(self._home)):
            with suppress(TimeoutError):  # it is on its way: then it can be told how long its tasks have
                await asyncio.wait_for(self._greeted.wait(), _GREETING_SECONDS)
        self._stopping = True
        if self._link is not None and self._hello is not None:
            self._link.send({"type": "drain", "grace": drain.total_seconds()})
            try:
                await asyncio.wait_for(self._lost.wait(), drain.total_seconds() + _DRAIN_MARGIN)
            except TimeoutError:
                log.warning("the agent did not end in time; it goes on by itself", home=str(self._home))
        elif self._child:
            spawn.terminate(self._child)
        await self._close()
        self._users.pop(user, None)

    async def _close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._link is not None:
            self._link.abort("the service stops")
        for call in list(self._calls.values()):
            call.cancel()
        if self._child:
            for _ in range(100):
                if spawn.has_ended(self._child):
                    break
                await asyncio.sleep(0.01)

    def abandon(self) -> None:
        """Let go of everything as a crash would: no drain, nothing said."""
        self._stopping = True
        if self._keeper is not None:
            self._keeper.cancel()
        if self._link is not None:
            self._link.abort("abandoned")
        for call in list(self._calls.values()):
            call.cancel()
        self._users.clear()

    # Placements

    def place(self, attempt_id: AttemptId, user: User, *, started: bool = False) -> bool:
        """Launch an attempt; False where no slot is free for one that is not *started*."""
        if attempt_id in self._phases:
            self._owners.setdefault(attempt_id, user)
            return True
        active = [a for a, phase in self._phases.items() if phase in (Phase.PENDING, Phase.RUNNING)]
        own = sum(self._owners.get(a) is user for a in active)
        room = sum(each.slots or 0 for each in self._users)
        # Who has no slot gets nothing new: what comes all the same was started under another one, and counts there.
        if user.slots and not started and (own >= user.slots or len(active) >= room):
            return False
        self._phases[attempt_id] = Phase.PENDING
        self._owners[attempt_id] = user
        self._send({"type": "launch", "attempt_id": attempt_id})
        return True

    def cancel(self, message: Message) -> None:
        self._send(message)

    def phase(self, attempt_id: AttemptId, user: User) -> Phase:
        if self.boot_id is None:
            return Phase.UNKNOWN
        found = self._phases.get(attempt_id, Phase.GONE)
        if found is not Phase.GONE:
            self._owners.setdefault(attempt_id, user)
        return found

    def renew(self, ttl: timedelta | None) -> None:
        """Tell the agent how long its lease holds; a later connection is told what is left of it."""
        self._leased = True
        if self._lease_until is not None and self._now() >= self._lease_until:
            self._lapses += 1
        self._lease_until = None if ttl is None else self._now() + ttl.total_seconds()
        self._send_beat()

    def _send_beat(self) -> None:
        if self._leased:
            if self._lease_until is None:
                self._send({"type": "beat", "ttl": None})
                return
            left = max(0.0, self._lease_until - self._now())
            self._send({"type": "beat", "ttl": left, "until": linux.boottime() + left})

    def _now(self) -> float:
        return next(iter(self._users.values())).clock.monotonic()

    def _send(self, message: Message) -> None:
        if self._link is not None and self._hello is not None:
            self._link.send(message)

    def _remove(self, attempt_id: str) -> None:
        self._phases.pop(attempt_id, None)
        self._owners.pop(attempt_id, None)
        if not self._phases and not self._replacing and self._hello is not None and self._is_foreign(self._hello):
            self._replace(0)

    # Messages

    def connected(self, link: Link) -> None:
        self._link = link

    def received(self, link: Link, message: Message) -> None:
        if link is not self._link:
            return
        match message["type"]:
            case "hello":
                self._greet(message)
            case "start" | "finish":
                self._call(message)
            case other:
                log.error("a message that no agent sends", type=other)

    def unsent(self, link: Link, message: Message, why: str) -> None:  # noqa: ARG002  what all peers are told
        """Say what the agent will not hear; it asks again for what it misses."""
        log.error("a message to the agent cannot be sent", type=message["type"], error=why)

    def lost(self, link: Link, why: str) -> None:
        if self._link is link or self._link is None:
            self._link = None
            self._hello = None
            self._greeted.clear()
            self._replacing = False
            self._phases.clear()
            self._owners.clear()
            self.why_down = f"the connection to the agent was lost: {why}"
            self._lost.set()

    def _greet(self, hello: Hello) -> None:
        assert self._link is not None  # noqa: S101  it came over it
        self._hello = hello
        self._greeted.set()
        self._phases = {held["attempt_id"]: _PHASES[held["phase"]] for held in hello["attempts"]}
        self._link.send({"type": "welcome", "protocol": PROTOCOL, "version": self._settings.version})
        if hello["protocol"] != PROTOCOL:
            self._replace(_REPLACE_GRACE)
        elif self._is_foreign(hello) and not self._phases:
            self._replace(0)
        else:
            if self._is_foreign(hello):
                log.warning(
                    "the agent is of another release or settings", agent=hello["version"], ours=self._settings.version
                )
            log.info("agent connected", pid=hello["pid"], boot_id=hello["boot_id"], attempts=len(self._phases))
            self._send_beat()
            for context in self._users.values():
                context.wake()

    def _is_foreign(self, hello: Hello) -> bool:
        """Whether the agent is of another release or was started with other settings; used until it is idle."""
        return hello["version"] != self._settings.version

    def _replace(self, grace: float) -> None:
        """Have the agent end; the keeper starts ours when it is gone."""
        assert self._link is not None  # noqa: S101  there is one to replace
        log.warning("the agent is replaced", agent=self._hello and self._hello["version"], ours=self._settings.version)
        self._replacing = True
        self.why_down = "an agent of another release or with other settings is being replaced"
        self._link.send({"type": "drain", "grace": grace})

    def _call(self, message: Start | Finish) -> None:
        key = (message["type"], message["attempt_id"])
        if key in self._calls or self._hello is None or self._hello["protocol"] != PROTOCOL:
            return
        if message["type"] == "finish":
            self._phases[message["attempt_id"]] = Phase.EXITED
        call = self._loop.create_task(self._ask_door(message, self._hello["boot_id"]))
        self._calls[key] = call
        call.add_done_callback(lambda _: self._calls.pop(key, None))

    async def _ask_door(self, message: Start | Finish, boot_id: str) -> None:
        door = next(iter(self._users.values())).door
        placed_on = self._hello["agent_id"] if self._hello is not None else ""
        lapses = self._lapses
        try:
            if message["type"] == "start":
                answers = await door.start(message, placed_on)
            else:
                answers = await door.finish(message, placed_on)
        except Unavailable as error:
            log.warning("metastore unavailable", asked=message["type"], attempt=message["attempt_id"], error=str(error))
            return
        except Exception:
            # One broken row must not end the service of the others; the agent asks again.
            log.exception("an agent's question failed", asked=message["type"], attempt=message["attempt_id"])
            return
        if self._hello is None or self._hello["boot_id"] != boot_id:
            return  # a task that was started for one agent must never reach another
        if self._lapses != lapses:
            # What was started under a lease that is over may run elsewhere by now: the next start says whether it does.
            answers = [answer for answer in answers if answer["type"] != "task"]
        for answer in answers:
            self._note(answer, message["attempt_id"])
            self._send(answer)

    def _note(self, answer: Message, asked_for: str) -> None:
        match answer["type"]:
            case "task":
                attempt_id = answer["attempt_id"]
                if self._phases.get(attempt_id) is not Phase.EXITED:
                    self._phases[attempt_id] = Phase.RUNNING
                if asked_for in self._owners:
                    self._owners.setdefault(attempt_id, self._owners[asked_for])
            case "refused" | "finished":
                self._remove(answer["attempt_id"])
            case "cancel":
                pass  # it goes to the agent before the task that it is about
            case other:
                log.error("no answer of a door", type=other)

    # Staying connected

    async def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping:
            if self._link is not None:
                await self._lost.wait()
                pause = _FIRST_PAUSE
                continue
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _LONGEST_PAUSE)
            self._try_to_connect()

    def _try_to_connect(self) -> None:
        """One step: connect, or see that nobody is there and start an agent."""
        self._lost.clear()
        try:
            end = spawn.connect(self._home)
        except OSError as error:
            self._spawn_if_needed(error)
            return
        # Accepted already: what is left is to hand the socket to the loop.
        self._link = Link(self)
        self._connecting = self._loop.create_task(self._adopt(end, self._link))

    async def _adopt(self, end: Any, link: Link) -> None:
        try:
            await self._loop.create_unix_connection(lambda: link, sock=end)
        except OSError as error:
            end.close()
            self.lost(link, str(error))

    def _spawn_if_needed(self, error: OSError) -> None:
        if self._child:
            if spawn.has_ended(self._child):
                self.why_down = "the agent ended while it started; see agent/agent.log in the home folder"
                self._child = 0
            elif self._now() - self._spawned_at < _BOOT_SECONDS:
                return
        if spawn.is_alive(self._home):
            self.why_down = f"an agent holds the lock but does not answer: {error.strerror}"
            return
        if self._now() - self._spawned_at < 1.0 and self._spawned_at:
            return  # it ended at once; no faster than one a second
        self._spawned_at = self._now()
        try:
            self._child = spawn.spawn(self._settings, self._environ)
        except OSError as failure:
            self.why_down = f"no agent can be started: {failure}"
            log.exception("no agent can be started", home=str(self._home))
