"""Random sequences of commands and queries: what schedulers, workers, clients and strangers might ask, in any order."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from api.directives import _look
from api.heartbeats import AttemptBeat, WorkerBeat, _renew_attempts, _renew_workers
from dag.document import content_hash
from dag.outcomes import Ended
from dag.spec import load
from metastore.commands import advance, agents, clear, dags, heal, lone, materialise, offers, staging, stopping, workers
from metastore.commands import attempts as attempt_commands
from metastore.commands import once as once_command
from metastore.commands import runs as run_commands
from metastore.commands import strays as stray_commands
from metastore.commands.admission import Outlet, admit_ready
from metastore.commands.attempts import End, Ending, Starting
from metastore.commands.runs import NewRun
from metastore.queries import offers as offer_queries
from metastore.queries import runs as run_queries
from metastore.queries import work
from metastore.queries import workers as worker_queries
from scheduler.loop import _snapshot
from tests.simulation import shapes
from tests.simulation.profile import Profile
from tests.simulation.requests import within

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from datetime import datetime

    from tests.simulation.model.rows import Attempt, Metastore, Run

LEASE: Final = timedelta(seconds=20)
_HOMES: Final = ("agent-1", "agent-2")
_WORKERS: Final = ("1" * 32, "2" * 32, "3" * 32)
_BOOTS: Final = ("boot-1", "boot-2")
_KEYS: Final = ("key-1", "key-2")
_PROFILE: Final = Profile()

#: (command or query, its arguments, its keywords)
Step = tuple["Callable[..., Any]", tuple[Any, ...], dict[str, Any]]


class Driver:
    """Chooses the next step by what the model knows, so that it often hits something."""

    def __init__(self, data: Metastore, dice: random.Random) -> None:
        self._data = data
        self._dice = dice
        self._numbers = 0
        self._makers = [
            (self._put, 2), (self._patch, 2), (self._create, 6), (self._start_run, 8), (self._admit, 6),
            (self._start, 12), (self._end, 18), (self._together, 10), (self._advance, 6), (self._cancel, 2),
            (self._time_out, 2), (self._clear, 3), (self._agent, 3), (self._expiry, 4), (self._register, 4),
            (self._beat, 6), (self._offer, 4), (self._stage, 3), (self._once, 2), (self._heal, 3), (self._query, 14),
            (self._stray, 5),
        ]  # fmt: skip

    def step(self, now: datetime) -> Step:
        """Return what is asked next."""
        self._now = now
        makers, weights = zip(*self._makers, strict=True)
        while True:
            made: Step | None = self._dice.choices(makers, weights)[0]()
            if made is not None:
                return made

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _flip(self, odds: float) -> bool:
        return self._dice.random() < odds

    # DAGs and runs

    def _put(self) -> Step:
        dag_id = f"d{self._dice.randint(1, 3)}"
        known = self._data.dags.get(dag_id)
        if known is not None and self._flip(0.4):
            document = shapes.changed(self._dice, _PROFILE, known.versions[-1].document, size=6)
        else:
            document = shapes.document(self._dice, _PROFILE, size=6)
        spec = load(document, dag_id=dag_id)
        more: dict[str, Any] = {"if_revision": self._dice.randint(1, 3)} if self._flip(0.1) else {}
        if self._flip(0.05):
            more["must_not_exist"] = True
        digest = content_hash(document)
        return dags.put_dag, (), {"spec": spec, "document": document, "content_hash": digest, "actor": "key:c"} | more

    def _patch(self) -> Step:
        dag_id = f"d{self._dice.randint(1, 3)}"
        return dags.patch_dag, (dag_id,), {"actor": "key:c", "paused": self._flip(0.4)}

    def _new(self) -> NewRun:
        wanted = self._dice.randint(1, 3) if self._flip(0.1) else None
        return NewRun(
            dag_id=f"d{self._dice.randint(1, 3)}",
            run_id=f"r{self._dice.randint(1, 60)}",
            request_id=f"q{self._dice.randint(1, 60)}",
            params={},
            logical_date=self._now,
            run_after=self._now + timedelta(seconds=self._dice.choice((0, 0, 0, 5, -5))),
            actor="key:c",
            version=wanted,
        )

    def _create(self) -> Step:
        return run_commands.create_run, (self._new(),), {}

    def _once(self) -> Step:
        new = self._new()

        def effect(tx: Any) -> Any:
            made = within(tx, run_commands.create_run, new)
            return once_command.Answer(201, {"x": "y"}, json.dumps({"run_id": made.run.run_id}))

        key, print_ = f"k{self._dice.randint(1, 8)}", f"f{self._dice.randint(1, 3)}"
        if self._flip(0.1):
            return once_command.forget, (timedelta(seconds=30),), {}
        return once_command.once, ("c", key, print_, effect), {}

    def _run(self, *states: str) -> Run | None:
        found = [run for run in self._data.runs.values() if not states or run.state in states]
        return self._dice.choice(found) if found else None

    def _start_run(self) -> Step | None:
        run = self._run("queued") if self._flip(0.8) else self._run()
        if run is None:
            return None
        command = materialise.start_run if self._flip(0.8) else materialise.materialise
        return command, (run.id, "local", self._outlets()), {}

    def _advance(self) -> Step | None:
        run = self._run("running")
        return None if run is None else (advance.advance_run, (run.id,), {})

    def _cancel(self) -> Step:
        run = self._run("queued", "running") if self._flip(0.7) else self._run()
        name = ("d1", "nothing") if run is None else (run.dag.dag_id, run.run_id)
        return stopping.cancel_run, name, {"actor": "key:c"}

    def _time_out(self) -> Step | None:
        run = self._run("running")
        return None if run is None else (stopping.time_out_run, (run.id,), {})

    def _clear(self) -> Step | None:
        run = self._run()
        if run is None:
            return None
        names = [task.task_id for task in run.plan.tasks]
        chosen = self._dice.sample(names, self._dice.randint(1, len(names))) if self._flip(0.5) else None
        how = {name: self._flip(0.4) for name in ("only_failed", "downstream")} | {"dry_run": self._flip(0.1)}
        return clear.clear_run, (run.dag.dag_id, run.run_id), {"task_ids": chosen, "actor": "key:c"} | how

    # Places

    def _outlets(self, boot: str | None = None) -> tuple[Outlet, ...]:
        # As a scheduler has them: each executor once.
        places = [Outlet("local", self._dice.choice(_HOMES), boot), Outlet("dramatiq", None, by_queue=True)]
        return tuple(self._dice.sample(places, self._dice.randint(0, len(places))))

    def _admit(self) -> Step:
        return admit_ready, (self._outlets(),), {}

    def _lease(self) -> timedelta:
        """Of services with different settings, one of which has just been set to what nobody believes."""
        return self._dice.choice((LEASE, LEASE, LEASE / 3, LEASE + timedelta(hours=1)))

    def _agent(self) -> Step:
        home, host = self._dice.choice(_HOMES), self._dice.choice(("h", "h", "h", "copy"))
        if self._flip(0.1):
            return agents.release_agent, (home, host), {}
        if self._flip(0.5):
            return agents.beat, (home, host, self._lease()), {}
        slots = {"name": "local", "slots": self._dice.randint(1, 4), "placed": True, "by_queue": False}
        queues = {"name": "dramatiq", "slots": None, "placed": False, "by_queue": True}
        if self._flip(0.1):
            return agents.register_agent, ("scheduler:h",), {"host": "h", "executors": [queues], "lease": None}
        lease = self._lease() if self._flip(0.9) else None
        return agents.register_agent, (home,), {"host": host, "executors": [slots, queues], "lease": lease}

    def _expiry(self) -> Step:
        if self._flip(0.4):
            return agents.expired_agents, (LEASE,), {}
        if self._flip(0.3):
            return workers.mark_serving, (timedelta(seconds=15),), {}
        if self._flip(0.1):
            return workers.forget_workers, (timedelta(seconds=60),), {}
        return agents.forget_lease, (self._dice.choice([*self._data.agents, "nobody"]), LEASE), {}

    def _register(self) -> Step:
        agents_known = [home for home in _HOMES if home in self._data.agents]
        worker = self._dice.choice([*_WORKERS, *agents_known] if self._flip(0.05) else _WORKERS)
        if self._flip(0.1):
            return workers.ask_to_drain, (worker,), {}
        held = [one.id for one in self._data.active.values() if self._flip(0.3)]
        registration = workers.Registration(
            worker_id=worker,
            boot_id=self._dice.choice(_BOOTS),
            boot_number=self._dice.choice((None, 1, 2, 2, 3)),
            token_hash="t",  # noqa: S106  # a hash of none
            name="w",
            host="h",
            pid=1,
            version="0",
            executor=self._dice.choice(("dramatiq", "dramatiq", "dramatiq", "celery", "local")),
            allowed=("default",) if self._flip(0.1) else None,
            queues=tuple(self._dice.sample(shapes.QUEUES, self._dice.randint(1, 2))),
            slots=self._dice.randint(1, 3),
            held=tuple(held),
        )
        return workers.register_worker, (registration, self._lease()), {}

    def _beat(self) -> Step:
        worker, boot = self._dice.choice(_WORKERS), self._dice.choice(_BOOTS)
        token = "t" if self._flip(0.95) else "x"  # hashes of none
        if self._flip(0.15):
            return workers.leave_worker, (worker,), {"token_hash": token, "boot_id": boot}
        if self._flip(0.2):
            return (
                _renew_workers,
                ([WorkerBeat(one, token, boot, self._flip(0.2)) for one in _WORKERS], self._lease()),
                {},
            )
        if self._flip(0.2):
            tried = [one for one in self._data.attempts.values() if self._flip(0.3)]
            return (
                _renew_attempts,
                ([AttemptBeat(one.id, one.key_hash or "x", boot) for one in tried], self._lease()),
                {},
            )
        draining = self._flip(0.2)
        return workers.beat_worker, (worker,), {
            "token_hash": token, "boot_id": boot, "lease": self._lease(), "draining": draining
        }  # fmt: skip

    # Attempts

    def _attempt(self, *, active: float = 0.8) -> Attempt | None:
        found = list(self._data.active.values() if self._flip(active) else self._data.attempts.values())
        return self._dice.choice(found) if found else None

    def _start(self) -> Step:
        call = self._starting()
        how = {} if call.key_hash is None else {"key_hash": call.key_hash, "lease": call.lease}
        return attempt_commands.start_attempt, (call.attempt_id, call.boot_id, call.placed_on), how

    def _starting(self) -> Starting:
        attempt = self._attempt()
        name = "nothing" if attempt is None else attempt.id
        boot = self._dice.choice(_BOOTS)
        if attempt is not None and attempt.queue is not None:
            place = self._dice.choice((*_WORKERS, None))
            lease = LEASE if place is None else None
            key = self._dice.choice(_KEYS)
            return Starting(attempt_id=name, boot_id=boot, placed_on=place, key_hash=key, lease=lease)
        home = self._dice.choice(_HOMES) if attempt is None or self._flip(0.1) else attempt.placed_on
        return Starting(attempt_id=name, boot_id=boot, placed_on=home)

    def _end(self) -> Step:
        call = self._ending()
        more: dict[str, Any] = {"actor": call.actor} if call.actor != "supervisor" else {}
        if call.expired_agent is not None:
            more |= {"expired_agent": call.expired_agent, "lease": call.lease}
        if call.earlier_boot_of is not None:
            more["earlier_boot_of"] = call.earlier_boot_of
        if call.held_by is not None:
            more["held_by"] = call.held_by
        return attempt_commands.end_attempt, (call.end, call.outlets), more

    def _ending(self) -> Ending:
        attempt = self._attempt(active=0.9)
        if attempt is None:
            return Ending(end=End(attempt_id="nothing", ended=Ended.LOST))
        by_itself = self._flip(0.75)
        ended = self._dice.choice(
            (Ended.SUCCESS, Ended.SUCCESS, Ended.FAILED, Ended.TIMED_OUT, Ended.CANCELLED, Ended.DRAINED, Ended.LOST)
            if by_itself
            else (Ended.LOST, Ended.NEVER_STARTED, Ended.REJECTED, Ended.DRAINED)
        )
        boot = (attempt.boot_id or "boot-1") if self._flip(0.9) else "another"
        key = attempt.key_hash if self._flip(0.95) else "wrong"
        end = End(
            attempt_id=attempt.id,
            ended=ended,
            boot_id=boot if by_itself else None,
            key_hash=key if by_itself else None,
            cause=self._dice.choice((None, "exit", "worker_lost")),
            error=None if ended is Ended.SUCCESS else "it went wrong",
            output='{"n":1}' if ended is Ended.SUCCESS and self._flip(0.6) else None,
            ended_at=self._now + timedelta(seconds=self._dice.choice((-3, 2))) if self._flip(0.3) else None,
        )
        rescued = not by_itself and self._flip(0.3)
        other = (attempt.placed_on or "nobody", self._dice.choice(_BOOTS))
        asks = self._flip(0.3) and attempt.queue is None
        return Ending(
            end=end,
            outlets=self._outlets(boot if asks else None),
            actor="scheduler" if self._flip(0.3) else "supervisor",
            expired_agent=attempt.placed_on or "nobody" if rescued else None,
            lease=LEASE if rescued else None,
            earlier_boot_of=other if not by_itself and self._flip(0.2) else None,
            held_by=(attempt.placed_on or _HOMES[0], self._dice.choice(("h", "copy"))) if self._flip(0.1) else None,
        )

    def _together(self) -> Step:
        made = [self._starting() if self._flip(0.4) else self._ending() for _ in range(self._dice.randint(2, 6))]
        return attempt_commands.move_attempts, (list({call.attempt_id: call for call in made}.values()),), {}

    def _offer(self) -> Step | None:
        attempt = self._attempt()
        if attempt is None:
            return None
        if self._flip(0.4):
            return offers.defer_attempt, (attempt.id, "away", timedelta(seconds=self._dice.randint(0, 9))), {}
        looks = {one: (timedelta(seconds=15), 1) for one in self._data.active if self._flip(0.5)}
        return offers.take_up, (looks,), {"eager": self._flip(0.3)}

    def _stage(self) -> Step | None:
        attempt = self._attempt()
        if attempt is None:
            return None
        key = attempt.key_hash or self._dice.choice(_KEYS)
        if self._flip(0.5):
            return staging.stage_output, (attempt.id,), {"key_hash": key, "value": '{"staged":1}'}
        boot = attempt.boot_id or "boot-1"
        return lone.beat_attempt, (attempt.id,), {"key_hash": key, "boot_id": boot, "lease": self._lease()}

    # Looking

    def _heal(self) -> Step | None:
        run = self._run()
        if run is None:
            return None
        if self._flip(0.3):
            return heal.verify_limit, (self._dice.choice(list(self._data.limits)),), {}
        if self._flip(0.2):
            return heal.quarantine_run, (run.id, "it went wrong"), {}
        return heal.verify_run, (run.id,), {}

    def _stray(self) -> Step | None:
        run = self._run("running") if self._flip(0.9) else self._run()
        if run is None:
            return None
        default = self._dice.choice(("local", "dramatiq"))
        if self._flip(0.5):
            own = self._dice.choice(([default], ["local", "dramatiq"]))
            find = self._dice.choice((stray_commands.find_strays, stray_commands.find_runs_with_strays))
            return find, (own, self._silence(), self._dice.choice((0, 0, 5))), {}
        return stray_commands.follow_default, (run.id, default, [default], self._silence()), {}

    def _silence(self) -> timedelta | None:
        return self._dice.choice((None, LEASE))

    def _query(self) -> Step:
        now, both = self._now, ["local", "dramatiq"]
        places = [*_HOMES, *_WORKERS]
        slots = [("local", f"slots:local@{home}") for home in _HOMES]
        run = self._run()
        name = ("d1", "nothing") if run is None else (run.dag.dag_id, run.run_id)
        asked: list[Step] = [
            (_snapshot, (now, ["local"], ["dramatiq"]), {}),
            (work.next_due, (now,), {}),
            (work.idle_beside_ready, (slots,), {}),
            (work.next_expiry, (), {}),
            (work.placed, (places,), {}),
            (work.stopping, (places,), {}),
            (work.active_runs, (now, 0, 20), {}),
            (work.limit_keys, ("", 50), {}),
            (work.doubtful_limits, (sorted(self._data.limits),), {}),
            (worker_queries.stopping_on, (list(_WORKERS),), {}),
            (worker_queries.asked_to_drain, (list(_WORKERS),), {}),
            (_look, (list(_WORKERS),), {}),
            (offer_queries.offered, (now, both), {"everything": self._flip(0.3)}),
            (offer_queries.next_offer, (both,), {}),
            (offer_queries.idle_slots, (now, "dramatiq"), {}),
            (run_queries.get, name, {}),
        ]
        return self._dice.choice(asked)
