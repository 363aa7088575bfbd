"""The one message set between a supervisor and the side that holds the metastore.

Locally the messages travel as length-prefixed frames over a 0600 UNIX socket; a frame is a batch of messages: four
bytes of big-endian length, then a JSON array.

The agent is the *supervisor* of every attempt on its host.  Its life with one attempt::

    service → agent   launch     an attempt of yours is queued
    agent → service   start      may I? (compare-and-set on queued, with my boot_id)
    service → agent   task       yes, and this is what to run      | refused: leave it alone
    agent → service   finish     it ended like this                  (spooled on disk first, repeated until answered)
    service → agent   finished   noted; forget it

Any message may be lost, late or doubled: ``launch`` of a known attempt is ignored, ``start`` with the same boot_id is
answered again, ``finish`` is accepted once and answered always.  A ``task`` may come without a ``start`` (as the answer
to a ``finish`` that asked for ``more``); an agent starts an attempt at most once in its life, whatever arrives.

A remote agent says ``start`` and ``finish`` over HTTP (:mod:`worker.remote`), several in one request where it is busy
(:mod:`worker.bundles`).  The socket then leads to its *feeder*, the process that takes messages from a broker::

    feeder → agent    configure  the API, the key, and what to register as: secrets are in no argv and no environment
    feeder → agent    launch     with the ticket that came with the message
    agent → feeder    done       refused, or its end is noted: the message can be acknowledged
    agent → feeder    dropped    not started here, and not going to be: the message is somebody else's
    agent → feeder    status     how it stands with the API
"""

from __future__ import annotations

import json
import struct
from typing import Any, Final, Literal, NotRequired, TypedDict

#: Grows when a message changes its meaning; both sides say theirs in the hello.
PROTOCOL: Final = 1
#: The largest frame accepted: an output of 1 MiB as JSON inside JSON, with room for its neighbours.
MAX_FRAME: Final = 64 * 1024 * 1024
#: The largest output of a task, in bytes of JSON.
MAX_OUTPUT: Final = 1024 * 1024
#: How deep the lists and objects of an output may nest, as in a document.
MAX_DEPTH: Final = 64

_LENGTH: Final = struct.Struct(">I")

#: How an attempt ended, as its supervisor saw it.
Outcome = Literal["success", "failed", "timed_out", "cancelled", "drained", "lost"]
#: Why an attempt is asked to stop.  ``user``, ``run_timeout`` and ``fail_fast`` end it for good; ``drain`` requeues it.
StopReason = Literal["user", "run_timeout", "fail_fast", "fenced", "drain"]
#: Why a start is refused: somebody else has it, it is over, or it can never run (its references do not resolve).
Refusal = Literal["conflict", "gone", "failed"]
#: How it stands between a remote agent and the API: asking to be registered; registered; refused for good, as long as
#: nobody changes something; not to be reached; taking nothing new, because the API or a full disk says so.
Standing = Literal["registering", "serving", "refused", "unreachable", "draining"]


class Held(TypedDict):
    """An attempt that an agent knows of."""

    attempt_id: str
    #: ``starting``: start was asked for; ``running``: user code was started; ``ended``: finish not yet answered.
    phase: Literal["starting", "running", "ended"]


class Hello(TypedDict):
    """The first message of an agent on every connection."""

    type: Literal["hello"]
    protocol: int
    version: str
    agent_id: str
    #: Random, new with every agent process: what every start and finish of this agent says.
    boot_id: str
    pid: int
    attempts: list[Held]


class Welcome(TypedDict):
    """The answer to a hello."""

    type: Literal["welcome"]
    protocol: int
    version: str


class Launch(TypedDict):
    """An attempt is queued for this agent."""

    type: Literal["launch"]
    attempt_id: str
    #: What a remote agent shows to start it.
    ticket: NotRequired[str]


class Start(TypedDict):
    """Ask whether this agent may start the attempt."""

    type: Literal["start"]
    attempt_id: str
    boot_id: str


class HttpBody(TypedDict):
    """The request of an ``http`` task."""

    method: str
    #: As the guard judges it; ``query`` is put behind it.
    url: str
    headers: dict[str, str]
    query: dict[str, str]
    #: At most one of these two.
    json: NotRequired[Any]
    body: NotRequired[str]


