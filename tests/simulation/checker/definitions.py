"""What clients were told of DAGs (put, patch, delete), held against the log and the stored documents."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.checker.asked import Request
    from tests.simulation.checker.history import History
    from tests.simulation.checker.violations import Line, Report

#: The value of a field after each of its changes, with the event that made it.
Values = list[tuple[Any, "Line"]]

_PAUSES: Final = {"dag.paused": True, "dag.unpaused": False}
#: A patch whose log does not say what was sent: it may be any.
_ANY: Final = object()


class Definitions:
    """Judges the requests that are about DAGs."""

    def __init__(self, history: History, asked: Mapping[str, list[Request]], report: Report) -> None:
        self._history = history
        self._report = report
        self._deleted = history.deleted()
        self._log: dict[str, list[Line]] = defaultdict(list)
        for line in history.log:
            if line["type"] == "event" and line["kind"].startswith("dag.") and line.get("dag_id"):
                self._log[line["dag_id"]].append(line)
        self._asked: dict[str, dict[str, list[Request]]] = defaultdict(lambda: defaultdict(list))
        for op in ("put", "patch", "delete", "trigger"):
            for request in asked.get(op, ()):
                if request.dag_id is not None:
                    self._asked[request.dag_id][op].append(request)

    def judge(self) -> None:
        """Find every violation; where the log is that of runs alone, nothing is known of DAGs."""
        if self._history.setup.order != "commit":
            return
        for dag_id in sorted(self._asked.keys() | self._log.keys()):
            self._deletes(dag_id)
            if dag_id in self._deleted:
                continue
            self._puts(dag_id)
            self._versions_grow(dag_id)
            for name, values in (("paused", self._pauses(dag_id)), ("tags", self._tags(dag_id))):
                self._goes_on(name, values)
                self._patches(dag_id, name, values)

    def _deletes(self, dag_id: str) -> None:
        deletes = self._asked[dag_id]["delete"]
        gone = [line for line in self._log[dag_id] if line["kind"] == "dag.deleted"]
        told = [line for request in deletes for line in request.told]
        if told and not gone:
            self._report.add("I-9", "an answered delete is not in the log", told[0])
        self._uncaused("delete of the DAG", gone, [request for request in deletes if request.is_possible])

    def _puts(self, dag_id: str) -> None:
        puts = self._asked[dag_id]["put"]
        written: dict[int | None, list[Line]] = defaultdict(list)
        for line in self._log[dag_id]:
            if line["kind"] == "dag.put":
                written[(line.get("data") or {}).get("version")].append(line)
        made: dict[int, Line] = {}
        said: set[int] = set()
        unsure = [request for request in puts if request.is_open]
        for request in puts:
            if not request.told:
                continue
            version, line = request.answer.get("version"), request.told[0]
            self._report.counts["accepted puts"] += 1
            if version is None:
                unsure.append(request)
                continue
            self._stored(request, version, is_written=version in written)
            if request.answer.get("changed", True):
                said.add(version)
            if request.answer.get("changed"):
                if version in made:
                    self._report.add("I-11", f"two requests were answered that they made version {version}",
                                     made[version], line)  # fmt: skip
                made[version] = line
        if not puts:
            return  # whoever made the history has defined this DAG
        extra = [line for version, lines in written.items() for line in lines[version in said :]]
        self._uncaused("version", extra, unsure)

    def _stored(self, request: Request, version: int, *, is_written: bool) -> None:
        """Hold an accepted document against the log and against what is stored."""
        line, name = request.told[0], (request.dag_id or "", version)
        sent = (request.body or {}).get("document")
        if not is_written:
            self._report.add("I-9", f"the accepted version {version} is not in the log", line)
        elif name not in self._history.texts:
            self._report.add("I-9", f"the accepted version {version} is not in the store", line)
        elif sent is not None and sent != self._history.texts[name]:
            self._report.add("I-9", f"version {version} is not the document that was accepted", line)

    def _versions_grow(self, dag_id: str) -> None:
        """Nobody who asks after a version was answered is answered an older one."""
        asking = [
            request
            for op in ("put", "trigger")
            for request in self._asked[dag_id][op]
            if request.answer.get("version") is not None and not (request.body or {}).get("version")
        ]
        known = [request for request in asking if request.op == "put"]
        for request in asking:
            version = request.answer["version"]
            for before in known:
                if before.done < request.sent and before.answer["version"] > version:
                    what = f"a {request.op} was answered version {version} after {before.answer['version']} was there"
                    self._report.add("I-9", what, before.told[0], request.told[0])
                    break

    def _pauses(self, dag_id: str) -> Values:
        found: Values = []
        for line in self._log[dag_id]:
            if line["kind"] == "dag.put" and not found:
                found.append((False, line))
            elif line["kind"] in _PAUSES:
                found.append((_PAUSES[line["kind"]], line))
        return found

    def _tags(self, dag_id: str) -> Values:
        found: Values = []
        for line in self._log[dag_id]:
            data = line.get("data") or {}
            if line["kind"] == "dag.put":
                text = self._history.texts.get((dag_id, data.get("version", 0)), {})
                found.append((_once(text.get("tags") or ()), line))
            elif line["kind"] == "dag.tagged":
                found.append((_once(data.get("tags") or ()), line))
        return found

    def _goes_on(self, name: str, values: Values) -> None:
        for (was, before), (now, line) in pairwise(values):
            if was == now and line["kind"] != "dag.put":
                self._report.add("I-18", f"{name} goes to {now}, and the log left it so", before, line)

    def _patches(self, dag_id: str, name: str, values: Values) -> None:
        """Each accepted patch has its place in the log, in the order in which they were answered."""
        patches = self._asked[dag_id]["patch"]
        is_whole = True
        placed: list[tuple[float, int, Line]] = []  # when an answer was there, and which value it told
        for request in sorted(patches, key=lambda one: one.sent):
            wanted = _wanted(request, name)
            if not request.told or wanted is None:
                continue
            self._report.counts["accepted patches"] += name == "paused"
            line, told = request.told[0], request.answer.get(name)
            if wanted is _ANY:
                wanted = told
            elif told is not None and _plain(told) != wanted:
                self._report.add("I-9", f"{name} was asked to be {wanted}, and was answered to be {told}", line)
                continue
            if wanted is None:
                continue
            least, witness = max(((at, seen) for done, at, seen in placed if done < request.sent),
                                 key=lambda pair: pair[0], default=(0, None))  # fmt: skip
            place = next((at for at in range(least, len(values)) if values[at][0] == _plain(wanted)), None)
            if place is None:
                self._report.add("I-9", f"{name} was accepted to be {wanted}, and is not in the log", line, witness)
                is_whole = False
            else:
                placed.append((request.done, place, line))
        if is_whole:
            self._last(name, values, patches)
        for value in [value for at, (value, _) in enumerate(values) if value not in [one for one, _ in values[:at]]]:
            effects = [line for now, line in values if now == value and line["kind"] != "dag.put"]
            causes = [one for one in patches if one.is_possible and _wanted(one, name) in (value, _ANY)]
            self._uncaused(f"change of {name} to {value}", effects, causes)

    def _last(self, name: str, values: Values, patches: list[Request]) -> None:
        """Look at what was patched when everything else had been answered: that is how it stays."""
        asking = [one for one in patches if one.is_possible and _wanted(one, name) is not None]
        last = max(asking, key=lambda one: one.sent, default=None)
        if last is None or not values or any(one.done >= last.sent for one in asking if one is not last):
            return
        wanted, (now, line) = _wanted(last, name), values[-1]
        by_a_key = self._history.setup.clients and line["kind"] != "dag.put" and line["actor"].startswith("key:")
        if last.told and wanted is not _ANY and now != wanted and by_a_key:
            what = f"the last of all requests was accepted to set {name} to {wanted}, and it is {now}"
            self._report.add("I-11", what, last.told[0], line)

    def _uncaused(self, what: str, effects: list[Line], causes: list[Request]) -> None:
        """Report the effects that are more than what can have caused them, each of which causes one at the most."""
        mine = [line for line in effects if line["actor"].startswith("key:")]
        if not self._history.setup.clients or len(mine) <= len(causes):
            return
        if causes:
            found = f"{len(causes)} requests have made more than one {what} each"
            self._report.add("I-11", found, causes[0].lines[0], *mine)
        else:
            self._report.add("I-10", f"there is a {what} that nobody asked for", mine[0])


def _wanted(request: Request, name: str) -> Any:
    """Return the value that a patch asks for; None where it asks for none."""
    return _ANY if not request.body else _plain(request.body.get(name))


def _plain(value: Any) -> Any:
    return _once(value) if isinstance(value, list) else value


def _once(tags: Any) -> tuple[str, ...]:
    """Return tags as they are kept: each once."""
    return tuple(dict.fromkeys(tags))
