"""The worker protocol: registration, and the heartbeats of a worker for all that it runs."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, StringConstraints

from api.credentials import ATTEMPT_ID_PATTERN, SECRET_PATTERN
from api.dependencies import INTEGER, AnId
from api.schemas.base import EXAMPLE_AT, Answer, Instant, RequestBody
from dag.fields import Queue

WORKER_ID: Final = "5f0c1d6a9e2b4f87a1c3d5e7f9b0a2c4"
BOOT_ID: Final = "c0ffee00c0ffee00c0ffee00c0ffee00"
ATTEMPT_ID: Final = "019aaf0a-5b7b-7c7e-8a44-0d3f5e2b9c11"

#: What an id of a worker or of its process looks like: 128 random bits.
HexId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$", strict=True)]
AttemptId = Annotated[str, StringConstraints(pattern=ATTEMPT_ID_PATTERN, strict=True)]
Secret = Annotated[str, StringConstraints(pattern=SECRET_PATTERN, strict=True)]
#: One that no terminal obeys.
Line = Annotated[str, StringConstraints(max_length=250, strict=True, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Whole = Annotated[int, Field(strict=True)]
Reason = Literal["user", "run_timeout", "fail_fast", "fenced", "drain"]
Phase = Literal["starting", "running", "ended"]

#: How many attempts a worker may speak of in one call.
_MOST_ATTEMPTS: Final = 10_000

EXAMPLE_REGISTERED: Final[dict[str, Any]] = {
    "worker_id": WORKER_ID,
    "protocol": 1,
    "lease": 81.0,
    "heartbeat": 10.0,
    "server_time": EXAMPLE_AT,
    "lost": [],
}
EXAMPLE_BEATEN: Final[dict[str, Any]] = {
    "lease": 81.0,
    "heartbeat": 10.0,
    "server_time": EXAMPLE_AT,
    "drain": False,
    "directives": [{"attempt_id": ATTEMPT_ID, "directive": "cancel", "reason": "user", "grace": None}],
}


class HeldAttempt(RequestBody):
    """An attempt that a worker knows of."""

    attempt_id: AttemptId = Field(description="The attempt.")
    phase: Phase = Field(
        description="`starting`: its start was asked for. `running`: user code was started. `ended`: it is over, and "
        "its end has not been answered yet."
    )


class BeatingAttempt(HeldAttempt):
    """An attempt that a worker holds, and whether it is being stopped."""

    stopping: Reason | None = Field(
        default=None, description="The directive that is being carried out; it is not told again."
    )


class WorkerRegister(RequestBody):
    """What a worker says of itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "protocol": 1,
                    "version": "0.2.0",
                    "worker_id": WORKER_ID,
                    "boot_id": BOOT_ID,
                    "boot_number": 3,
                    "token": "a-token-of-your-own-from-256-random-bits-00",
                    "name": "build-7",
                    "host": "build-7.example",
                    "pid": 4711,
                    "executor": "dramatiq",
                    "queues": ["default"],
                    "slots": 4,
                    "attempts": [],
                }
            ]
        }
    )

    protocol: Whole = Field(ge=0, le=INTEGER, description="The version of this protocol that the worker speaks: 1.")
    version: Line = Field(description="The worker's own release, for people.")
    worker_id: HexId = Field(description="Lasting: made once, 32 hexadecimal digits, kept beside the worker's files.")
    boot_id: HexId = Field(
        description="New with every process of the worker. A registration with a new one says that all earlier "
        "processes of this worker and their tasks are dead."
    )
    boot_number: Annotated[int, Field(strict=True, ge=1, le=2**53)] | None = Field(
        default=None,
        description="Grows with every process of the worker: kept beside its files, raised before each registration of "
        "a new process. Of two processes the one with the smaller number is dead, whenever its registration arrives.",
    )
    token: Secret = Field(
        description="A secret of the worker's choice, 256 random bits: what its heartbeats show as `Bearer`."
    )
    name: Line = Field(description="What people call it.")
    host: Line = Field(description="Where it is.")
    pid: Whole = Field(ge=0, le=INTEGER, description="Its process.")
    executor: AnId = Field(description="The executor whose queues it serves, such as `dramatiq`.")
    queues: Annotated[list[Queue], Field(min_length=1, max_length=100)] = Field(description="The queues it serves.")
    slots: Whole = Field(ge=1, le=10_000, description="How many attempts it runs at once.")
    attempts: Annotated[list[HeldAttempt], Field(max_length=_MOST_ATTEMPTS)] = Field(
        default_factory=list,
        description="The attempts of earlier processes whose end this one will still tell. Their other attempts are "
        "lost with this call.",
    )


class Leased(Answer):
    """What every answer to a sign of life says."""

    lease: float = Field(
        description="Seconds, from the moment this request was sent, after which the tasks must be dead if nothing "
        "was answered any more; shorter than the lease that the service keeps."
    )
    heartbeat: float = Field(description="How often to send a heartbeat, in seconds; no request waits longer.")
    server_time: Instant = Field(description="What time the service has.")


class WorkerRegistered(Leased):
    """The worker is known."""

    worker_id: str = Field(description="The worker.")
    protocol: int = Field(description="The protocol that the service speaks.")
    lost: list[str] = Field(description="Attempts of earlier processes that were given up now.")


class WorkerHeartbeat(RequestBody):
    """A sign of life for all that a worker holds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "boot_id": BOOT_ID,
                    "draining": False,
                    "attempts": [{"attempt_id": ATTEMPT_ID, "phase": "running", "stopping": None}],
                }
            ]
        }
    )

    boot_id: HexId = Field(description="The process that says so.")
    draining: Annotated[bool, Field(strict=True)] = Field(default=False, description="It takes nothing new.")
    attempts: Annotated[list[BeatingAttempt], Field(max_length=_MOST_ATTEMPTS)] = Field(
        default_factory=list, description="What it holds."
    )


class Directive(Answer):
    """What is asked of a worker about one attempt."""

    attempt_id: str = Field(description="The attempt.")
    directive: Literal["cancel"] = Field(description="`cancel`: SIGTERM to its process tree, SIGKILL after the grace.")
    reason: Reason = Field(description="Why; what the end of the attempt is to be told as `cancelled` for.")
    grace: float | None = Field(description="Seconds; null: the `kill_grace` of its task.")


class WorkerBeaten(Leased):
    """The lease is renewed."""

    drain: bool = Field(description="Take nothing new, let what runs end, then leave.")
    directives: list[Directive] = Field(description="What the request's `stopping` did not say already.")
