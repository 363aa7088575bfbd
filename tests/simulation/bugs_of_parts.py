"""Bugs in the parts around the metastore: schedulers, executors, agents and their supervisors; on the model."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from metastore.commands.attempts import EndNoted
from tests.simulation.hosts import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.planting import Planter

# Schedulers


def nobody_looks_without_a_hint(planter: Planter) -> None:
    """The loop sleeps until it is woken, or something is due by itself: no safety poll."""
    planter.rewrite(
        "scheduler.decide:sleep_for", ("if next_due is None:", "longest *= 100_000\n    if next_due is None:")
    )


def silence_is_taken_for_death(planter: Planter) -> None:
    """What an executor cannot say anything about is given up: rescue without a proof."""
    planter.rewrite(
        "scheduler.lost:reconcile",
        ('if fact.phase == "gone" and fact.boot_id is not None:', 'if fact.phase in ("gone", "unknown"):'),
    )


def the_dead_are_launched_again(planter: Planter) -> None:
    """An attempt whose supervisor is dead is launched again instead of given up."""
    planter.rewrite(
        "scheduler.lost:reconcile",
        ("yield Relaunch(placement.id) if same else GiveUp(placement.id)", "yield Relaunch(placement.id)"),
    )


def what_was_never_received_is_given_up(planter: Planter) -> None:
    """An attempt that its own supervisor has not heard of yet counts as lost; it hears of it, and runs it."""
    planter.rewrite(
        "scheduler.lost:reconcile",
        ("yield Relaunch(placement.id) if same else GiveUp(placement.id)", "yield GiveUp(placement.id)"),
    )


def an_offer_is_made_once(planter: Planter) -> None:
    """What a broker has lost is not offered again."""
    planter.rewrite(
        "scheduler.lost:reoffer",
        (
            "yield OfferAgain(id=offer.id, look_after=patience, counts=False)",
            _WAIT,
        ),
        (
            "yield OfferAgain(id=offer.id, look_after=patience, counts=True)",
            _WAIT,
        ),
    )


_WAIT: Final = "yield Wait(id=offer.id, look_after=patience)"


def an_outage_is_a_failure(planter: Planter) -> None:
    """What an executor puts off is refused: an outage of the broker fails tasks."""
    planter.rewrite(
        "scheduler.handover:Handover._note",
        (
            "await self._store.write(defer_attempt, attempt_id, reason, retry_after)",
            (
                "end = End(attempt_id=attempt_id, ended=Ended.REJECTED, cause='unknown', error=reason)\n"
                "                await self._store.write(end_attempt, end, actor='scheduler')"
            ),
        ),
    )


def a_launch_gets_another_id(planter: Planter) -> None:
    """What is launched again has a new name, which nobody else knows."""
    planter.rewrite(
        "scheduler.handover:Handover.again",
        ("self._launch_of(name, one.id,", "self._launch_of(name, one.id[:-4] + '0000',"),
    )


def expiry_is_judged_by_the_hosts_clock(planter: Planter) -> None:
    """An agent is given up when its lease is over by the clock of whoever looks."""

    def over(tx: Any, now: Any) -> list[str]:
        return sorted(
            name for name, one in tx.data.agents.items() if one.lease_until is not None and one.lease_until < now
        )

    planter.rewrite(
        "scheduler.placements:Placements.renew",
        (
            "await self._store.write(expired_agents, self._settings.lease)",
            "await self._store.read(over, self._clock.now())",
        ),
        over=over,
    )
    planter.rewrite(
        "scheduler.placements:Placements._give_up",
        ('actor="scheduler", expired_agent=agent_id, lease=self._settings.lease', 'actor="scheduler"'),
    )


def local_agents_have_no_lease(planter: Planter) -> None:
    """Supervisors are not told how long they may go on."""
    planter.rewrite("scheduler.placements:Placements._grant", ("executor.renew(ttl)", "executor.renew(None)"))


def a_renewal_counts_from_its_answer(planter: Planter) -> None:
    """How long supervisors may go on is counted from when the database has answered, not from when it was asked."""
    planter.rewrite(
        "scheduler.placements:Placements._grant",
        (
            "self._settings.told_lease - timedelta(seconds=self._clock.monotonic() - asked_at)",
            "2 * self._settings.lease",
        ),
    )


def an_end_is_acknowledged_before_it_is_written(planter: Planter) -> None:
    """A finish is answered while the metastore is away."""
    planter.rewrite(
        "scheduler.door:MetastoreDoor._note",
        (
            "except (Unavailable, BadCredential):",
            "except Unavailable:\n            return made_up()\n        except BadCredential:",
        ),
        made_up=partial(EndNoted, accepted=True, executor="local"),
    )


# Agents and workers


def the_fence_goes_by_the_wall_clock(planter: Planter) -> None:
    """Self-fencing compares wall-clock times."""

    def wall() -> float:
        return here().clock.now().timestamp()

    now = ("linux.boottime()", "wall()")
    planter.rewrite("worker.fence:Fence.is_down", now, wall=wall)
    planter.rewrite("worker.fence:Fence.renew", now, ("min(deadline, until)", "deadline"), wall=wall)
    planter.rewrite("worker.fence:Fence.watch", now, wall=wall)


def the_fence_kills_nothing(planter: Planter) -> None:
    """A supervisor whose lease is over goes on with its tasks."""
    planter.rewrite("worker.supervise:Supervisor._fall", ("for attempt in list(", "for attempt in ()[:0] and list("))


def workers_are_told_a_longer_lease(planter: Planter) -> None:
    """What a worker believes to have is more than what the metastore gives it."""
    planter.rewrite("api.settings:ApiSettings.told_lease", ("told(self.worker_lease)", "(3 * self.worker_lease)"))


def a_lease_counts_from_its_answer(planter: Planter) -> None:
    """A worker's lease begins when the answer arrives, however long that took."""
    planter.rewrite("worker.pulse:Pulse._lease", ("return lease - (linux.boottime() - sent_at)", "return lease + 5"))


