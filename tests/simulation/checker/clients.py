"""What clients were told, held against the log.

Accepted work survives, refused work is not there, repeats have one effect.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.checker.history import History, RunKey
    from tests.simulation.checker.replay import Replay
    from tests.simulation.checker.story import Run
    from tests.simulation.checker.violations import Line, Report

_OK = range(200, 300)
_REFUSED = range(400, 500)
#: One request: all lines under its key, or one line without.
Request = list["Line"]


class Clients:
    """Judges the clients' log."""

    def __init__(self, history: History, replay: Replay, report: Report) -> None:
        self._history = history
        self._runs = replay.runs
        self._report = report
        self._deleted = history.deleted()
        self._requests: dict[str, list[Request]] = defaultdict(list)
        self._stored = {(line["dag_id"], line["run_id"]) for line in history.runs}

    def judge(self) -> None:
        """Find every violation that the clients' log shows."""
        keyed: dict[tuple[Any, ...], Request] = {}
        for line in self._history.calls:
            self._report.counts["calls"] += 1
            if line.get("key") is None:
                self._requests[line["op"]].append([line])
                continue
            name = (line["op"], line.get("dag_id"), line["key"])
            if name not in keyed:
                self._requests[line["op"]].append(keyed.setdefault(name, []))
            keyed[name].append(line)
        self._triggers()
        self._cancels()
        self._clears()
        self._reads()

    def _triggers(self) -> None:
        answered: dict[RunKey, Line] = {}
        asked: set[RunKey] = set()
        perhaps: Counter[str] = Counter()
        uncertain: set[str] = set()
        for request in self._requests["trigger"]:
            dag_id = request[0]["dag_id"]
            told = [line for line in request if line["status"] in _OK]
            open_ = any(_open(line) for line in request)
            if open_:
                uncertain.add(dag_id)
            if told:
                self._accepted(request, told, answered)
            elif open_ and request[0].get("run_id") is None:
                perhaps[dag_id] += 1
            elif open_:
                asked.add((dag_id, request[0]["run_id"]))
        if self._history.setup.clients:
            self._uncaused(answered.keys() | asked, perhaps, uncertain)

    def _uncaused(self, caused: set[RunKey], perhaps: Counter[str], uncertain: set[str]) -> None:
        """Look for runs that no request could have made."""
        extra: dict[str, list[Run]] = defaultdict(list)
        for key, run in self._runs.items():
            if key not in caused and self._by_a_key(run):
                extra[key[0]].append(run)
        for dag_id, runs in extra.items():
            for run in runs[perhaps[dag_id] :]:
                if dag_id in uncertain:
                    self._report.add("I-11", "one request made more than one run", run.states[0][1])
                else:
                    self._report.add("I-10", "nobody was answered that this run is there", run.states[0][1])

    def _by_a_key(self, run: Run) -> bool:
        return bool(run.states) and run.states[0][1]["actor"].startswith("key:")

    def _accepted(self, request: Request, told: list[Line], answered: dict[RunKey, Line]) -> None:
        ids = [line["answer"]["run_id"] for line in told]
        self._report.counts["accepted triggers"] += 1
        if len(set(ids)) > 1:
            self._report.add("I-11", "repeats of one request were answered differently", *told)
        for run_id in dict.fromkeys(ids):
            key = (told[0]["dag_id"], run_id)
            if key in answered:
                self._report.add("I-11", f"two requests were answered with the run {run_id}", answered[key], *told)
            answered[key] = told[0]
            self._exists(key, told[0])
        run = self._runs.get((request[0]["dag_id"], ids[0]))
        version = told[0]["answer"].get("version")
        if run is not None and version is not None and run.version not in (None, version):
            self._report.add("I-6", f"the run was pinned to version {version} and is at {run.version} now", told[0])

    def _exists(self, key: RunKey, line: Line) -> None:
        if key[0] in self._deleted:
            return
        if key not in self._runs:
            self._report.add("I-9", f"the accepted run {key[1]} is not in the log", line)
        elif self._stored and key not in self._stored:
            self._report.add("I-9", f"the accepted run {key[1]} is gone", line, self._runs[key].row)

    def _cancels(self) -> None:
        by_run = _by_run(self._requests["cancel"])
        for key, requests in by_run.items():
            run = self._runs.get(key)
            effects = [] if run is None else run.cancels
            told = [line for request in requests for line in request if line["status"] in _OK]
            if told and not effects and key[0] not in self._deleted:
                self._report.add("I-9", "an answered cancel is not in the log", told[0], run.row if run else None)
            mine = [row for row in effects if row["actor"].startswith("key:")]
            possible = [request for request in requests if _possible(request)]
            if len(mine) > len(possible) > 0:
                self._report.add("I-11", "one cancel has had more than one effect", possible[0][0], *mine)
        self._causes(by_run, "cancel")

    def _clears(self) -> None:
        by_run = _by_run(request for request in self._requests["clear"] if not _dry(request))
        for key, requests in by_run.items():
            run = self._runs.get(key)
            clears = run.most_clears if run else 0
            told = [line for request in requests for line in request if line["status"] in _OK]
            touched = [line for line in told if (line.get("answer") or {}).get("items")]
            if touched and not (run and run.clears) and key[0] not in self._deleted:
                self._report.add("I-9", "an answered clear is not in the log", touched[0])
            possible = [request for request in requests if _possible(request)]
            if clears > len(possible) > 0:
                self._report.add("I-11", f"{len(possible)} clears have had {clears} effects", possible[0][0])
        self._causes(by_run, "clear")

    def _causes(self, by_run: dict[RunKey, list[Request]], what: str) -> None:
        """Nothing is cancelled or cleared that nobody asked for."""
        for key, run in self._runs.items() if self._history.setup.clients else ():
            possible = [request for request in by_run.get(key, ()) if _possible(request)]
            if what == "cancel":
                effects = [row for row in run.cancels if row["actor"].startswith("key:")]
            else:
                effects = run.clears
            if effects and not possible:
                self._report.add("I-10", f"there is a {what} that nobody asked for", effects[0])

    def _reads(self) -> None:
        """A run that was there stays there, and no later answer knows less than an earlier one."""
        by_run: dict[RunKey, list[Line]] = defaultdict(list)
        for line in self._history.calls:
            if line["op"] == "read" and line["status"] is not None and line.get("t1") is not None:
                by_run[line["dag_id"], line["run_id"]].append(line)
        accepted = {
            (line["dag_id"], line["answer"]["run_id"]): line["t1"]
            for line in self._history.calls
            if line["op"] == "trigger" and line["status"] in _OK and line.get("t1") is not None
        }
        for key, lines in by_run.items():
            run = self._runs.get(key)
            if run is None or key[0] in self._deleted:
                continue
            self._report.counts["reads"] += len(lines)
            _in_order(self._report, run, sorted(lines, key=lambda line: line["t0"]), accepted.get(key))


