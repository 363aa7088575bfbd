"""The catalogue of planted bugs: mistakes that were made, or are easily made, in schedulers like this one.

Each is planted alone, and the simulator has to find it: with a seed that is written down here, and with fresh ones.  A
bug that is not found says that the simulator is too weak, not that the bug is harmless.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.simulation import bugs_of_commands, bugs_of_parts, bugs_of_transactions
from tests.simulation.faults import FIRST, LAST, Fault
from tests.simulation.planting import OutOfDate, planted
from tests.simulation.profile import Profile
from tests.simulation.scenario import run_seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.planting import Planter
    from tests.simulation.scenario import Result, StoreKind


#: What says that the planted text itself is wrong: that proves nothing.
_SLIPS: Final = ("NameError", "UnboundLocalError", "AttributeError", "ImportError", "SyntaxError", "TypeError")

#: How long rest is waited for, in virtual seconds: a bug that lets nothing come to rest shows it as well as in the time
#: that a seed has by itself, at a quarter of the cost.  It is twice the longest pause of the product's own.
_PATIENCE: Final = 600.0


@dataclass(frozen=True, slots=True)
class Bug:
    """One of them."""

    name: str
    #: What somebody did wrong.
    says: str
    store: StoreKind
    plant: Callable[[Planter], None]

    @property
    def seed(self) -> int:
        """A seed that finds it."""
        return FOUND[self.name][0]

    @property
    def shows(self) -> frozenset[str]:
        """What it is known by: one of these has to be seen, or it is something else that was found."""
        return frozenset(FOUND[self.name][1].split())

    def run(self, seed: int) -> Result:
        """Simulate *seed* with the bug in the product."""
        with planted(self.plant):
            result = self.run_without(seed)
        for error in result.errors:
            if error.rstrip().rpartition("\n")[2].startswith(_SLIPS):
                raise OutOfDate(f"{self.name} has an error of its own: {error}")
        return result

    def run_without(self, seed: int) -> Result:
        """Simulate the same without it."""
        where = DIRECTED.get(self.name, Where())
        return run_seed(seed, self.store, profile=where.profile, beside=where.faults, patience=_PATIENCE)

    def is_found_by(self, result: Result) -> bool:
        return bool(result.names & self.shows)


def _catalogue() -> dict[str, Bug]:
    found = {}
    modules: tuple[tuple[StoreKind, list[Callable[[Planter], None]]], ...] = (
        ("sqlite", bugs_of_commands.ALL),
        ("sqlite", bugs_of_transactions.ALL),
        ("memory", bugs_of_parts.ALL),
    )
    for store, plants in modules:
        for plant in plants:
            says = (plant.__doc__ or "").strip()
            found[plant.__name__] = Bug(plant.__name__, says, store, plant)
    return found


@dataclass(frozen=True, slots=True)
class Where:
    """Where a bug is looked for: in any seed, or in those that are about what it takes."""

    profile: Profile | None = None
    #: What goes wrong besides the faults of the seed.
    faults: tuple[Fault, ...] = ()


def _all_the_time(kind: str, odds: float) -> tuple[Fault, ...]:
    return (Fault("weather", FIRST, LAST - FIRST, kind, odds),)


def _now_and_then(kind: str, odds: float, *, every: int, lasts: float) -> tuple[Fault, ...]:
    return tuple(Fault("weather", float(at), lasts, kind, odds) for at in range(8, 80, every))


#: Bugs that take several rare things at once: seeds that have them all are a few in a thousand.
DIRECTED: Final[dict[str, Where]] = {
    # What is cleared twice while its run waits: for its DAG to go on, or for another run to end.
    "a_run_that_waits_is_cleared_into_running": Where(
        Profile(ops=("trigger", "trigger", "patch", "clear", "clear", "clear"), insists=0.8, haste=0.6, requests=22)
    ),
    # A request under no key whose COMMIT is not answered.
    "a_repeated_transaction_makes_a_second_run": Where(
        Profile(ops=("trigger",), requests=22), _all_the_time("db.lost_reply", 0.3)
    ),
    # A limit that is lowered, or a run that is cleared, between a look and a start.
    "max_active_runs_is_only_read": Where(
        Profile(
            ops=("trigger", "trigger", "put", "put", "clear"),
            requests=30,
            haste=0.9,
            limits=1.0,
            takes=(0.05, 2.0),
            ends=("s",),
        ),
        _all_the_time("db.slow", 0.3),
    ),
    # A worker that comes back with the end of what was given up and is tried again meanwhile.
    "a_stale_end_is_taken_for_the_current_one": Where(
        Profile(executors=("dramatiq",), takes=(8.0, 20.0), ends=("s",), retries=1.0),
        tuple(Fault("partition", at, 16.0, host) for at, host in ((15.0, "w1"), (35.0, "w2"), (55.0, "w1"))),
    ),
    # A worker that is copied while its tasks are long.
    "a_superseded_process_goes_on": Where(
        Profile(executors=("dramatiq",), takes=(20.0, 45.0), ends=("s",), requests=22),
        tuple(Fault("clone", at, 40.0, host) for at, host in ((8.0, "w1"), (28.0, "w2"), (48.0, "w3"), (68.0, "w1"))),
    ),
    # A start that is answered when its lease is over and the next one has begun.
    "a_service_passes_on_what_an_earlier_lease_started": Where(
        Profile(executors=("local",), takes=(20.0, 45.0), ends=("s",), requests=22),
        _now_and_then("db.crawls", 0.5, every=20, lasts=12.0),
    ),
    "a_worker_runs_what_an_earlier_lease_started": Where(
        Profile(executors=("dramatiq",), takes=(8.0, 20.0), ends=("s",), requests=22),
        _now_and_then("db.crawls", 0.5, every=15, lasts=8.0),
    ),
    # A look at an agent that has just lost its service, or has not yet answered the next one.
    "silence_is_taken_for_death": Where(
        Profile(executors=("local",), takes=(8.0, 20.0), ends=("s",), requests=22),
        tuple(Fault("freeze.agent", 8.0 + at * 9, 6.0, f"s{at % 3 + 1}") for at in range(9))
        + tuple(Fault("link", 9.0 + at * 3, 0.0, f"s{at % 3 + 1}") for at in range(27)),
    ),
    # A start that is asked for again, when the link to the agent breaks, and is answered twice.
    "an_agent_runs_what_it_has_run": Where(
        Profile(executors=("local",), takes=(0.01, 0.3), ends=("s",), requests=22),
        tuple(Fault("link", 5 + at * 1.5, 0.0, f"s{number}") for at in range(40) for number in (1, 2, 3)),
    ),
}
#: The seeds that find them, and what these show: invariants, ``insight`` (:mod:`tests.simulation.oracles`), ``error``
#: (an error of the product's own).  ``python -m tests.simulation --bugs`` looks for others.
FOUND: Final[dict[str, tuple[int, str]]] = {
    "a_start_compares_with_nothing": (50014, "I-3 insight"),
    "a_cancel_misses_what_is_queued": (50009, "I-21 L-1"),
    "a_stop_is_told_to_nobody": (50036, "I-21"),
    "a_stale_end_is_taken_for_the_current_one": (50045, "I-6 I-22"),
    "an_end_that_is_told_again_frees_its_slot_again": (50014, "I-12 I-13"),
    "retries_are_off_by_one": (50000, "I-20"),
    "losses_are_charged_to_the_user": (50001, "I-20"),
    "losses_are_not_counted": (50001, "I-20"),
    "a_retry_is_due_at_once": (50000, "I-15"),
    "a_clear_begins_its_fences_anew": (50000, "I-1 I-18 L-1 error"),
    "a_clear_starts_beside_a_cancel": (50098, "I-8 I-21"),
    "a_run_that_waits_is_cleared_into_running": (50005, "I-8"),
    "rules_look_at_what_has_not_ended": (50001, "I-6"),
    "skipped_counts_as_success": (50021, "I-6"),
    "runs_end_with_something_open": (50000, "I-8"),
    "an_allowed_failure_fails_its_run": (50000, "I-8"),
    "a_run_starts_before_its_time": (50000, "I-15"),
    "limits_are_counted_first_and_claimed_later": (50015, "I-12"),
    "a_slot_is_given_back_twice": (50000, "I-12 I-13 error"),
    "a_slot_is_never_given_back": (50009, "I-13"),
    "a_lowered_limit_is_ignored": (50006, "I-12"),
    "max_active_runs_is_only_read": (50047, "I-12"),
    "a_worker_that_is_gone_keeps_its_credits": (50007, "insight"),
    "a_rescue_is_no_compare_and_set": (50040, "I-5 insight"),
    "a_lease_is_counted_by_the_hosts_clock": (50036, "I-5 insight"),
    "no_amnesty": (50007, "insight"),
    "the_dead_boots_of_a_worker_are_kept": (50068, "L-2"),
    "a_superseded_process_goes_on": (50003, "I-5 L-2"),
    "every_process_signs_with_a_key_of_its_own": (50000, "L-1 L-2"),
    "the_run_is_not_locked": (50000, "error"),
    "row_counts_are_not_looked_at": (50000, "error"),
    "downstreams_are_told_afterwards": (50002, "I-8"),
    "events_are_written_afterwards": (50002, "I-4 I-7 I-8 I-9 I-12 I-18 L-2 STEP"),
    "answers_come_before_the_commit": (50009, "I-6 I-9 I-11"),
    "an_idempotency_key_is_not_looked_at": (50000, "I-11"),
    "a_repeated_transaction_makes_a_second_run": (50000, "I-10 I-11"),
    "nobody_looks_without_a_hint": (50000, "L-2"),
    "silence_is_taken_for_death": (50000, "I-5 insight"),
    "the_dead_are_launched_again": (50035, "L-1 L-2"),
    "what_was_never_received_is_given_up": (50020, "insight"),
    "an_offer_is_made_once": (50000, "L-1 L-2"),
    "an_outage_is_a_failure": (50004, "insight"),
    "a_launch_gets_another_id": (50004, "L-1 L-2"),
    "expiry_is_judged_by_the_hosts_clock": (50007, "insight"),
    "local_agents_have_no_lease": (50018, "I-5 insight"),
    "a_renewal_counts_from_its_answer": (50018, "I-5 insight"),
    "an_end_is_acknowledged_before_it_is_written": (50017, "L-2"),
    "the_fence_goes_by_the_wall_clock": (50000, "error"),
    "the_fence_kills_nothing": (50006, "insight"),
    "workers_are_told_a_longer_lease": (50000, "I-5 insight"),
    "a_lease_counts_from_its_answer": (50163, "I-5 insight"),
    "an_agent_runs_what_it_has_run": (50059, "I-3 L-2"),
    "a_new_process_claims_what_died": (50081, "L-2"),
    "a_supervisor_does_not_stop": (50036, "I-21"),
    "a_service_passes_on_what_an_earlier_lease_started": (50003, "I-5 insight"),
    "a_worker_runs_what_an_earlier_lease_started": (50069, "insight"),
    "what_is_deaf_to_sigterm_is_left_to_itself": (50000, "L-6"),
    "answers_to_several_calls_are_mixed_up": (50004, "I-3 I-22"),
    "a_success_is_told_of_what_never_ran": (50066, "I-4"),
    "a_success_is_told_as_a_failure": (50000, "I-4"),
    "an_output_is_dropped": (50001, "I-22"),
    "a_success_is_told_as_lost": (50000, "insight"),
}
#: Those that a few seeds are enough for.
QUICK: Final = frozenset(
    {
        "nobody_looks_without_a_hint",
        "an_offer_is_made_once",
        "a_cancel_misses_what_is_queued",
        "retries_are_off_by_one",
        "losses_are_charged_to_the_user",
        "losses_are_not_counted",
        "a_retry_is_due_at_once",
        "a_clear_begins_its_fences_anew",
        "rules_look_at_what_has_not_ended",
        "runs_end_with_something_open",
        "an_allowed_failure_fails_its_run",
        "a_run_starts_before_its_time",
        "a_slot_is_given_back_twice",
        "a_slot_is_never_given_back",
        "every_process_signs_with_a_key_of_its_own",
        "the_run_is_not_locked",
        "row_counts_are_not_looked_at",
        "events_are_written_afterwards",
        "answers_to_several_calls_are_mixed_up",
        "what_is_deaf_to_sigterm_is_left_to_itself",
        "a_success_is_told_as_a_failure",
        "an_output_is_dropped",
        "a_success_is_told_as_lost",
    }
)
BUGS: Final = _catalogue()