def an_agent_runs_what_it_has_run(planter: Planter) -> None:
    """An attempt that is launched again runs again."""
    planter.rewrite(
        "worker.supervise:Supervisor._task",
        ("if attempt_id in self._ever:", "if False:"),
        ('if attempt.phase != "starting":', 'if attempt.phase == "running":'),
    )


def a_new_process_claims_what_died(planter: Planter) -> None:
    """A worker says that it will still tell the end of attempts that died with its old process."""
    planter.rewrite(
        "worker.remote:RemoteAgent.attempts",
        ("return listed + strangers", "return listed + strangers + claimed(self)"),
        claimed=lambda agent: [
            {"attempt_id": one, "phase": "ended", "stopping": None} for one in agent._spool.orphans()
        ],
    )


def a_supervisor_does_not_stop(planter: Planter) -> None:
    """A directive to stop is heard, and nothing is done about it."""
    planter.rewrite("worker.supervise:Supervisor._cancel", ("if attempt is not None:", "if False:"))


def a_service_passes_on_what_an_earlier_lease_started(planter: Planter) -> None:
    """The answer to a start, or to an end that brings the next task, reaches the agent under the lease after it."""
    planter.rewrite("executors.agent:AgentClient._ask_door", ("if self._lapses != lapses:", "if False:"))


def a_worker_runs_what_an_earlier_lease_started(planter: Planter) -> None:
    """A start that was answered late is run, although the lease that it was won under is over."""
    planter.rewrite(
        "worker.offers:Offers._answer",
        ("if self._supervisor.is_fenced or self._asked[attempt_id] != self._supervisor.lapses:", "if False:"),
    )
    planter.rewrite("worker.supervise:Supervisor._task", ("if self._fence.is_down and", "if False and"))


def answers_to_several_calls_are_mixed_up(planter: Planter) -> None:
    """Of calls that travel together each gets the answer of another one."""
    planter.rewrite("worker.bundles:_told", ("deque(listed)", "deque(reversed(listed))"))


def what_is_deaf_to_sigterm_is_left_to_itself(planter: Planter) -> None:
    """What does not end in time when it is asked to is taken for dead, and not killed."""
    kill = "kill = partial(self._zygote.signal, attempt.attempt_id, signal.SIGKILL)"
    planter.rewrite(
        "worker.supervise:Supervisor._stop", (kill, "kill = partial(self._lose, attempt.attempt_id, 'it is deaf')")
    )


def a_success_is_told_of_what_never_ran(planter: Planter) -> None:
    """An attempt that was stopped before it ran is told as a success."""
    planter.rewrite(
        "worker.supervise:Supervisor._task",
        ("self._end(attempt, stopped(attempt))", 'self._end(attempt, Verdict("success"))'),
    )


def a_success_is_told_as_a_failure(planter: Planter) -> None:
    """Now and then an exit code of zero is taken for another one."""
    planter.rewrite("worker.attempt:judge", ("if code != 0:", f"if code != 0 or {_NOW_AND_THEN}:"))


def an_output_is_dropped(planter: Planter) -> None:
    """Now and then an output is not sent with its end."""
    planter.rewrite(
        "worker.attempt:finish_message",
        ('"output": verdict.output,', f'"output": None if {_NOW_AND_THEN} else verdict.output,'),
    )


def a_success_is_told_as_lost(planter: Planter) -> None:
    """Now and then an exit code of zero is taken for the loss of its process: it runs again, as if it were too slow."""
    lost = f"if {_NOW_AND_THEN}:\n        return Verdict('lost', 'no exit code')\n    if code != 0:"
    planter.rewrite("worker.attempt:judge", ("if code != 0:", lost))


#: Of an attempt that has ended: of every fifth.
_NOW_AND_THEN: Final = "int(attempt.ended_at * 1000) % 5 == 0"

ALL: Final[list[Callable[[Planter], None]]] = [
    nobody_looks_without_a_hint,
    silence_is_taken_for_death,
    the_dead_are_launched_again,
    what_was_never_received_is_given_up,
    an_offer_is_made_once,
    an_outage_is_a_failure,
    a_launch_gets_another_id,
    expiry_is_judged_by_the_hosts_clock,
    local_agents_have_no_lease,
    a_renewal_counts_from_its_answer,
    an_end_is_acknowledged_before_it_is_written,
    the_fence_goes_by_the_wall_clock,
    the_fence_kills_nothing,
    workers_are_told_a_longer_lease,
    a_lease_counts_from_its_answer,
    an_agent_runs_what_it_has_run,
    a_new_process_claims_what_died,
    a_supervisor_does_not_stop,
    a_service_passes_on_what_an_earlier_lease_started,
    a_worker_runs_what_an_earlier_lease_started,
    answers_to_several_calls_are_mixed_up,
    what_is_deaf_to_sigterm_is_left_to_itself,
    a_success_is_told_of_what_never_ran,
    a_success_is_told_as_a_failure,
    an_output_is_dropped,
    a_success_is_told_as_lost,
]
