from __future__ import annotations

import asyncio
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from dag.errors import AlreadyExists, IllegalStep, NotFound
from dag.outcomes import Ended
from metastore.commands.attempts import NotStarted, Started
from metastore.commands.clear import clear_run
from metastore.commands.dags import patch_dag
from metastore.commands.runs import NewRun, create_run
from metastore.commands.stopping import time_out_run
from metastore.queries import work
from tests.metastore.flow import Flow

if TYPE_CHECKING:
    from metastore.store import Store
    from tests.world import FakeClock

DIAMOND: dict[str, Any] = {
    "a": {},
    "b": {"depends_on": ["a"]},
    "c": {"depends_on": ["a"]},
    "d": {"depends_on": ["b", "c"]},
}


@pytest.fixture
async def flow(store: Store, clock: FakeClock) -> Flow:
    made = Flow(store, clock)
    await made.slots(4)
    return made


async def test_a_diamond_runs_in_the_order_of_its_edges(flow: Flow) -> None:
    await flow.put(DIAMOND)
    run, admitted = await flow.trigger()
    order = await flow.finish_all(admitted)
    assert order[0] == "a"
    assert sorted(order[1:3]) == ["b", "c"]
    assert order[3] == "d"
    assert (await flow.run(run)).state == "success"
    assert set((await flow.states(run)).values()) == {"success"}
    assert set((await flow.used()).values()) == {0}


async def test_every_transition_has_its_event_and_the_run_seq_is_dense(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {"depends_on": ["a"]}})
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted)
    events = await flow.events(run)
    assert [event.run_seq for event in events] == list(range(1, len(events) + 1))
    assert [(event.kind, event.task_id) for event in events] == [
        ("run.queued", None),
        ("run.running", None),
        ("task.scheduled", "a"),
        ("task.queued", "a"),
        ("task.running", "a"),
        ("task.success", "a"),
        ("task.scheduled", "b"),
        ("task.queued", "b"),
        ("task.running", "b"),
        ("task.success", "b"),
        ("run.success", None),
    ]


async def test_finish_that_asks_for_more_starts_the_next_attempt_in_the_same_transaction(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {"depends_on": ["a"]}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    noted = await flow.end(a.attempt_id, more=True)
    [b] = noted.admitted
    assert b.body is not None
    assert (await flow.states(run))["b"] == "running"
    # Its supervisor asks again because the answer was lost: the same boot_id is answered, another is not.
    assert isinstance(await flow.start(b.attempt_id), Started)
    assert isinstance(await flow.start(b.attempt_id, boot="other"), NotStarted)
    await flow.check()


async def test_a_failure_fails_what_needs_it_and_the_run(flow: Flow) -> None:
    await flow.put(DIAMOND)
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted, fail=frozenset({"b"}))
    assert await flow.states(run) == {"a": "success", "b": "failed", "c": "success", "d": "upstream_failed"}
    assert (await flow.run(run)).state == "failed"


async def test_an_allowed_failure_does_not_fail_the_run(flow: Flow) -> None:
    await flow.put({"a": {"allow_failure": True}, "b": {"depends_on": ["a"], "trigger_rule": "all_done"}})
    run, admitted = await flow.trigger()
    assert await flow.finish_all(admitted, fail=frozenset({"a"})) == ["a", "b"]
    assert (await flow.run(run)).state == "success"


async def test_a_cleanup_that_succeeds_does_not_hide_a_failure(flow: Flow) -> None:
    await flow.put({"a": {}, "clean": {"depends_on": ["a"], "trigger_rule": "all_done"}})
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted, fail=frozenset({"a"}))
    assert (await flow.run(run)).state == "failed"


async def test_a_task_that_waits_for_nobody_starts_beside_its_upstreams(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {"depends_on": ["a"], "trigger_rule": "always"}, "c": {"depends_on": ["a"]}})
    run, admitted = await flow.trigger()
    assert [one.labels["task_id"] for one in admitted] == ["a", "b"]
    assert await flow.states(run) == {"a": "queued", "b": "queued", "c": "pending"}
    assert await flow.finish_all(admitted) == ["a", "b", "c"]


