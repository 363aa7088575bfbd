"""The worker protocol: one attempt from its start to its end."""

from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, RootModel, StringConstraints

from api.dependencies import INTEGER
from api.schemas.base import EXAMPLE_AT, Answer, RequestBody
from api.schemas.worker import ATTEMPT_ID, BOOT_ID, WORKER_ID, HexId, Leased, Reason, Secret, Whole

#: What fits into a column for sizes, and into every JSON reader.
_SIZE: Final = 2**53
#: The first and the last second that a moment may be.
_LATEST: Final = 253_402_300_000
Seconds = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=_LATEST)]
#: The most bytes of a log that come with an end.
MAX_TAIL: Final = 64 * 1024

EXAMPLE_TASK: Final[dict[str, Any]] = {
    "dag_id": "dice",
    "run_id": "monday",
    "task_id": "roll",
    "map_index": -1,
    "try_number": 1,
    "logical_date": EXAMPLE_AT,
    "kind": "command",
    "argv": ["python", "roll.py", "6"],
    "shell": None,
    "env": {},
    "cwd": None,
    "timeout": None,
    "kill_grace": 10.0,
}
EXAMPLE_STARTED: Final[dict[str, Any]] = {
    "task": EXAMPLE_TASK,
    "lease": 81.0,
    "heartbeat": 10.0,
    "server_time": EXAMPLE_AT,
    "stop": None,
}
EXAMPLE_BEATEN: Final[dict[str, Any]] = {
    "lease": 81.0,
    "heartbeat": 10.0,
    "server_time": EXAMPLE_AT,
    "directive": "continue",
    "reason": None,
    "grace": None,
}
EXAMPLE_FINISHED: Final[dict[str, Any]] = {"accepted": True, "next_offset": 15}
EXAMPLE_MOVED: Final[dict[str, Any]] = {
    "starts": [{"status": 200, "answer": EXAMPLE_STARTED, "retry_after": None}],
    "finishes": [{"status": 200, "answer": EXAMPLE_FINISHED, "retry_after": None}],
}
_EXAMPLE_TICKET: Final = "rt1.a-mac-over-the-id-of-the-attempt-0000000000"
_EXAMPLE_KEY: Final = "a-key-of-your-own-from-256-random-bits-0000"
_EXAMPLE_START: Final[dict[str, Any]] = {
    "protocol": 1,
    "boot_id": BOOT_ID,
    "key": _EXAMPLE_KEY,
    "worker_id": WORKER_ID,
}
_EXAMPLE_FINISH: Final[dict[str, Any]] = {
    "boot_id": BOOT_ID,
    "outcome": "success",
    "exit_code": 0,
    "signal": None,
    "error": "",
    "output": "7",
    "log_size": 15,
    "log_dropped": 0,
    "started_at": 1795339800.127,
    "ended_at": 1795339800.159,
    "sent_at": 1795339800.16,
    "log": {"offset": 0, "data": "VGhlIHRvdGFsIGlzIDcK"},
}


class AttemptStart(RequestBody):
    """Ask whether this supervisor may run the attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_START]})

    protocol: Whole = Field(ge=0, le=INTEGER, description="The version of this protocol that the supervisor speaks.")
    boot_id: HexId = Field(description="Who asks: the same one is answered again, another one gets a 409.")
    key: Secret = Field(
        description="A secret of the supervisor's choice, 256 random bits: what everything else about this attempt "
        "shows as `Bearer`."
    )
    worker_id: HexId | None = Field(
        default=None,
        description="The registered worker that this process is. Null: none, and the attempt has a lease of its own, "
        "which its own heartbeats renew.",
    )


class TaskBody(Answer):
    """All that is needed to run the attempt; references are resolved, nothing is left to decide."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": True})  # a later release says more

    dag_id: str = Field(description="The DAG.")
    run_id: str = Field(description="The run.")
    task_id: str = Field(description="The task.")
    map_index: int = Field(description="Which instance of a mapped task; -1 for a task that is not mapped.")
    try_number: int = Field(description="Which try: the fence, `$RUNYARD_FENCE`.")
    logical_date: str = Field(description="RFC 3339, or empty where the run has none.")
    kind: str = Field(description="`command`, `python` or `http`; a worker fails what it cannot run.")
    argv: list[str] | None = Field(default=None, description="`command`: the argument vector; null where `shell` is.")
    shell: str | None = Field(default=None, description="`command`: a line for `/bin/sh -c`.")
    call: str | None = Field(default=None, description="`python`: `module:function`; null where `source` is.")
    source: str | None = Field(default=None, description="`python`: the text of a module that defines `main`.")
    interpreter: str | None = Field(default=None, description="`python`: which one; null: the worker's own choice.")
    args: list[Any] | None = Field(default=None, description="`python`: positional arguments.")
    kwargs: dict[str, Any] | None = Field(default=None, description="`python`: named arguments.")
    http: dict[str, Any] | None = Field(default=None, description="`http`: the request.")
    env: dict[str, str] = Field(description="The task's own variables.")
    cwd: str | None = Field(description="Relative to the code folder; null: the attempt's private work folder.")
    timeout: float | None = Field(description="Seconds it may run; null: no limit.")
    kill_grace: float = Field(description="Seconds between SIGTERM and SIGKILL.")
    on_lost_contact: str | None = Field(
        default=None,
        description="`kill` (the default): the task must be dead when the lease is over. `continue`: it may go on, and "
        "its end is told when the service answers again; it may have been run elsewhere by then.",
    )


