"""What only the simulation can judge, because it knows who could hear whom, and who stood still."""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.chance import EPOCH
from tests.simulation.world import LEASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.world import World

#: How long what stood still may go on before it notices what time it is: the fence looks once a second.
_NOTICES: Final = 2.0
#: How long the start of an attempt may be on its way into the log while its agent dies.
_WRITING: Final = 30.0
#: How coarsely the API says that it serves, beside the time after which its silence is an outage.
_COARSE: Final = 3.0


def judge(world: World, lines: Sequence[dict[str, Any]]) -> list[str]:
    """Return everything that is wrong."""
    events = [line for line in lines if line["type"] == "event"]
    return [
        *_outages_that_fail_tasks(events),
        *_early_rescues(world, events),
        *_rescues_of_the_living(world, events),
        *_losses_without_a_cause(world, events),
        *_late_words(world, lines, events),
        *_slots_of_the_dead(world, lines),
    ]


def _outages_that_fail_tasks(events: Sequence[dict[str, Any]]) -> Iterator[str]:
    """No executor here ever has a reason to refuse a task; only its references may be wrong."""
    for event in events:
        if event.get("reason") == "rejected" and (event.get("data") or {}).get("cause") != "config":
            yield f"an outage has failed a task: {event}"


def _slots_of_the_dead(world: World, lines: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Find queues that are given, at rest, other slots than those of the workers that are still there."""
    if lines[-1]["type"] != "rest":
        return
    last = {line["key"]: line["capacity"] for line in lines if line["type"] == "limit"}
    for key, capacity in last.items():
        queue = key.removeprefix("slots:dramatiq/")
        slots = world.slots_of(queue)
        if queue != key and capacity != slots + max(1, slots // 10):
            yield f"in the end {key} has {capacity}, and its workers have {slots} slots"


def _early_rescues(world: World, events: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Find leases of workers that ran out though they were renewed, or for time in which no API could have done so."""
    lease = LEASE.total_seconds()
    quiet = min(15.0, lease / 2)
    ids = {home.host.name: home.agent_id for host in world.site.hosts.values() for home in host.homes.values()}
    for event in events:
        is_rescue = event.get("actor") == "scheduler" and (event.get("data") or {}).get("cause") == "worker_lost"
        host = world.site.ran_on.get(event.get("attempt_id", ""))
        if not is_rescue or host is None or not host.startswith("w") or not _by_lease(event):
            continue
        at = _seconds(event["at"])
        heard = max((beat for beat in world.site.beats.get(ids[host], ()) if beat < at), default=0.0)
        for began, done in world.site.renewals.get(ids[host], ()):
            if done <= at < began + lease:
                yield f"given up {at - done:.1f} s after its lease was renewed: {event}"
        for began, *rest in world.site.network.outages:
            ended = min(rest[0], at) if rest else at
            if ended > heard and ended - max(began, heard) > quiet + _COARSE and at - ended < lease - _COARSE:
                yield (
                    f"given up {at - ended:.1f} s after an outage of the API from {began:.1f} to {ended:.1f} s, "
                    f"heard of last at {heard:.1f} s: {event}"
                )


def _rescues_of_the_living(world: World, events: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Find attempts that a scheduler gave up for the death of an agent of its host that had not died."""
    places: dict[str, str] = {}
    began: dict[str, float] = {}
    for event in events:
        attempt, at = event.get("attempt_id", ""), _seconds(event["at"])
        if event["kind"] == "task.queued":
            places[attempt] = str((event.get("data") or {}).get("slots")).partition("@")[2]
        elif event["kind"] == "task.running":
            began[attempt] = at
        elif event.get("actor") == "scheduler" and (event.get("data") or {}).get("cause") == "worker_lost":
            place, since = places.get(attempt, ""), began.get(attempt, 0.0) - _WRITING
            deaths = world.site.agent_deaths.get(place, ())
            if place and not _by_lease(event) and not any(since < death <= at for death in deaths):
                yield f"given up as dead, and its agent lives: {event}"


def _losses_without_a_cause(world: World, events: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Find attempts that their own supervisor gave up though nothing had happened to it: they were only slow."""
    began: dict[str, float] = {}
    for event in events:
        attempt, at, data = event.get("attempt_id", ""), _seconds(event["at"]), event.get("data") or {}
        if event["kind"] == "task.running":
            began[attempt] = at
        elif event.get("actor") == "supervisor" and data.get("attempt") == "lose" and data["cause"] == "worker_lost":
            since = began.get(attempt, at)
            ends = world.site.ends.get(attempt, ())
            if not any(since <= upset <= end for host, end in ends for upset in world.site.upsets.get(host, ())):
                yield f"given up by its own supervisor, and nothing had happened to that: {event}"


def _by_lease(event: dict[str, Any]) -> bool:
    return "lease" in str((event.get("data") or {}).get("error"))


def _late_words(
    world: World, lines: Sequence[dict[str, Any]], events: Sequence[dict[str, Any]]
) -> Iterator[str]:  # fmt: skip
    """Find tasks that go on beside their successors, or begin after they were given up.

    Only where nothing kept their supervisor from knowing better.
    """
    if world.weather.counts["clone"]:
        return
    began: dict[tuple[Any, ...], dict[int, float]] = {}
    given_up: dict[str, float] = {}
    for event in events:
        if event["kind"] == "task.running":
            began.setdefault(_instance(event), {})[event["try_number"]] = _seconds(event["at"])
        elif event.get("actor") == "scheduler" and _by_lease(event):
            given_up[event["attempt_id"]] = _seconds(event["at"])
    careless = _careless(lines)
    for line in [*(line for line in lines if line["type"] == "task"), *world.site.deaths]:
        over = given_up.get(line["attempt_id"], math.inf)
        if line["what"] == "start" and line["t"] > over and not _stood_still(world, line):
            yield f"a start {line['t'] - over:.3f} s after it was given up: {line}"
        later = [at for fence, at in began.get(_instance(line), {}).items() if fence > line["fence"]]
        if not later or line["t"] <= min(later) or (line["dag_id"], line["task_id"]) in careless:
            continue
        if not _stood_still(world, line):
            late = line["t"] - min(later)
            yield f"{line['what']} of a superseded attempt {late:.3f} s after its successor's start: {line}"


def _stood_still(world: World, line: dict[str, Any]) -> bool:
    """Whether the host of a line of the journal stood still then, or had just woken up."""
    frozen = world.site.frozen.get(world.site.ran_on[line["attempt_id"]], ())
    return any(begin <= line["t"] <= end + _NOTICES for begin, end in frozen)


def _careless(lines: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return tasks that have asked to go on without contact, in any version of their DAG."""
    return {
        (line["dag_id"], task_id)
        for line in lines
        if line["type"] == "dag"
        for task_id, task in line["document"]["tasks"].items()
        if task.get("on_lost_contact") == "continue"
    }


def _instance(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["dag_id"], line["run_id"], line["task_id"]


def _seconds(text: str) -> float:
    return (datetime.fromisoformat(text) - EPOCH).total_seconds()