async def test_empty_tasks_settle_in_the_transaction_that_makes_them_ready(flow: Flow) -> None:
    chain: dict[str, Any] = {"e0": {"empty": {}}}
    for number in range(1, 40):
        chain[f"e{number}"] = {"empty": {}, "depends_on": [f"e{number - 1}"]}
    await flow.put(chain)
    run, admitted = await flow.trigger()
    assert admitted == []
    assert (await flow.run(run)).state == "success"


async def test_a_cascade_longer_than_one_command_goes_on_in_the_next(flow: Flow) -> None:
    chain: dict[str, Any] = {"e0": {"empty": {}}}
    for number in range(1, 1_300):
        chain[f"e{number}"] = {"empty": {}, "depends_on": [f"e{number - 1}"]}
    await flow.put(chain)
    run, _ = await flow.trigger()
    rounds = 0
    while (await flow.run(run)).state != "success":
        assert rounds < 20
        rounds += 1
        if not (await flow.run(run)).materialised:
            await flow.go_on(run)
        else:
            await flow.advance(run)
    assert rounds >= 2
    await flow.check()


async def test_nothing_is_scheduled_before_all_instances_exist(flow: Flow) -> None:
    wide: dict[str, Any] = {"root": {}} | {f"t{number}": {"depends_on": ["root"]} for number in range(2_300)}
    await flow.put(wide)
    run, admitted = await flow.trigger()
    assert admitted == []
    assert (await flow.run(run)).created_instances == 1_000
    assert await flow.store.read(work.unmaterialised_runs, flow.clock.now()) == [run.id]
    assert await flow.go_on(run) == []
    [root] = await flow.go_on(run)
    assert root.labels["task_id"] == "root"
    await flow.start(root.attempt_id)
    assert len((await flow.end(root.attempt_id)).admitted) == 4
    assert (await flow.run(run)).unfinished == 2_300


async def test_slots_are_never_overshot(flow: Flow) -> None:
    await flow.put({f"t{number}": {} for number in range(10)})
    run, admitted = await flow.trigger()
    assert len(admitted) == 4
    assert await flow.admit() == []
    await flow.start(admitted[0].attempt_id)
    noted = await flow.end(admitted[0].attempt_id)
    assert len(noted.admitted) == 1
    assert sorted((await flow.states(run)).values()).count("queued") == 4
    await flow.check()


async def test_max_active_tasks_holds_back_and_lets_go(flow: Flow) -> None:
    await flow.put({f"t{number}": {} for number in range(6)}, max_active_tasks=2)
    run, admitted = await flow.trigger()
    assert len(admitted) == 2
    await flow.admit()
    assert await flow.admit() == []
    order = await flow.finish_all(admitted)
    assert len(order) == 6
    assert (await flow.run(run)).state == "success"
    await flow.check()


async def test_max_active_runs_holds_back_and_lets_go(flow: Flow) -> None:
    await flow.put({"a": {}}, max_active_runs=1)
    first, admitted = await flow.trigger()
    second, none = await flow.trigger()
    assert none == []
    assert (await flow.run(second)).state == "queued"
    assert await flow.store.read(work.startable_runs, flow.clock.now()) == []
    await flow.finish_all(admitted)
    assert await flow.store.read(work.startable_runs, flow.clock.now()) == [second.id]
    assert len(await flow.begin(second)) == 1
    assert (await flow.run(first)).state == "success"


async def test_higher_priority_is_admitted_first_across_runs(flow: Flow) -> None:
    await flow.slots(1)
    await flow.put({"low": {"priority_weight": 1}}, dag_id="low")
    await flow.put({"high": {"priority_weight": 10}}, dag_id="high")
    _, [first] = await flow.trigger(dag_id="low")
    await flow.trigger(dag_id="low")
    await flow.trigger(dag_id="high")
    await flow.start(first.attempt_id)
    noted = await flow.end(first.attempt_id)
    assert [one.labels["task_id"] for one in noted.admitted] == ["high"]