class Stop(Answer):
    """The attempt was asked to stop before it began."""

    reason: Reason = Field(description="Why.")
    grace: float = Field(description="Seconds between SIGTERM and SIGKILL.")


class AttemptStarted(Leased):
    """Yes: run this, once."""

    task: TaskBody
    stop: Stop | None = Field(description="Do not begin any more: finish it as `cancelled`.")


class AttemptHeartbeat(RequestBody):
    """A sign of life of a supervisor with one attempt."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"boot_id": BOOT_ID, "stopping": None}]})

    boot_id: HexId = Field(description="Who says so.")
    stopping: Reason | None = Field(default=None, description="The directive that is being carried out.")


class AttemptBeaten(Leased):
    """The lease is renewed."""

    directive: Literal["continue", "cancel"] = Field(
        description="`cancel`: SIGTERM to the process tree, SIGKILL after the grace, then finish as `cancelled`."
    )
    reason: Reason | None = Field(description="Why; null with `continue`.")
    grace: float | None = Field(description="Seconds; null: the `kill_grace` of the task.")


class LogWritten(Answer):
    """The bytes are kept."""

    next_offset: int = Field(description="How long the log is now.")


class Input(RootModel[Any]):
    """The output of an upstream task: any JSON value."""


#: The alphabet of RFC 4648, section 4, with its padding.
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


class LogTail(RequestBody):
    """The last bytes of the log."""

    offset: Whole = Field(ge=0, le=_SIZE, description="Where they begin.")
    data: Annotated[str, StringConstraints(max_length=4 * (MAX_TAIL + 2) // 3, strict=True, pattern=_BASE64)] = Field(
        description=f"Base64 of at most {MAX_TAIL // 1024} KiB."
    )


class AttemptFinish(RequestBody):
    """How the attempt ended."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_FINISH]})

    boot_id: HexId = Field(description="Who says so.")
    outcome: Literal["success", "failed", "timed_out", "cancelled", "drained", "lost"] = Field(
        description="`drained`: stopped because the worker ends; it is queued again without cost. `lost`: the worker "
        "cannot say how it ended."
    )
    exit_code: Annotated[Whole, Field(ge=-(2**31), le=INTEGER)] | None = Field(description="Of its process.")
    signal: Annotated[Whole, Field(ge=1, le=255)] | None = Field(description="The signal that ended its process.")
    error: Annotated[str, StringConstraints(max_length=65_536, strict=True)] = Field(
        description="One line for people; empty on success."
    )
    output: Annotated[str, StringConstraints(strict=True)] | None = Field(
        default=None, description="The output as JSON text, at most 1 MiB. Null: the staged one, if there is one."
    )
    log_size: Whole = Field(ge=0, le=_SIZE, description="How long the log is, with what has not been sent yet.")
    log_dropped: Whole = Field(default=0, ge=0, le=_SIZE, description="Bytes that were left out of it.")
    started_at: Seconds = Field(description="Seconds since 1970 by the worker's clock.")
    ended_at: Seconds = Field(description="The same, of the end.")
    sent_at: Seconds = Field(
        description="The same, of this very request: by what it is off, the other two are put right.",
    )
    log: LogTail | None = Field(
        default=None, description="The last bytes of the log, so that a short task costs two calls."
    )


class AttemptFinished(Answer):
    """The end is noted, now or earlier."""

    accepted: bool = Field(description="False: the attempt was given up before; nothing was changed.")
    next_offset: int | None = Field(
        description="How much of the log is kept; send the rest from there on. Null where the request had no `log`."
    )


#: The most starts, and the most ends, in one call; and the most bytes that it has.
MOST_MOVES: Final = 64
MAX_MOVES: Final = 4 * 1024 * 1024


#: An id or a credential as it was told: what is wrong with it is said of that one attempt, and not of all.
_Told = Annotated[str, StringConstraints(max_length=1024, strict=True)]


class AttemptToStart(AttemptStart):
    """A start among others."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    attempt_id: _Told = Field(description="The attempt.")
    ticket: _Told = Field(description="The ticket that came with its offer.")


class AttemptToFinish(AttemptFinish):
    """An end among others."""

    model_config = ConfigDict(json_schema_extra={"examples": []})

    attempt_id: _Told = Field(description="The attempt.")
    key: _Told = Field(description="The key that was chosen at its start.")


class AttemptMoves(RequestBody):
    """Starts and ends of a worker's attempts, each as it would be sent by itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "starts": [{"attempt_id": ATTEMPT_ID, "ticket": _EXAMPLE_TICKET, **_EXAMPLE_START}],
                    "finishes": [{"attempt_id": ATTEMPT_ID, "key": _EXAMPLE_KEY, **_EXAMPLE_FINISH}],
                }
            ]
        }
    )

    starts: list[AttemptToStart] = Field(
        default_factory=list, max_length=MOST_MOVES, description="Attempts to be started."
    )
    finishes: list[AttemptToFinish] = Field(
        default_factory=list, max_length=MOST_MOVES, description="Attempts that ended."
    )


class AttemptMoveAnswer(Answer):
    """What the call would have been answered by itself."""

    status: int = Field(description="Its status.")
    answer: dict[str, Any] = Field(description="Its body: as of its 200, or a problem.")
    retry_after: int | None = Field(description="Its `Retry-After`, in seconds; null where it would have none.")


class AttemptsMoved(Answer):
    """An answer for each, in the same order."""

    starts: list[AttemptMoveAnswer] = Field(description="What became of each start.")
    finishes: list[AttemptMoveAnswer] = Field(description="What became of each end.")
