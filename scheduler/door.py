"""The door of the metastore, as supervisors see it, here and on other hosts: starts and ends of attempts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Final

import structlog

from dag.errors import BadCredential, Forbidden, Gone, NotFound, Unavailable
from dag.outcomes import Ended
from metastore.commands.attempts import End, Ending, EndNoted, NotStarted, Started, Starting, end_attempt, move_attempts
from metastore.together import Together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from metastore.commands.admission import Admitted, Outlet
    from metastore.commands.attempts import Answer
    from metastore.store import Store
    from scheduler.metrics import SchedulerMetrics
    from worker.protocol import Finish, Message, Start, StopReason

log = structlog.get_logger(__name__)

#: At most so many starts and ends share a transaction.
_SHARED: Final = 64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class MetastoreDoor:
    """Answers supervisors with what the metastore's commands say."""

    def __init__(
        self,
        store: Store,
        outlets: Callable[[], Sequence[Outlet]],
        hand_over: Callable[[Sequence[Admitted]], None],
        metrics: SchedulerMetrics,
        *,
        lease: timedelta,
    ) -> None:
        self._store = store
        self._lease = lease
        self._outlets = outlets
        self._hand_over = hand_over
        self._metrics = metrics
        self._together: Together[Starting | Ending, Answer] = Together(
            store, move_attempts, most=_SHARED, key=attrgetter("attempt_id")
        )

    async def start(self, message: Start, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        """Answer with the task, or with why it is not this supervisor's to run."""
        attempt_id, boot_id = message["attempt_id"], message["boot_id"]
        alone = self._lease if placed_on is None else None
        try:
            answer = await self._together.do(
                Starting(attempt_id=attempt_id, boot_id=boot_id, placed_on=placed_on, key_hash=key_hash, lease=alone)
            )
        except (Unavailable, BadCredential, Forbidden, Gone, NotFound):
            raise  # about who asks, and not about the attempt
        except Exception as error:
            # One attempt that cannot even be looked at must not hold its slot for ever, nor be asked about for ever.
            log.exception("start failed", attempt=attempt_id)
            why = f"it cannot be started: {type(error).__name__}"
            end = End(attempt_id=attempt_id, ended=Ended.REJECTED, cause="config", error=why)
            await self._store.write(end_attempt, end, actor="scheduler")
            return [{"type": "refused", "attempt_id": attempt_id, "code": "failed", "detail": why}]
        if isinstance(answer, NotStarted):
            return [{"type": "refused", "attempt_id": attempt_id, "code": answer.code, "detail": answer.detail}]
        assert isinstance(answer, Started)  # noqa: S101  # it was a start
        self._metrics.attempts_started.labels(answer.executor).inc()
        self._metrics.start_lag.labels(answer.executor).observe(answer.waited.total_seconds())
        task: Message = {"type": "task", "attempt_id": attempt_id, "body": answer.body}
        if answer.stop_reason is None:
            return [task]
        # The directive goes first: a supervisor that has not begun ends it without running it.
        reason, grace = stop_reason(answer.stop_reason), answer.body["kill_grace"]
        return [{"type": "cancel", "attempt_id": attempt_id, "reason": reason, "grace": grace}, task]

    async def finish(self, message: Finish, placed_on: str | None, *, key_hash: str | None = None) -> list[Message]:
        """Note the end; where *more* was asked for, bring what was started into the freed slot."""
        boot_id = message["boot_id"]
        outlets = [
            replace(outlet, boot_id=boot_id)
            if message["more"] and outlet.placed_on == placed_on is not None
            else outlet
            for outlet in self._outlets()
        ]
        noted = await self._note(replace(_end(message), key_hash=key_hash), outlets)
        self._count(message, noted)
        messages: list[Message] = [
            {"type": "finished", "attempt_id": message["attempt_id"], "accepted": noted.accepted}
        ]
        for one in noted.admitted:
            if one.body is not None:
                self._metrics.attempts_started.labels(one.executor).inc()
                self._metrics.start_lag.labels(one.executor).observe(0)
                messages.append({"type": "task", "attempt_id": one.attempt_id, "body": one.body})
        if any(one.body is None for one in noted.admitted):
            self._hand_over(noted.admitted)
        return messages

    async def _note(self, end: End, outlets: Sequence[Outlet]) -> EndNoted:
        """Note an end; what others do to its admission, or its own words to the database, does not undo it."""
        plain = replace(end, output=None, error=end.error and "its end could not be stored as it was told", cause=None)
        if end.output is not None:
            plain = replace(plain, ended=Ended.FAILED, error="its output could not be stored")
        for attempt, places in ((end, outlets), (end, ()), (plain, ())):
            try:
                noted = await self._together.do(Ending(end=attempt, outlets=places))
            except (Unavailable, BadCredential):
                raise
            except Exception:
                # Told below; the next try asks for less.
                log.exception("end failed", attempt=end.attempt_id, admitting=bool(places))
            else:
                assert isinstance(noted, EndNoted)  # noqa: S101  # it was an end
                return noted
        raise Unavailable(f"The end of attempt {end.attempt_id} cannot be stored.")

    def _count(self, message: Finish, noted: EndNoted) -> None:
        if noted.accepted:
            self._metrics.attempts_ended.labels(noted.executor, message["outcome"]).inc()
        else:
            self._metrics.stale_ends.inc()


def _end(message: Finish) -> End:
    return End(
        attempt_id=message["attempt_id"],
        ended=Ended(message["outcome"]),
        boot_id=message["boot_id"],
        cause=_cause(message),
        exit_code=message["exit_code"],
        signal=message["signal"],
        error=message["error"] or None,
        output=message["output"],
        log_size=message["log_size"],
        log_dropped=message["log_dropped"],
        started_at=_moment(message["started_at"]),
        ended_at=_moment(message["ended_at"]),
    )


def _cause(message: Finish) -> str | None:
    match message["outcome"]:
        case "success":
            return None
        case "failed":
            return "signal" if message["signal"] is not None else "exit"
        case "lost":
            return "worker_lost"
        case other:
            return other


def _moment(seconds: float) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)


def stop_reason(text: str) -> StopReason:
    """Return a reason to stop as the protocol has it."""
    match text:
        case "user" | "run_timeout" | "fail_fast" | "fenced" | "drain":
            return text
    raise ValueError(f"no reason to stop: {text!r}")
