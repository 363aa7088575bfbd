"""When a task may run: its trigger rule, judged by how its direct upstream tasks ended.

Pure counting: a rule sees how many upstreams ended in which outcome, never which ones.  :data:`TABLE` says for each
rule what every outcome means; :func:`judge` only reads the table.

Three laws hold for every rule, whatever its row says:

* A task without upstreams runs.
* ``cancelled`` counts like ``failed``: somebody wanted a result and it is not there.
* A verdict is final.  Once :func:`judge` says anything but ``WAIT``, no order in which the other upstreams end can
  change it.  That is why ``all_success`` with a skipped upstream waits for the rest: a failure that comes later would
  turn the skip into ``upstream_failed``, and that must not depend on who was faster.

What the outcomes mean, where *failed* includes cancelled and *broken* is failed or upstream_failed:

=============================  ====================================  ==================================================
rule                           runs                                  otherwise
=============================  ====================================  ==================================================
all_success                    all are a success                     broken: upstream_failed at once; skipped: skipped
all_failed                     all are broken                        success or skipped: skipped at once
all_done                       all ended, however
all_done_min_one_success       all ended, one is a success           broken: upstream_failed; all skipped: skipped
one_success                    at once with the first success        broken: upstream_failed; all skipped: skipped
one_failed                     at once with the first broken         skipped
one_done                       at once with the first success or     skipped: what is upstream_failed or skipped never
                               failed                                ran, so it is not done
none_failed                    all are a success or skipped          broken: upstream_failed at once
none_failed_min_one_success    the same, and one is a success        broken: upstream_failed at once; all skipped:
                                                                     skipped
none_skipped                   all ended, none is skipped            skipped at once
all_skipped                    all are skipped                       skipped at once
always                         at once, waits for nobody
=============================  ====================================  ==================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class TriggerRule(StrEnum):
    """What a task asks of its upstream tasks before it runs."""

    #: All succeeded.  The default.
    ALL_SUCCESS = "all_success"
    #: All failed: a task that repairs.
    ALL_FAILED = "all_failed"
    #: All ended, however: a task that cleans up.
    ALL_DONE = "all_done"
    #: All ended, and at least one succeeded.
    ALL_DONE_MIN_ONE_SUCCESS = "all_done_min_one_success"
    #: One succeeded; does not wait for the others.
    ONE_SUCCESS = "one_success"
    #: One failed; does not wait for the others.
    ONE_FAILED = "one_failed"
    #: One succeeded or failed; does not wait for the others.
    ONE_DONE = "one_done"
    #: All ended, none failed.
    NONE_FAILED = "none_failed"
    #: All ended, none failed, and at least one succeeded: the join after a branch.
    NONE_FAILED_MIN_ONE_SUCCESS = "none_failed_min_one_success"
    #: All ended, none was skipped.
    NONE_SKIPPED = "none_skipped"
    #: All were skipped.
    ALL_SKIPPED = "all_skipped"
    #: At once.
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many upstream tasks have ended in which outcome."""

    success: int = 0
    failed: int = 0
    upstream_failed: int = 0
    skipped: int = 0
    cancelled: int = 0

    @property
    def ended(self) -> int:
        """How many have ended at all."""
        return self.success + self.failed + self.upstream_failed + self.skipped + self.cancelled


class Verdict(StrEnum):
    """What the rule says about a task now."""

    #: Nothing yet: it depends on upstreams that have not ended.
    WAIT = "wait"
    #: It may run.
    RUN = "run"
    #: It will not run, and nothing is wrong with that.
    SKIP = "skip"
    #: It will not run, because something before it went wrong.
    UPSTREAM_FAILED = "upstream_failed"


# A set of outcomes is a bit mask: judging is the inner step of every finished task.
_SUCCESS: Final = 1
_FAILED: Final = 2  # failed and cancelled
_UPSTREAM_FAILED: Final = 4
_SKIPPED: Final = 8
_NONE: Final = 0
_BAD: Final = _FAILED | _UPSTREAM_FAILED


@dataclass(frozen=True, slots=True)
class Row:
    """What one rule says: (outcomes, verdict) reads "if any upstream ended in one of these, this"."""

    #: Once all have ended and nothing else in the row applies.
    otherwise: Verdict
    #: Certain with the first such upstream.  Only one entry: two of them would race.
    at_once: tuple[int, Verdict] = (_NONE, Verdict.WAIT)
    #: Once all have ended; the first that applies.
    at_the_end: tuple[tuple[int, Verdict], ...] = ()
    #: False: it does not even look.
    looks: bool = True


_RUN, _SKIP, _BROKEN = Verdict.RUN, Verdict.SKIP, Verdict.UPSTREAM_FAILED

TABLE: Final[dict[TriggerRule, Row]] = {
    TriggerRule.ALL_SUCCESS: Row(_RUN, at_once=(_BAD, _BROKEN), at_the_end=((_SKIPPED, _SKIP),)),
    TriggerRule.ALL_FAILED: Row(_RUN, at_once=(_SUCCESS | _SKIPPED, _SKIP)),
    TriggerRule.ALL_DONE: Row(_RUN),
    TriggerRule.ALL_DONE_MIN_ONE_SUCCESS: Row(_SKIP, at_the_end=((_SUCCESS, _RUN), (_BAD, _BROKEN))),
    TriggerRule.ONE_SUCCESS: Row(_SKIP, at_once=(_SUCCESS, _RUN), at_the_end=((_BAD, _BROKEN),)),
    TriggerRule.ONE_FAILED: Row(_SKIP, at_once=(_BAD, _RUN)),
    TriggerRule.ONE_DONE: Row(_SKIP, at_once=(_SUCCESS | _FAILED, _RUN)),
    TriggerRule.NONE_FAILED: Row(_RUN, at_once=(_BAD, _BROKEN)),
    TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS: Row(_SKIP, at_once=(_BAD, _BROKEN), at_the_end=((_SUCCESS, _RUN),)),
    TriggerRule.NONE_SKIPPED: Row(_RUN, at_once=(_SKIPPED, _SKIP)),
    TriggerRule.ALL_SKIPPED: Row(_RUN, at_once=(_SUCCESS | _BAD, _SKIP)),
    TriggerRule.ALWAYS: Row(_RUN, looks=False),
}


def judge(rule: TriggerRule, total: int, counts: Counts) -> Verdict:
    """Return what *rule* says about a task with *total* upstreams of which *counts* have ended."""
    row = TABLE[rule]
    if total == 0 or not row.looks:
        return Verdict.RUN
    seen = (
        (_SUCCESS if counts.success else _NONE)
        | (_FAILED if counts.failed or counts.cancelled else _NONE)
        | (_UPSTREAM_FAILED if counts.upstream_failed else _NONE)
        | (_SKIPPED if counts.skipped else _NONE)
    )
    outcomes, verdict = row.at_once
    if seen & outcomes:
        return verdict
    if counts.ended < total:
        return Verdict.WAIT
    for outcomes, verdict in row.at_the_end:
        if seen & outcomes:
            return verdict
    return row.otherwise