def _in_order(report: Report, run: Run, lines: list[Line], accepted: float | None) -> None:
    states = [state for state, _ in run.states]
    known: list[tuple[float, int, Line]] = []  # when an answer was there, and which state it told
    for line in lines:
        if line["status"] in _REFUSED:
            if line["status"] == 404 and accepted is not None and line["t0"] > accepted:
                report.add("I-9", "an accepted run was not found", line, run.states[0][1])
            continue
        if line["status"] not in _OK:
            continue
        least, witness = max(((at, seen) for done, at, seen in known if done < line["t0"]),
                             key=lambda pair: pair[0], default=(0, None))  # fmt: skip
        state = line["answer"]["state"]
        place = next((at for at in range(least, len(states)) if states[at] == state), None)
        if place is None:
            report.add("I-9", f"the run was read as {state}, which it was no more or never", line, witness, run.row)
        else:
            known.append((line["t1"], place, line))


def _by_run(requests: Iterable[Request]) -> dict[RunKey, list[Request]]:
    found: dict[RunKey, list[Request]] = defaultdict(list)
    for request in requests:
        found[request[0]["dag_id"], request[0]["run_id"]].append(request)
    return found


def _open(line: Line) -> bool:
    """Whether nobody knows if it has happened."""
    return line["status"] is None or line["status"] >= 500


def _possible(request: Request) -> bool:
    return any(_open(line) or line["status"] in _OK for line in request)


def _dry(request: Request) -> bool:
    return bool((request[0].get("body") or {}).get("dry_run"))