class TaskBody(TypedDict):
    """All that is needed to run one attempt; references are resolved, nothing is left to decide."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    #: ISO 8601, or "" where the run has none.
    logical_date: str
    kind: Literal["command", "python", "http"]
    #: ``command``: the argv, or None where ``shell`` is given.
    argv: NotRequired[list[str] | None]
    #: ``command``: a line for ``/bin/sh -c``.
    shell: NotRequired[str | None]
    #: ``python``: ``module:function``, or None where ``source`` is given.
    call: NotRequired[str | None]
    #: ``python``: a module text that defines ``main``.
    source: NotRequired[str | None]
    #: ``python``: a path, or a name on the PATH; absent or None is the interpreter of all tasks.
    interpreter: NotRequired[str | None]
    args: NotRequired[list[Any]]
    kwargs: NotRequired[dict[str, Any]]
    #: ``http``: the request.
    http: NotRequired[HttpBody]
    #: The task's own variables; the agent adds its allow-list and the RUNYARD_* ones.
    env: dict[str, str]
    #: Relative to the code directory; None is the attempt's private work directory.
    cwd: str | None
    #: Seconds; None is unlimited.
    timeout: float | None
    #: Seconds between SIGTERM and SIGKILL.
    kill_grace: float
    #: What a remote worker does with it when its lease is over; a service of an earlier release does not say: ``kill``.
    on_lost_contact: NotRequired[Literal["kill", "continue"]]


class Task(TypedDict):
    """Yes: run this."""

    type: Literal["task"]
    attempt_id: str
    body: TaskBody


class Refused(TypedDict):
    """No: forget this attempt, touch nothing."""

    type: Literal["refused"]
    attempt_id: str
    code: Refusal
    detail: str


class Finish(TypedDict):
    """An attempt ended."""

    type: Literal["finish"]
    attempt_id: str
    boot_id: str
    outcome: Outcome
    exit_code: int | None
    signal: int | None
    #: One line for people; "" on success.
    error: str
    #: The output as JSON text; None is null.
    output: str | None
    log_size: int
    #: Bytes beyond the cap that were counted and thrown away.
    log_dropped: int
    #: Wall-clock seconds since the epoch, of the agent's host.
    started_at: float
    ended_at: float
    #: Whether the answer may bring a next task for the slot that this end frees, already started under ``boot_id``.
    more: bool
    #: The secret of this attempt, chosen by its remote supervisor at the start; sent with it, and never to a task.
    key: NotRequired[str]


class Finished(TypedDict):
    """The end of an attempt is noted, now or earlier; the agent forgets it."""

    type: Literal["finished"]
    attempt_id: str
    #: False: a stale attempt; nothing was changed.
    accepted: bool


class Cancel(TypedDict):
    """Stop this attempt: SIGTERM to its tree, after *grace* seconds SIGKILL."""

    type: Literal["cancel"]
    attempt_id: str
    reason: StopReason
    grace: float


class Beat(TypedDict):
    """The service's database lease for this agent holds for ``ttl`` seconds from receipt, what has passed taken off."""

    type: Literal["beat"]
    #: None: nobody else can take this agent's attempts (SQLite); it never fences itself.
    ttl: float | None
    #: The same moment by CLOCK_BOOTTIME, which is one clock for both sides of a socket: a message that an agent finds
    #: there after it stood still must not renew a lease that has run out since.
    until: NotRequired[float]


class Drain(TypedDict):
    """Stop everything, finish each attempt as ``drained``, then end.

    ``grace`` is seconds for running tasks to end by themselves before they get SIGTERM.
    """

    type: Literal["drain"]
    grace: float


class Configure(TypedDict):
    """What a feeder tells a remote agent; a later one replaces it, for the attempts that are there too."""

    type: Literal["configure"]
    api_url: str
    #: An API key with the scope ``work``.
    api_key: str
    #: For people, as is the executor's: who this worker is.
    name: str
    executor: str
    queues: list[str]
    #: How many attempts may run at once.
    slots: int


class Done(TypedDict):
    """Nothing is left to do for the message that brought this attempt."""

    type: Literal["done"]
    attempt_id: str


class Dropped(TypedDict):
    """This agent leaves an attempt alone that it was handed and did not start; another worker may."""

    type: Literal["dropped"]
    attempt_id: str


class Status(TypedDict):
    """How it stands with the API; sent when it changes, and to every feeder that comes."""

    type: Literal["status"]
    state: Standing
    #: Why, in a line for people; "" where all is well.
    detail: str


Message = (
    Hello | Welcome | Launch | Start | Task | Refused | Finish | Finished | Cancel | Beat | Drain
    | Configure | Done | Dropped | Status
)  # fmt: skip


class FrameInvalid(Exception):
    """Bytes that are no frame of this protocol, or messages that do not make one."""


def encode(messages: list[Message]) -> bytes:
    """Return one frame with *messages*."""
    try:
        body = json.dumps(messages, separators=(",", ":")).encode()
    except (RecursionError, TypeError, ValueError) as error:
        raise FrameInvalid(f"{_names(messages)}: cannot be JSON: {error}") from None
    if len(body) > MAX_FRAME:
        raise FrameInvalid(f"{_names(messages)}: a frame of {len(body):,} bytes; at most {MAX_FRAME:,} are accepted")
    return _LENGTH.pack(len(body)) + body


def decode(buffer: bytearray) -> list[Message]:
    """Take every whole frame off the front of *buffer* and return their messages in order."""
    messages: list[Message] = []
    while len(buffer) >= _LENGTH.size:
        (size,) = _LENGTH.unpack_from(buffer)
        if size > MAX_FRAME:
            raise FrameInvalid(f"a frame of {size} bytes; at most {MAX_FRAME} are accepted")
        end = _LENGTH.size + size
        if len(buffer) < end:
            break
        try:
            batch = json.loads(bytes(buffer[_LENGTH.size : end]))
        except ValueError as error:
            raise FrameInvalid(f"a frame that is not JSON: {error}") from None
        except RecursionError:
            raise FrameInvalid(f"a frame of {size} bytes that nests too deeply") from None
        del buffer[:end]
        if not isinstance(batch, list):
            raise FrameInvalid("a frame that is not a list of messages")
        messages += batch
    return messages


def _names(messages: list[Message]) -> str:
    if len(messages) != 1:
        return f"{len(messages)} messages"
    return f"{messages[0]['type']} of {messages[0].get('attempt_id', 'no attempt')}"