async def test_a_failed_attempt_is_tried_again_when_its_time_has_come(flow: Flow) -> None:
    await flow.put({"a": {"retries": 1, "retry_delay": "PT30S"}})
    run, [first] = await flow.trigger()
    await flow.start(first.attempt_id)
    await flow.end(first.attempt_id, Ended.FAILED)
    assert await flow.states(run) == {"a": "up_for_retry"}
    assert await flow.store.read(work.due_runs, flow.clock.now()) == []
    flow.clock.move(timedelta(seconds=31))
    now = flow.clock.now() if flow.store.dialect == "sqlite" else flow.clock.now() + timedelta(days=40_000)
    assert await flow.store.read(work.due_runs, now) == [run.id]
    if flow.store.dialect == "postgresql":
        return  # database time cannot be moved
    await flow.advance(run)
    [second] = await flow.admit()
    assert second.labels["try_number"] == "2"
    await flow.start(second.attempt_id)
    await flow.end(second.attempt_id, Ended.FAILED)
    assert await flow.states(run) == {"a": "failed"}
    assert (await flow.run(run)).state == "failed"


async def test_losses_have_their_own_budget(flow: Flow) -> None:
    await flow.put({"a": {"retries": 0}})
    run, [one] = await flow.trigger()
    await flow.start(one.attempt_id)
    noted = await flow.conclude(one.attempt_id, Ended.LOST)
    [again] = noted.admitted
    assert again.labels["try_number"] == "2"
    await flow.start(again.attempt_id)
    await flow.end(again.attempt_id)
    assert (await flow.run(run)).state == "success"


async def test_a_poisonous_task_ends_by_the_loss_budget(sqlite_store: Store, clock: FakeClock) -> None:
    flow = Flow(sqlite_store, clock)
    await flow.slots()
    await flow.put({"a": {"retries": 5}})
    run, admitted = await flow.trigger()
    for _ in range(3):
        await flow.start(admitted[0].attempt_id)
        admitted = list((await flow.conclude(admitted[0].attempt_id, Ended.LOST)).admitted)
        if not admitted:
            clock.move(timedelta(seconds=600))
            await flow.advance(run)
            admitted = await flow.admit()
    await flow.start(admitted[0].attempt_id)
    await flow.conclude(admitted[0].attempt_id, Ended.LOST)
    assert await flow.states(run) == {"a": "failed"}
    assert (await flow.run(run)).state == "failed"


