"""The agent of a worker on another machine: a feeder on its socket, the API over HTTP.

It has the same supervisor as a local agent.  What the service says there over the socket comes here as answers of
calls; the socket leads to the feeder, which brings what a broker delivers and is told when a message is done with.

What holds, whatever fails:

- an end is on disk before it is sent, and is sent until the API has answered it, by a later agent if need be;
- a task whose agent lost contact for longer than its lease is killed, unless it asked to go on;
- without a feeder nothing new is started, what runs goes on, and the agent ends soon after the last end is sent; with
  ends left that the API does not take it ends after ``patience``: they are on disk;
- a drained agent says farewell, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any, Final

from worker.bundles import Bundles
from worker.calls import Calls
from worker.delivery import Delivery
from worker.departure import Departure
from worker.http_door import Lane, Site, UrlInvalid, is_fit
from worker.offers import Offers, secret
from worker.protocol import PROTOCOL
from worker.pulse import Identity, Pulse
from worker.say import say, trim
from worker.shipper import Shipper

if TYPE_CHECKING:
    from worker.http_door import Outage
    from worker.link import Link
    from worker.protocol import Configure, Hello, Message, Standing
    from worker.pulse import Directive
    from worker.settings import AgentSettings
    from worker.spool import Spool
    from worker.supervise import Supervisor

#: Connections to the API: for starts and finishes, and for logs, which must not be in their way.
_CALLS: Final = 6
_UPLOADS: Final = 2
#: How long an agent without a feeder stays when nothing is left to do.
_LINGER: Final = 3.0
#: How long a drained agent tries to send the last ends, and the last logs where there is contact; they are on disk.
_LAST_ANSWERS: Final = 10.0
_LAST_LOGS: Final = 60.0
#: How often calls are looked at that take too long.
_WATCH: Final = 10.0
#: How long an offer that the API does not want here waits before it is somebody else's, so that it does not spin.
_CORDON: Final = 1.0
#: How many directives are remembered.
_TOLD: Final = 1000


class RemoteAgent:
    """The connection to the feeder, what the API knows, and when to end."""

    def __init__(  # what it is made of
        self, supervisor: Supervisor, spool: Spool, settings: AgentSettings, worker_id: str, boot_number: int
    ) -> None:
        self._supervisor = supervisor
        self._spool = spool
        self._patience = settings.patience
        self._loop = asyncio.get_running_loop()
        self._link: Link | None = None
        self._is_fed = False
        self._lanes = [
            Lane(self._loop, "pulse", 1),
            Lane(self._loop, "calls", _CALLS),
            Lane(self._loop, "logs", _UPLOADS),
        ]
        self._bundles = Bundles(self._loop, self._lanes[1])
        self._calls = Calls(self._loop, self._bundles, self._note_outage)
        self._uploads = Calls(self._loop, self._lanes[2], self._note_outage)
        identity = Identity(worker_id=worker_id, boot_id=supervisor.boot_id, boot_number=boot_number, token=secret())
        self._pulse = Pulse(self._loop, self._lanes[0], identity, self)
        self._shipper = Shipper(self._uploads, self._whole)
        self._delivery = Delivery(supervisor.boot_id, spool, self._calls, self._shipper, self.settled)
        self._offers = Offers(supervisor, spool, self._calls, self, settings.reserve)
        self.worker_id = worker_id
        self.slots = 0
        self._outage = ""
        #: Why it cannot work as it is configured, why the spool cannot be written, who else has its id; "" is well.
        self._misfit = ""
        self._hindrance = ""
        self._successor = ""
        #: Whether the API wants nothing new to start here.
        self._is_cordoned = False
        self._told: dict[str, str] = {}
        self._status: tuple[Standing, str] = ("registering", "")
        self._departure = Departure(self._loop, self._leave)
        self._is_leaving = False
        self.over = asyncio.Event()
        supervisor.asker.send = self._ask
        supervisor.asker.repeats = False
        supervisor.on_change = self.look

    # The feeder

    def connected(self, link: Link) -> None:
        """Take over from an older connection: its feeder is gone, or will notice."""
        if self._link is not None:
            self._link.abort("another feeder connected")
            self._link = None
            self._offers.drop()
        self._link = link
        link.send(self._hello())
        self.look()

    def received(self, link: Link, message: Message) -> None:
        if link is not self._link:
            return
        match message["type"]:
            case "welcome":
                if message["protocol"] != PROTOCOL:
                    say(f"the feeder speaks protocol {message['protocol']}, this agent {PROTOCOL}")
            case "configure":
                self._configure(message)
            case "launch":
                self._launch(message["attempt_id"], message.get("ticket", ""))
            case "drain":
                self.drain(message["grace"])
            case other:
                say(f"a message of type {other!r} is not for a remote agent")

    def unsent(self, link: Link, message: Message, why: str) -> None:  # noqa: ARG002  what all peers are told
        """Say what the feeder will not hear."""
        say(f"a message cannot be sent: {why}")

    def lost(self, link: Link, why: str) -> None:
        if link is not self._link:
            return
        self._link = None
        self._is_fed = False
        say(f"no feeder: {why}")
        self._offers.drop()  # the broker delivers them again
        self._pulse.nudge()
        self.look()

    def _hello(self) -> Hello:
        hello = self._supervisor.hello()
        hello["attempts"] = [held for held in hello["attempts"] if not self._delivery.is_settled(held["attempt_id"])]
        return hello

    def _configure(self, message: Configure) -> None:
        try:
            site = Site.parse(message["api_url"])
        except UrlInvalid as error:
            self._misfit = str(error)
        else:
            self._misfit = "" if is_fit(message["api_key"]) else "RUNYARD_API_KEY holds characters that no key has"
        self._is_fed = True
        if self._misfit:
            self._tell(again=True)
            return
        is_first = not self.slots
        for lane in self._lanes:
            lane.aim(site)
        self._bundles.aim(message["api_key"])
        self.slots = max(message["slots"], 1)
        fields = {
            "name": message["name"],
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "executor": message["executor"],
            "queues": message["queues"],
            "slots": self.slots,
        }
        self._pulse.configure(message["api_key"], fields)
        if is_first:
            self._supervisor.asker.open()
            for attempt_id, key in self._spool.orphans().items():
                self._shipper.adopt(attempt_id, key, self._spool.log(attempt_id))
            self._loop.call_later(_WATCH, self._watch)
        self._tell(again=True)
        self._offers.admit()

    def _launch(self, attempt_id: str, ticket: str) -> None:
        if self._delivery.is_settled(attempt_id):
            self.settled(attempt_id)
        elif attempt_id in self._supervisor.held:
            pass  # the feeder hears of its end
        elif self._supervisor.has_run(attempt_id):
            self.settled(attempt_id)
        elif self._supervisor.draining or self._successor:
            pass  # the next agent of this home is asked again
        elif self._is_cordoned:
            self._loop.call_later(_CORDON, self.dropped, attempt_id)
        else:
            self._offers.add(attempt_id, ticket)

    def drain(self, grace: float) -> None:
        """Take nothing new, stop what runs after *grace* seconds, send the ends, say farewell."""
        self._supervisor.drain(grace)
        self._offers.drop()
        self._pulse.nudge()
        self._tell()
        self.look()

    def _send(self, message: Message) -> None:
        if self._link is not None:
            self._link.send(message)

    def _tell(self, *, again: bool = False) -> None:
        """Tell the feeder how it stands, if it does not know."""
        status = self._standing()
        if status != self._status:
            say(": ".join(filter(None, status)))
        elif not again:
            return
        self._status = status
        self._send({"type": "status", "state": status[0], "detail": status[1]})

    def _standing(self) -> tuple[Standing, str]:
        if self._misfit:
            return "refused", self._misfit
        if self._successor:
            return "refused", f"another worker has this one's id, maybe on a copy of its home: {self._successor}"
        if self._supervisor.draining:
            return "draining", "it was told to drain"
        state, detail = self._pulse.standing
        if state == "serving" and (self._hindrance or self._is_cordoned):
            return "draining", self._hindrance or "the API wants nothing to start here"
        return state, detail

    # Attempts

    def _ask(self, message: Message) -> None:
        """Take what the supervisor asks of the API."""
        if message["type"] == "start":
            self._offers.ask(message["attempt_id"])
        elif message["type"] == "finish":
            self._delivery.take(message)

    def has_contact(self) -> bool:
        """Whether the API knows this worker, and a start that is won is not killed at once."""
        return self._pulse.is_registered and not self._supervisor.is_fenced

    def may_start(self) -> bool:
        """Whether anything new may be asked for."""
        return self.has_contact() and not self._supervisor.draining

    def started(self) -> None:
        self._shipper.watch(self._supervisor.held)

    def settled(self, attempt_id: str) -> None:
        self._send({"type": "done", "attempt_id": attempt_id})
        self.look()

    def dropped(self, attempt_id: str) -> None:
        self._send({"type": "dropped", "attempt_id": attempt_id})

    def unknown(self) -> None:
        self._pulse.register()

    def hindered(self, why: str) -> None:
        self._hindrance = why
        self._tell()
        self._pulse.nudge()

    def _whole(self, attempt_id: str) -> None:
        """The API has everything of an attempt."""
        self._told.pop(attempt_id, None)
        if attempt_id in self._supervisor.held:
            self._supervisor.receive({"type": "finished", "attempt_id": attempt_id, "accepted": True})
        else:
            self._supervisor.dismiss(attempt_id)
        self.look()

    # The API

    def attempts(self) -> list[dict[str, Any]]:
        """Return what is held, as a beat says it.

        What was told to stop is said to be stopping even if it has ended by itself, or was never here: otherwise the
        API would tell it again at once.
        """
        held = self._supervisor.held
        listed = [
            {"attempt_id": one.attempt_id, "phase": one.phase, "stopping": self._told.get(one.attempt_id)}
            for one in held.values()
        ]
        strangers = [
            {"attempt_id": attempt_id, "phase": "ended", "stopping": reason}
            for attempt_id, reason in self._told.items()
            if attempt_id not in held
        ]
        return listed + strangers

    def takes_nothing(self) -> bool:
        return not self._is_fed or self._supervisor.draining or self._is_cordoned or bool(self._hindrance)

    def beaten(self, ttl: float, directives: list[Directive], *, drain: bool) -> bool:
        """The lease holds for *ttl* seconds; follow what is told, and say whether any of it is new."""
        was_fenced = self._supervisor.is_fenced
        self._supervisor.receive({"type": "beat", "ttl": ttl})
        if was_fenced:
            self._hurry()
        news = [one for one in directives if self._told.get(one.attempt_id) != one.reason]
        for one in news:
            self._told[one.attempt_id] = one.reason
            if len(self._told) > _TOLD:
                del self._told[next(iter(self._told))]
            self._supervisor.receive(
                {"type": "cancel", "attempt_id": one.attempt_id, "reason": one.reason, "grace": one.grace}
            )
        if drain != self._is_cordoned:
            self._is_cordoned = drain
            if drain:
                self._offers.drop()
            self._tell()
            self._pulse.nudge()
        return bool(news)

    def superseded(self, why: str) -> None:
        """Another agent has this one's id: whatever runs here was given up, and runs there.

        It stays while its feeder does, doing nothing: a new one would take the id back, and so on for ever.  A feeder
        that is told so ends, and whoever starts it again, in his own time, has the id taken back.
        """
        if not self._successor:
            self._successor = why
            self._pulse.stop()
            self._offers.drop()
            self._supervisor.give_up()
            self._tell()
            self.look()

    def stands(self) -> None:
        """The standing changed."""
        self._tell()
        if self._pulse.standing[0] == "serving":
            self._outage = ""
            self._hurry()
        self.look()

    def _hurry(self) -> None:
        """There is contact again."""
        self._calls.hurry()
        self._uploads.hurry()
        self._offers.admit()

    def _note_outage(self, outage: Outage) -> None:
        if outage.why != self._outage:
            self._outage = outage.why
            say(f"no answer: {outage.why}; it is asked again")

    def _watch(self) -> None:
        for lane in self._lanes:
            lane.cancel_overdue()
        trim()
        self._loop.call_later(_WATCH, self._watch)

    # Ending

    def look(self) -> None:
        """Give free slots away, and decide whether it is time to end."""
        if self._is_leaving:
            return
        self._offers.admit()
        phases = {attempt.phase for attempt in self._supervisor.held.values()}
        # What may have been started and was not answered is no reason to stay for ever: the next agent's boot ends it.
        is_quiet = "running" not in phases
        is_sent = "starting" not in phases and not len(self._delivery) and not self._shipper.is_busy
        if not is_quiet or not (self._supervisor.draining or self._link is None):
            self._departure.put_off()
        elif self._successor:
            # Before its feeder is started again: the next agent has another boot.
            self._departure.set_for("superseded", 0)
        elif self._supervisor.draining and is_sent:
            self._departure.set_for("drained", 0)
        elif self._supervisor.draining and self._pulse.standing[0] == "serving":
            self._departure.set_for("draining", _LAST_LOGS)
        elif self._supervisor.draining:
            self._departure.set_for("draining without an API", _LAST_ANSWERS)
        elif is_sent and self.slots:
            self._departure.set_for("idle", min(_LINGER, self._patience))
        else:
            self._departure.set_for("alone", self._patience)

    def _leave(self) -> None:
        self._is_leaving = True
        self._pulse.leave(self.over.set)

    def close(self) -> None:
        """Let the connections go."""
        if self._link is not None:
            self._link.close()
        for lane in self._lanes:
            lane.close()
