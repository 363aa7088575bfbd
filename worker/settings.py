"""What a service tells the agent that it starts; it travels as one JSON argument."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from worker import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The ports that ``http`` tasks reach where nobody says otherwise.
HTTP_PORTS: Final = (80, 443, 8080, 8443)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The settings of one agent; they last as long as its process."""

    home: str
    code_dir: str
    log_dir: str
    task_python: str
    #: What ``http`` tasks may reach besides public addresses, and at which ports (:mod:`worker.guard`).
    http_allow: tuple[str, ...] = ()
    http_ports: tuple[int, ...] = HTTP_PORTS
    #: What the hello says.
    version: str = VERSION
    #: How long an agent without attempts waits for a service, in seconds.
    patience: float = 60.0
    #: Whether it talks to an API over HTTP, and to a feeder over its socket; secrets come over the socket, never here.
    remote: bool = False
    #: A remote agent starts nothing while the disk of its spool has fewer bytes free: ends and logs need room.
    reserve: int = 32 * 1024 * 1024

    @classmethod
    def make(
        cls,
        *,
        home: str,
        code_dir: str,
        log_dir: str,
        task_python: str,
        environ: Mapping[str, str],
        http_allow: Sequence[str] = (),
        http_ports: Sequence[int] = HTTP_PORTS,
    ) -> AgentSettings:
        """Return settings whose version tells agents apart that were started with others.

        An agent that outlives a crash of its service keeps the settings it was started with; the next service sees by
        the version that it wants another agent.
        """
        facts = [home, code_dir, log_dir, task_python, sorted(environ.items()), list(http_allow), list(http_ports)]
        mark = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
        return cls(
            home=home,
            code_dir=code_dir,
            log_dir=log_dir,
            task_python=task_python,
            http_allow=tuple(http_allow),
            http_ports=tuple(http_ports),
            version=f"{VERSION}+{mark}",
        )

    @classmethod
    def make_remote(
        cls,
        *,
        home: str,
        code_dir: str,
        task_python: str,
        environ: Mapping[str, str],
        http_allow: Sequence[str] = (),
        http_ports: Sequence[int] = HTTP_PORTS,
    ) -> AgentSettings:
        """Return the settings of a remote agent; what it logs stays in its home until the API has it."""
        made = cls.make(
            home=home,
            code_dir=code_dir,
            log_dir=f"{home}/agent/logs",
            task_python=task_python,
            environ=environ,
            http_allow=http_allow,
            http_ports=http_ports,
        )
        return replace(made, remote=True, version=f"{made.version}+remote")

    @classmethod
    def read(cls, text: str) -> AgentSettings:
        fields = json.loads(text)
        for name in ("http_allow", "http_ports"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def text(self) -> str:
        return json.dumps(asdict(self))