async def test_a_drained_attempt_is_requeued_without_cost(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [one] = await flow.trigger()
    await flow.start(one.attempt_id)
    noted = await flow.end(one.attempt_id, Ended.DRAINED)
    assert len(noted.admitted) == 1
    [row] = [row for row in await flow.events(run) if row.reason == "drained"]
    assert row.to_state == "scheduled"
    await flow.check()


async def test_an_attempt_that_was_queued_for_a_stopping_service_is_put_back_without_cost(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [one] = await flow.trigger()
    noted = await flow.conclude(one.attempt_id, Ended.DRAINED)
    [again] = noted.admitted
    assert again.labels["try_number"] == "2"
    assert [event.reason for event in await flow.events(run) if event.to_state == "scheduled"] == [None, "drained"]
    await flow.start(again.attempt_id)
    assert not (await flow.conclude(again.attempt_id, Ended.DRAINED)).accepted
    await flow.check()


async def test_a_stale_supervisor_changes_nothing(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {"depends_on": ["a"]}})
    run, [one] = await flow.trigger()
    await flow.start(one.attempt_id)
    await flow.conclude(one.attempt_id, Ended.LOST)
    before = (await flow.events(run), await flow.used(), await flow.states(run))
    assert not (await flow.end(one.attempt_id, output={"stale": True})).accepted
    assert not (await flow.conclude(one.attempt_id, Ended.LOST)).accepted
    assert isinstance(await flow.start(one.attempt_id), NotStarted)
    assert (await flow.events(run), await flow.used(), await flow.states(run)) == before


async def test_an_end_is_accepted_once(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [one] = await flow.trigger()
    await flow.start(one.attempt_id)
    assert (await flow.end(one.attempt_id)).accepted
    before = await flow.events(run)
    assert not (await flow.end(one.attempt_id)).accepted
    assert not (await flow.end(one.attempt_id, Ended.FAILED)).accepted
    assert await flow.events(run) == before


async def test_an_attempt_that_was_not_started_cannot_end(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [one] = await flow.trigger()
    assert not (await flow.end(one.attempt_id)).accepted
    assert await flow.states(run) == {"a": "queued"}


async def test_another_agent_cannot_start_what_is_placed_elsewhere(flow: Flow) -> None:
    await flow.put({"a": {}})
    _, [one] = await flow.trigger()
    other = Flow(flow.store, flow.clock, agent="agent-2", boot="boot-2")
    answer = await other.start(one.attempt_id)
    assert isinstance(answer, NotStarted)
    assert answer.code == "conflict"


async def test_outputs_reach_the_downstream_through_references(flow: Flow) -> None:
    await flow.put(
        {
            "a": {},
            "b": {
                "command": ["echo", "${outputs.a.rows[1]}", "n=${outputs.a.n}", "${params.day}", "${outputs.a}"],
                "env": {"WHEN": "${run.run_id}/${try_number}"},
                "depends_on": ["a"],
            },
        },
        params={"type": "object", "properties": {"day": {"type": "string"}}},
    )
    _, [a] = await flow.trigger(params={"day": "monday"})
    await flow.start(a.attempt_id)
    noted = await flow.end(a.attempt_id, output={"rows": ["x", "y"], "n": 2}, more=True)
    body = noted.admitted[0].body
    assert body is not None
    assert body["argv"] == ["echo", "y", "n=2", "monday", '{"rows":["x","y"],"n":2}']
    assert body["env"] == {"WHEN": "r1/1"}
    assert body["on_lost_contact"] == "kill"


async def test_a_request_and_an_interpreter_reach_the_worker(flow: Flow) -> None:
    http = {"method": "POST", "url": "https://x.example/${outputs.a.n}", "json": {"n": "${outputs.a.n}"}}
    python = {"source": "def main(): ...", "interpreter": "python3.12"}
    await flow.put(
        {
            "a": {},
            "b": {"command": None, "http": http, "depends_on": ["a"], "on_lost_contact": "continue"},
            "c": {"python": python, "depends_on": ["a"]},
        }
    )
    _, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    noted = await flow.end(a.attempt_id, output={"n": 2})
    found = [await flow.start(one.attempt_id) for one in [*noted.admitted, *await flow.admit()]]
    bodies = {one.body["task_id"]: one.body for one in found if isinstance(one, Started)}
    assert (bodies["b"]["kind"], bodies["b"]["on_lost_contact"]) == ("http", "continue")
    wanted = {"method": "POST", "url": "https://x.example/2", "headers": {}, "query": {}, "json": {"n": 2}}
    assert bodies["b"]["http"] == wanted
    assert (bodies["c"]["kind"], bodies["c"]["interpreter"]) == ("python", "python3.12")


async def test_a_reference_that_finds_nothing_fails_the_task_with_its_name(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {"command": ["echo", "${outputs.a.rows}"], "depends_on": ["a"], "retries": 3}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    noted = await flow.end(a.attempt_id, output={"n": 1}, more=True)
    [b] = noted.admitted
    assert b.body is None
    refused = await flow.start(b.attempt_id)
    assert isinstance(refused, NotStarted)
    assert refused.code == "failed"
    assert "outputs.a.rows" in refused.detail
    assert (await flow.states(run))["b"] == "failed"
    assert (await flow.run(run)).state == "failed"
    await flow.check()


async def test_a_start_that_cannot_be_put_together_again_fails_where_it_has_not_begun(flow: Flow) -> None:
    """Its answer was lost, and an upstream was cleared and left another output: it must neither hang nor be ended here.

    The question may be older than the answer, and what it asks about be running.
    """
    await flow.put({"a": {}, "b": {"command": ["echo", "${outputs.a.rows}"], "depends_on": ["a"]}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    noted = await flow.end(a.attempt_id, output={"rows": 1}, more=True)
    [b] = noted.admitted
    await flow.store.write(
        clear_run, "d", run.run_id, task_ids=["a"], only_failed=False, downstream=False, dry_run=False, actor="key:u"
    )
    await flow.advance(run)
    [again] = await flow.admit()
    await flow.start(again.attempt_id)
    await flow.end(again.attempt_id)
    answer = await flow.start(b.attempt_id)
    assert isinstance(answer, Started)
    argv = answer.body.get("argv")
    assert (answer.body["kind"], answer.body["env"]) == ("command", {})
    assert argv is not None
    assert "outputs.a.rows" in argv[-1]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=False)
    assert (done.returncode, "outputs.a.rows" in done.stderr) == (1, True)
    assert (await flow.states(run))["b"] == "running"
    assert (await flow.end(b.attempt_id, Ended.FAILED)).accepted
    assert (await flow.run(run)).state == "failed"
    await flow.check()


async def test_a_shell_line_and_source_are_the_authors_own_text(flow: Flow) -> None:
    line, source = "echo ${HOME:-none} $${x}", "def main():\n    return '${x}'\n"
    await flow.put({"a": {}, "b": {"command": line, "shell": True}, "c": {"python": {"source": source}}})
    _, [a, b, c] = await flow.trigger()
    bodies = [(await flow.start(one.attempt_id)) for one in (a, b, c)]
    assert all(isinstance(started, Started) for started in bodies)
    assert [started.body.get("shell") for started in bodies if isinstance(started, Started)] == [None, line, None]
    assert [started.body.get("source") for started in bodies if isinstance(started, Started)] == [None, None, source]


async def test_a_task_that_cleans_up_finds_null_where_its_upstream_failed(flow: Flow) -> None:
    command = ["echo", "${outputs.a.rows[0]}", "${outputs.b}"]
    clean = {"command": command, "depends_on": ["a", "b"], "trigger_rule": "all_done"}
    await flow.put({"a": {}, "b": {}, "clean": clean})
    _, [a, b] = await flow.trigger()
    await flow.start(a.attempt_id)
    await flow.start(b.attempt_id)
    await flow.end(a.attempt_id, Ended.FAILED)
    noted = await flow.end(b.attempt_id, output=[1], more=True)
    body = noted.admitted[0].body
    assert body is not None
    assert body["argv"] == ["echo", "null", "[1]"]


async def test_a_cancel_ends_what_waits_and_asks_what_runs(flow: Flow) -> None:
    await flow.slots(2)
    await flow.put({"a": {}, "b": {}, "c": {}, "d": {"depends_on": ["a"]}})
    run, [a, b] = await flow.trigger()
    await flow.start(a.attempt_id)
    cancelled = await flow.cancel(run)
    assert cancelled.state == "cancelling"
    assert await flow.states(run) == {"a": "cancelling", "b": "cancelled", "c": "cancelled", "d": "cancelled"}
    answer = await flow.start(b.attempt_id)
    assert isinstance(answer, NotStarted)
    assert answer.code == "gone"
    [stop] = await flow.store.read(work.stopping, [flow.agent])
    assert (stop.id, stop.reason) == (a.attempt_id, "user")
    assert (await flow.cancel(run)).state == "cancelling"
    await flow.end(a.attempt_id, Ended.CANCELLED)
    assert (await flow.run(run)).state == "cancelled"
    assert (await flow.cancel(run)).state == "cancelled"
    assert set((await flow.used()).values()) == {0}


async def test_a_start_that_is_asked_for_again_after_a_cancel_says_that_it_must_not_begin(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [a] = await flow.trigger()
    first = await flow.start(a.attempt_id)
    assert isinstance(first, Started)
    assert first.stop_reason is None
    await flow.cancel(run)
    again = await flow.start(a.attempt_id)
    assert isinstance(again, Started)
    assert again.stop_reason == "user"


async def test_a_success_that_beats_the_cancel_stays_a_success(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    await flow.cancel(run)
    assert (await flow.end(a.attempt_id)).accepted
    assert await flow.states(run) == {"a": "success"}
    assert (await flow.run(run)).state == "success"


async def test_a_queued_run_is_cancelled_at_once(flow: Flow) -> None:
    await flow.put({"a": {}})
    run = await flow.create()
    assert (await flow.cancel(run)).state == "cancelled"
    assert await flow.begin(run) == []
    assert set((await flow.used()).values()) == {0}


async def test_a_run_that_ended_well_cannot_be_cancelled(flow: Flow) -> None:
    await flow.put({"a": {}})
    run, admitted = await flow.trigger()
    await flow.finish_all(admitted)
    with pytest.raises(IllegalStep):
        await flow.cancel(run)


async def test_fail_fast_ends_the_rest_of_the_run(flow: Flow) -> None:
    await flow.put({"a": {}, "b": {}, "c": {"depends_on": ["b"]}}, fail_fast=True)
    run, [a, b] = await flow.trigger()
    await flow.start(a.attempt_id)
    await flow.start(b.attempt_id)
    await flow.end(a.attempt_id, Ended.FAILED)
    assert await flow.states(run) == {"a": "failed", "b": "cancelling", "c": "skipped"}
    await flow.end(b.attempt_id, Ended.CANCELLED)
    assert (await flow.run(run)).state == "failed"
    await flow.check()


async def test_a_run_that_runs_out_of_time_fails(sqlite_store: Store, clock: FakeClock) -> None:
    flow = Flow(sqlite_store, clock)
    await flow.slots()
    await flow.put({"a": {}, "b": {"depends_on": ["a"]}}, run_timeout="PT60S")
    run, [a] = await flow.trigger()
    await flow.start(a.attempt_id)
    assert not await flow.store.write(time_out_run, run.id)
    clock.move(timedelta(seconds=61))
    assert await flow.store.read(work.overdue_runs, clock.now()) == [run.id]
    assert await flow.store.write(time_out_run, run.id)
    assert await flow.states(run) == {"a": "cancelling", "b": "skipped"}
    await flow.end(a.attempt_id, Ended.CANCELLED)
    ended = await flow.run(run)
    assert (ended.state, ended.reason) == ("failed", "run_timeout")


async def test_a_taken_run_id_is_refused_and_a_replayed_request_is_not(flow: Flow) -> None:
    await flow.put({"a": {}})
    first = await flow.create(run_id="mine", request_id="one")
    again = await flow.create(run_id="mine", request_id="one")
    assert again.id == first.id
    assert [event.kind for event in await flow.events(first)] == ["run.queued"]
    with pytest.raises(AlreadyExists):
        await flow.create(run_id="mine", request_id="two")


async def test_a_created_run_reads_back_as_it_was_answered(flow: Flow) -> None:
    await flow.put({"a": {}})
    run = await flow.create(labels={"team": "x"}, note="hello")
    assert await flow.run(run) == run


async def test_a_run_of_no_dag_or_version_is_refused(flow: Flow) -> None:
    await flow.put({"a": {}})
    with pytest.raises(NotFound):
        await flow.create(dag_id="nope")
    with pytest.raises(NotFound):
        await flow.create(version=7)


async def test_a_run_is_pinned_to_its_version(flow: Flow) -> None:
    await flow.put({"a": {}})
    run = await flow.create()
    await flow.put({"b": {}})
    assert await flow.finish_all(await flow.begin(run)) == ["a"]
    assert (await flow.run(run)).version == 1


async def test_a_run_does_not_start_before_its_time_nor_while_its_dag_is_paused(flow: Flow) -> None:
    await flow.put({"a": {}})
    later = await flow.create(run_after=flow.clock.now() + timedelta(days=40_000))
    assert await flow.begin(later) == []
    run = await flow.create()
    await flow.store.write(patch_dag, "d", paused=True, actor="key:test")
    assert await flow.begin(run) == []
    assert await flow.store.read(work.startable_runs, flow.clock.now()) == []
    await flow.store.write(patch_dag, "d", paused=False, actor="key:test")
    assert len(await flow.begin(run)) == 1


async def test_a_new_run_needs_no_labels(store: Store, clock: FakeClock) -> None:
    new = NewRun(
        dag_id="missing",
        run_id="r",
        request_id="q",
        params={},
        logical_date=None,
        run_after=clock.now(),
        actor="key:test",
    )
    with pytest.raises(NotFound):
        await store.write(create_run, new)
