"""Schemathesis against a target: every phase, every check, and what of its findings is none.

Ids that it draws are nobody's, so most of them are replaced by those of what is there, in a way that depends on the
drawn id only: a found case can be repeated.  Whatever a call consumes (a DAG that is deleted, an attempt that is
finished) is made for it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import schemathesis
from schemathesis import hooks
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from api.dependencies import INTEGER
from api.schemas.worker import ATTEMPT_ID, WORKER_ID
from dag.ids import is_id, is_task_id
from tests.attack.excused import excuse
from tests.attack.links import linked
from tests.attack.target import KEY, NOWHERE, PAST, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from schemathesis import Case, HookContext
    from schemathesis.core.failures import Failure
    from schemathesis.core.transport import Response

    from tests.attack.target import Target

PHASES: Final = ("examples", "coverage", "fuzzing", "stateful")
#: All of them; ``object_level_authorization`` needs two users, and is what the matrix is about.
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
    "use_after_free",
    "ensure_resource_availability",
)
#: The longest a call may wait for something that does not come.
_PATIENCE: Final = 0.02
_HEX: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
#: What a parameter of a path has to look like to be replaced: never make right what was drawn to be wrong.
_FORMS: Final[dict[str, Callable[[str], object]]] = {
    "dag_id": is_id,
    "run_id": is_id,
    "task_id": is_task_id,
    "key_id": is_id,
    "worker_id": _HEX.fullmatch,
    "attempt_id": _UUID.fullmatch,
}
#: The ids that the document has for an example: they come in every call that another parameter is tried in.
_EXAMPLES: Final = frozenset({"dice", "monday", "roll", "c5hw3zrkqk6q7m2a", WORKER_ID, ATTEMPT_ID})


@dataclass
class Report:
    """What was sent, what came back, and what is wrong with it."""

    requests: int = 0
    phases: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    #: Of each operation the successes, which only who knows what is there can have.
    successes: Counter[str] = field(default_factory=Counter)
    operations: set[str] = field(default_factory=set)
    excused: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, str | None, int], str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def note(self, event: events.ScenarioFinished) -> None:
        recorder = event.recorder
        for interaction in recorder.interactions.values():
            self.requests += 1
            self.phases[event.phase.value] += 1
            if interaction.response is None:
                self.errors.append(f"no answer: {interaction.request.method} {interaction.request.uri}")
            else:
                self.statuses[interaction.response.status_code] += 1
        for case_id, node in recorder.cases.items():
            label = node.value.operation.label
            self.operations.add(label)
            interaction_ = recorder.interactions.get(case_id)
            if (
                interaction_ is not None
                and interaction_.response is not None
                and interaction_.response.status_code < 300
            ):
                self.successes[label] += 1
        for case_id, checks in recorder.checks.items():
            for check in checks:
                self.checks[check.name] += 1
                if check.failure_info is not None:
                    answer = recorder.interactions[case_id].response if case_id in recorder.interactions else None
                    status = 0 if answer is None else answer.status_code
                    body = b"" if answer is None else answer.content or b""
                    found = check.failure_info.failure
                    self.findings.setdefault(
                        (check.name, found.operation, status),
                        f"{event.phase.value}: {found.title}: {found.message}\n"
                        f"{check.failure_info.code_sample[:2000]}\n{body[:600]!r}",
                    )

    def __str__(self) -> str:
        lines = [f"{self.requests} requests: {dict(self.phases)}, {dict(sorted(self.statuses.items()))}"]
        lines += [f"excused {number} times: {why}" for why, number in self.excused.most_common()]
        lines += [f"{what}\n{says}" for what, says in self.findings.items()]
        return "\n".join([*lines, *self.errors])


class Assault:
    """One run of schemathesis."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._report = Report()

    def run(self, examples: int, seed: int, phases: tuple[str, ...] = PHASES) -> Report:
        """Attack with so many *examples* of each operation in the phases that draw at random."""
        schema = schemathesis.openapi.from_dict(
            linked(self._target.api.app.openapi()),
            config=SchemathesisConfig.from_dict(self._config(examples, seed, phases)),
        )

        # Hooks are marked, and methods cannot be; those before a call are of the whole process.
        def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
            del context, kwargs
            self._aim(case)

        @schema.hook
        def filter_failure(context: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
            del context
            return self._judge(failure, case, response)

        schemathesis.hook(before_call)
        try:
            for event in from_schema(schema).execute():
                self._note(event)
        finally:
            hooks.unregister(before_call)
        return self._report

    def _note(self, event: events.EngineEvent) -> None:
        if isinstance(event, events.ScenarioFinished):
            self._report.note(event)
        elif isinstance(event, events.NonFatalError):
            self._report.errors.append(f"{event.label}: {event.value!r} from {event.value.__cause__!r}")
        elif isinstance(event, events.FatalError):
            raise event.exception

    def _config(self, examples: int, seed: int, phases: tuple[str, ...]) -> dict[str, Any]:
        target = self._target
        bearers = {
            "key": target.key.text,
            "workerToken": TOKEN,
            "attemptKey": KEY,
            "ticket": target.ticket(NOWHERE),
        }
        return {
            "base-url": target.address,
            "seed": seed,
            "continue-on-failure": True,
            "request-timeout": 60,  # a machine that does something else may starve the server for long
            "checks": {"enabled": False} | {name: {"enabled": True} for name in CHECKS},
            "generation": {
                "max-examples": examples,
                "no-shrink": True,
                "database": "none",
                "with-security-parameters": False,
            },
            "auth": {"openapi": {name: {"bearer": text} for name, text in bearers.items()}},
            "phases": {name: {"enabled": name in phases} for name in PHASES},
        }

    def _judge(self, failure: Failure, case: Case[Any], response: Response) -> bool:
        """Whether a failure is one."""
        why = excuse(failure, case, response)
        if why is not None:
            self._report.excused[why] += 1
        return why is None

    def _aim(self, case: Case[Any]) -> None:
        """Let a call hit something, and let none wait for long."""
        meta = case.meta
        known = meta is not None and meta.phase.name.value == "stateful"
        if not known:  # in a story the ids are those of its own
            self._hit(case)
        if case.path_parameters.get("key_id") == self._target.key.key_id:  # an answer has named the attacker's own
            case.path_parameters["key_id"] = self._target.do(self._target.spare_key())
        wait = case.query.get("wait")
        if _is_long(wait):
            case.query["wait"] = _PATIENCE
        attempt_id = case.path_parameters.get("attempt_id")
        if str(case.headers.get("Authorization", "")).startswith("Bearer rt1.") and isinstance(attempt_id, str):
            case.headers["Authorization"] = f"Bearer {self._target.ticket(attempt_id)}"

    def _hit(self, case: Case[Any]) -> None:
        places, label = case.path_parameters, case.operation.label
        for name, form in _FORMS.items():
            drawn = places.get(name)
            luck = crc32(str(drawn).encode())
            if isinstance(drawn, str) and form(drawn) and (luck % 4 or drawn in _EXAMPLES):
                places[name] = self._one(name, case, luck // 4)
        body = case.body
        if isinstance(body, dict):
            if _HEX.fullmatch(str(body.get("boot_id"))):
                self._hit_process(body, start=label.endswith("/start"))
            if label == "POST /api/v1/dags/{dag_id}/runs" and isinstance(body.get("params"), dict):
                body["params"] = {"sides": 6}
        if isinstance(boot := case.query.get("boot_id"), str) and _HEX.fullmatch(boot):
            case.query["boot_id"] = self._target.worker.boot_id

    def _hit_process(self, body: dict[str, Any], *, start: bool) -> None:
        """Have a call come from the worker's process, and a start often enough from one that may have the attempt."""
        if not start:
            body["boot_id"] = self._target.worker.boot_id
        elif type(spoken := body.get("protocol")) is int and 0 <= spoken <= INTEGER and crc32(str(body).encode()) % 4:
            body |= {"boot_id": self._target.worker.boot_id, "protocol": 1}
            if isinstance(worker_id := body.get("worker_id"), str) and _HEX.fullmatch(worker_id):
                body["worker_id"] = self._target.worker.worker_id

    def _one(self, name: str, case: Case[Any], luck: int) -> str:
        """Return the id of something that is there."""
        target, label = self._target, case.operation.label
        match name:
            case "dag_id":
                consumed = label.startswith("DELETE") or (label.startswith("PUT") and luck % 2)
                return target.do(target.spare_dag()) if consumed else PAST
            case "run_id":
                return target.do(target.spare_run()) if label.endswith("/cancel") else ("monday", "tuesday")[luck % 2]
            case "task_id":
                return "roll" if luck % 2 or "/inputs/" in label else "report"
            case "key_id":
                return target.do(target.spare_key())
            case "worker_id":
                return target.do(target.spare_worker())
            case _:
                return target.do(self._attempt(label))

    def _attempt(self, label: str) -> Coroutine[Any, Any, str]:
        if label.endswith("/start"):
            return self._target.queued()
        return self._target.downstream() if "/inputs/" in label else self._target.running()


def _is_long(wait: object) -> bool:
    """Whether a call would be taken, and waited for; one that is wrong stays wrong."""
    try:
        return not isinstance(wait, bool) and _PATIENCE < float(str(wait)) <= 300
    except ValueError:
        return False
