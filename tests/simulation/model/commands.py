"""The commands about DAGs and runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dag.errors import AlreadyExists, IllegalStep, KeyReused, NotFound, RevisionMismatch
from dag.plan import compile_plan
from metastore.commands.dags import DagPut
from metastore.commands.runs import RunCreated
from tests.simulation.model import rules
from tests.simulation.model.going import admit, end_if_done, let_go_of_waiting, look_at_due, stop_everything
from tests.simulation.model.records import dag_record, run_record, task_record
from tests.simulation.model.rows import RUN_FINAL, Dag, Instance, Kept, Run, Version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from metastore.commands.admission import Admitted
    from tests.simulation.model.rows import ModelTx

# DAGs


def put_dag(  # what a PUT is made of
    tx: ModelTx,
    *,
    spec: Any,
    document: Any,
    content_hash: str,
    actor: str,
    if_revision: int | None = None,
    must_not_exist: bool = False,
) -> DagPut:
    old = tx.data.dags.get(spec.dag_id)
    if if_revision is not None and if_revision != (None if old is None else old.revision):
        raise RevisionMismatch("DAG", spec.dag_id, if_revision, None if old is None else old.revision)
    if old is not None and must_not_exist:
        raise AlreadyExists("DAG", spec.dag_id)
    if old is not None and old.versions[-1].content_hash == content_hash:
        return DagPut(dag_record(old), len(old.versions), created=False, changed=False)
    version = Version(content_hash, document, compile_plan(spec))
    facts = {"description": spec.description, "tags": list(spec.tags), "owners": list(spec.owners)}
    if old is None:
        dag = tx.data.dags[spec.dag_id] = Dag(spec.dag_id, [version], tx.now, tx.now, **facts)
    else:
        dag = old
        dag.versions.append(version)
        dag.revision += 1
        dag.updated_at = tx.now
        for name, value in facts.items():
            setattr(dag, name, value)
    _set_limits(tx, spec)
    data = {"version": len(dag.versions), "content_hash": content_hash}
    tx.event("dag.put", actor=actor, dag_id=spec.dag_id, data=data)
    tx.topics.add("runs")
    return DagPut(dag_record(dag), len(dag.versions), created=old is None, changed=True)


def _set_limits(tx: ModelTx, spec: Any) -> None:
    for name, capacity in (("runs", spec.max_active_runs), ("tasks", spec.max_active_tasks)):
        key = f"dag:{spec.dag_id}:{name}"
        before = tx.data.limits.get(key)
        if before is not None and before.capacity == capacity:
            continue
        tx.set_capacity(key, capacity)
        tx.topics.add("runs" if name == "runs" else "ready")
        if before is not None and name == "tasks":
            for run in tx.data.runs.values():
                for one in run.instances:
                    if one.blocked_on == key:
                        one.blocked_on = one.reason = None


def patch_dag(
    tx: ModelTx,
    dag_id: str,
    *,
    actor: str,
    paused: bool | None = None,
    tags: Sequence[str] | None = None,
    if_revision: int | None = None,
) -> Any:  # fmt: skip
    dag = tx.data.dags.get(dag_id)
    if dag is None:
        raise NotFound("DAG", dag_id)
    if if_revision is not None and if_revision != dag.revision:
        raise RevisionMismatch("DAG", dag_id, if_revision, dag.revision)
    new_tags = dag.tags if tags is None else list(dict.fromkeys(tags))
    new_paused = dag.paused if paused is None else paused
    if (new_paused, new_tags) == (dag.paused, dag.tags):
        return dag_record(dag)
    dag.revision += 1
    dag.updated_at = tx.now
    if new_paused != dag.paused:
        tx.event("dag.paused" if new_paused else "dag.unpaused", actor=actor, dag_id=dag_id)
    if new_tags != dag.tags:
        tx.event("dag.tagged", actor=actor, dag_id=dag_id, data={"tags": new_tags})
    dag.paused, dag.tags = new_paused, new_tags
    tx.topics.add("runs")
    return dag_record(dag)


# Runs


def create_run(tx: ModelTx, new: Any) -> RunCreated:
    dag = tx.data.dags.get(new.dag_id)
    if dag is None:
        raise NotFound("DAG", new.dag_id)
    version = len(dag.versions) if new.version is None else new.version
    if not 1 <= version <= len(dag.versions):
        raise NotFound("DAG version", f"{new.dag_id}/{version}")
    warnings = ("dag_paused",) * dag.paused + ("run_after_in_future",) * (new.run_after > tx.now)
    there = tx.data.by_name.get((new.dag_id, new.run_id))
    if there is not None:
        if there.request_id != new.request_id:
            raise AlreadyExists("run", f"{new.dag_id}/{new.run_id}")
        return RunCreated(run_record(there), warnings)
    run = Run(
        len(tx.data.runs) + 1,
        dag,
        new.run_id,
        version,
        new.run_type,
        new.params,
        new.labels,
        new.note,
        new.logical_date,
        new.data_interval_start,
        new.data_interval_end,
        new.run_after,
        tx.now,
        new.request_id,
        new.actor,
    )
    tx.data.runs[run.id] = tx.data.by_name[new.dag_id, new.run_id] = run
    tx.event("run.queued", actor=new.actor, run=run, to_state="queued")
    tx.topics.add("runs")
    return RunCreated(run_record(run), warnings)


def once(tx: ModelTx, principal: str, key: str, fingerprint: str, effect: Any) -> tuple[Any, bool]:
    kept = tx.data.answers.get((principal, key))
    if kept is None:
        answer = effect(tx)
        tx.data.answers[principal, key] = Kept(fingerprint, answer, tx.now)
        return answer, False
    if kept.fingerprint != fingerprint:
        raise KeyReused(key)
    return kept.answer, True


def forget(tx: ModelTx, older_than: timedelta) -> int:
    old = [name for name, kept in tx.data.answers.items() if kept.created_at < tx.now - older_than]
    for name in old:
        del tx.data.answers[name]
    return len(old)


def start_run(tx: ModelTx, run: int, default_executor: str, outlets: Sequence[Any] = ()) -> list[Admitted]:
    found = tx.data.runs.get(run)
    if found is None or found.state != "queued" or found.run_after > tx.now or found.dag.paused:
        return []
    limit = tx.data.limits[found.runs_key]
    if not limit.has_room:
        return []
    limit.used += 1
    tx.run_event(found, "running", actor="scheduler")
    found.started_at = tx.now
    found.deadline_at = None if found.plan.run_timeout is None else tx.now + found.plan.run_timeout
    if found.deadline_at is not None:
        tx.topics.add("due")
    return _go_on(tx, found, default_executor, outlets)


def materialise(tx: ModelTx, run: int, default_executor: str, outlets: Sequence[Any] = ()) -> list[Admitted]:
    found = tx.data.runs.get(run)
    if found is None or found.state != "running" or found.materialised:
        return []
    return _go_on(tx, found, default_executor, outlets)


def _go_on(tx: ModelTx, run: Run, default_executor: str, outlets: Sequence[Any]) -> list[Admitted]:
    for task in run.plan.tasks[len(run.instances) :] if not run.materialised else ():
        tx.data.instances += 1
        one = Instance(tx.data.instances, run, task, task.executor or default_executor)
        run.instances.append(one)
        one.due_at = None if rules.judge(one) == "wait" else tx.now
    run.materialised = True
    look_at_due(tx, run)
    end_if_done(tx, run, "scheduler")
    return admit(tx, outlets)


def admit_ready(tx: ModelTx, outlets: Sequence[Any]) -> list[Admitted]:
    return admit(tx, outlets)


def advance_run(tx: ModelTx, run: int) -> bool:
    found = tx.data.runs.get(run)
    if found is not None and found.state == "running":
        look_at_due(tx, found)
        end_if_done(tx, found, "scheduler")
    return False


def cancel_run(tx: ModelTx, dag_id: str, run_id: str, *, actor: str) -> Any:
    run = tx.data.by_name.get((dag_id, run_id))
    if run is None:
        raise NotFound("run", f"{dag_id}/{run_id}")
    if run.state in ("success", "failed"):
        raise IllegalStep(run.state, "cancel")
    if run.state in ("queued", "running"):
        run.cancel_asked = True
        was_queued = run.state == "queued"
        tx.run_event(run, "cancelled" if was_queued else "cancelling", actor=actor, reason="user")
        stop_everything(tx, run, "cancelled", "user", actor=actor)
        if was_queued:
            run.ended_at = tx.now
        end_if_done(tx, run, actor)
        let_go_of_waiting(tx)
    return run_record(run)


def time_out_run(tx: ModelTx, run: int) -> bool:
    found = tx.data.runs.get(run)
    if found is None or found.state != "running" or found.deadline_at is None or found.deadline_at > tx.now:
        return False
    tx.run_event(found, "cancelling", actor="scheduler", reason="run_timeout")
    stop_everything(tx, found, "skipped", "run_timeout", actor="scheduler")
    end_if_done(tx, found, "scheduler")
    let_go_of_waiting(tx)
    return True


def clear_run(  # the API's body
    tx: ModelTx,
    dag_id: str,
    run_id: str,
    *,
    task_ids: Sequence[str] | None,
    only_failed: bool,
    downstream: bool,
    dry_run: bool,
    actor: str,
) -> list[Any]:
    run = tx.data.by_name.get((dag_id, run_id))
    if run is None:
        raise NotFound("run", f"{dag_id}/{run_id}")
    if run.state == "cancelling":
        raise IllegalStep(run.state, "clear")
    chosen = [one for one in run.instances if task_ids is None or one.task.task_id in task_ids]
    if only_failed:
        chosen = [one for one in chosen if one.state in ("failed", "upstream_failed", "cancelled")]
    wanted = {one.task.no for one in chosen} if task_ids is not None or only_failed else None
    if wanted is not None and downstream:
        wanted = _with_downstream(run, wanted)
    chosen = [one for one in run.instances if (wanted is None or one.task.no in wanted) and one.is_final]
    records = [task_record(one) for one in chosen]
    was_cut_short = run.state in RUN_FINAL and len(run.instances) < len(run.plan.tasks)
    if not dry_run and (chosen or was_cut_short):
        _clear(tx, run, chosen, actor)
    return records


def _with_downstream(run: Run, wanted: set[int]) -> set[int]:
    reached: set[int] = set()
    waiting = set(wanted)
    while waiting:
        reached |= waiting
        waiting = {below for number in waiting for below in run.plan.tasks[number].downstream} - reached
    return reached


def _clear(tx: ModelTx, run: Run, chosen: list[Instance], actor: str) -> None:
    for one in chosen:
        tx.task_event(one, "pending", actor=actor, reason="clear")
        one.reason, one.error, one.output = None, None, None
        one.failures = one.losses = 0
        one.due_at = tx.now
        one.scheduled_at = one.queued_at = one.started_at = one.ended_at = None
    run.materialised = len(run.instances) == len(run.plan.tasks)
    if run.state in RUN_FINAL:
        run.cancel_asked, run.reason, run.ended_at = False, None, None
        tx.run_event(run, "queued", actor=actor)
        tx.topics.add("runs")
    elif run.state == "running":
        look_at_due(tx, run)
        tx.topics.add("due")
    end_if_done(tx, run, actor)
