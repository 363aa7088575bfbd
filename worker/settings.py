"""What a service tells the agent that it starts; it travels as one JSON argument."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from worker import VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """The settings of one agent; they last as long as its process."""

    home: str
    code_dir: str
    log_dir: str
    task_python: str
    #: What the hello says.
    version: str = VERSION
    #: How long an agent without attempts waits for a service, in seconds.
    patience: float = 60.0

    @classmethod
    def make(
        cls, *, home: str, code_dir: str, log_dir: str, task_python: str, environ: Mapping[str, str]
    ) -> AgentSettings:
        """Return settings whose version tells agents apart that were started with others.

        An agent that outlives a crash of its service keeps the settings it was started with; the next service sees by
        the version that it wants another agent.
        """
        facts = [home, code_dir, log_dir, task_python, sorted(environ.items())]
        mark = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
        return cls(home=home, code_dir=code_dir, log_dir=log_dir, task_python=task_python, version=f"{VERSION}+{mark}")

    @classmethod
    def read(cls, text: str) -> AgentSettings:
        return cls(**json.loads(text))

    def text(self) -> str:
        return json.dumps(asdict(self))
