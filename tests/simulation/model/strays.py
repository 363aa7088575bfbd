"""What was meant for executors that nobody has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metastore.commands.strays import Followed
from metastore.queries.strays import PAGE, Strays
from metastore.queries.work import MOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from dag.ids import AttemptId
    from tests.simulation.model.rows import Agent, Instance, ModelTx, Run

_UNPLACED = ("pending", "scheduled", "up_for_retry")


def _there(tx: ModelTx, own: Sequence[str], within: timedelta | None) -> set[str]:
    found = set(own)
    for agent in tx.data.agents.values():
        if within is not None and agent.kind == "agent" and _speaks(agent, tx.now, within):
            found |= {one["name"] for one in agent.executors if one.get("by_queue") or one["slots"] != 0}
    return found


def _speaks(agent: Agent, now: datetime, within: timedelta) -> bool:
    if agent.lease_until is not None and agent.lease_until > now:
        return True
    return agent.agent_id.startswith("scheduler:") and agent.seen_at > now - within


def _lost(run: Run, known: set[str]) -> list[Instance]:
    return [one for one in run.instances if one.state in _UNPLACED and one.executor not in known]


def follow_default(tx: ModelTx, run: int, default: str, own: Sequence[str], within: timedelta | None) -> Followed:
    found = tx.data.runs.get(run)
    if found is None or found.state != "running":
        return Followed(0, {})
    lost = _lost(found, _there(tx, own, within))
    mine = [one for one in lost if one.task.executor is None]
    before = {one.executor for one in mine}
    named = {one.id: one.executor for one in lost if one.task.executor is not None}
    if mine:
        data = {"from": sorted(before), "to": default, "instances": len(mine)}
        tx.event("run.moved", actor="scheduler", run=found, reason="executor", data=data)
        if any(one.state == "scheduled" for one in mine):
            tx.topics.add("ready")
    for one in mine:
        one.executor = default
    return Followed(len(mine), named)


def find_strays(tx: ModelTx, own: Sequence[str], within: timedelta | None, after: int) -> Strays:
    known = _there(tx, own, within)
    ready = [
        (one.id, run.id)
        for run in tx.data.runs.values()
        for one in _lost(run, known)
        if one.state == "scheduled" and one.blocked_on is None and one.id > after
    ]
    offers: list[AttemptId] = [
        placed.id  # type: ignore[misc]  # a plain text in the model
        for placed in (tx.data.active[key] for key in sorted(tx.data.active))
        if placed.state == "queued" and placed.placed_on is None and placed.executor not in known
    ]
    return Strays(sorted(ready)[:PAGE], offers[:MOST])


def find_runs_with_strays(tx: ModelTx, own: Sequence[str], within: timedelta | None, after: int) -> list[int]:
    known = _there(tx, own, within)
    running = (run for run in tx.data.runs.values() if run.state == "running" and run.id > after)
    return [run.id for run in running if _lost(run, known)][:MOST]
