"""The common cases that the kit was written from, by number; every one has a scenario, or a reason why it has none."""

from __future__ import annotations

from typing import Final

#: What each number is about.
CASES: Final = {
    1: "a launch runs a task and finishes it once",
    2: "the same attempt launched twice is one execution",
    3: "a crash before a launch was sent is made up for after the restart",
    4: "a launch of unknown fate is repeated and starts nothing twice",
    5: "a batch of 500 is answered item by item",
    6: "options that make no sense are refused when a DAG is registered",
    7: "an outage of the medium defers and never fails",
    8: "a quota defers with its reason, and recovers",
    9: "capacity is never exceeded",
    10: "priority is respected within the credits of a queue",
    11: "only workers of a queue take what is in it",
    12: "a duplicate of what runs is refused and acknowledged",
    13: "a duplicate of what ended is harmless",
    14: "a start whose answer was lost is answered again",
    15: "a start after a cancel runs nothing",
    16: "a stale attempt can tell nothing",
    17: "a slow start is a start; one that never comes is told as such",
    18: "an attempt that never started costs the user no retry",
    19: "forged and replayed tickets are refused",
    20: "an exit code 0 is a success only with its finish",
    21: "exit codes are preserved",
    22: "a signal is told",
    23: "a crash of one task spares its neighbours",
    24: "a lack of memory is told as such",
    25: "a timeout is soft, then hard",
    26: "a finish whose answer was lost is repeated and counts once",
    27: "outcomes survive an outage of the API",
    28: "outcomes survive the supervisor's death",
    29: "a task that kills its worker ends by the budget for losses",
    30: "a cancel of what is queued: it never runs",
    31: "a cancel of what runs: asked first, then ended",
    32: "what ignores SIGTERM is killed",
    33: "what daemonised is killed, too",
    34: "a cancel that meets the end leaves one end",
    35: "a cancel whose supervisor cannot be reached still ends it",
    36: "a supervisor killed in mid-task is noticed within the lease",
    37: "a machine killed: all its attempts are recovered once",
    38: "a restart of the scheduler neither repeats nor loses what runs",
    39: "a scheduler killed between commit and launch",
    40: "a medium that lost all its messages",
    41: "a medium that restarts in mid-run",
    42: "a worker cut off from the API fences itself before its tasks run elsewhere",
    43: "no lease runs out for time in which no API served",
    44: "a drain requeues and costs nothing",
    45: "observe tells the truth",
    46: "events that were lost are made up for",
    47: "clocks an hour apart are harmless",
    48: "what is broken about one spares the others",
    49: "a stop is bounded, whatever a task does",
    50: "a huge log is capped, in bounded memory",
    51: "a line of 10 MB, and one without its end",
    52: "any bytes survive the log",
    53: "pieces of a log come again without gap or double",
    54: "the log of a fenced attempt still arrives",
    55: "what failed before the task's own code is in the log",
    56: "the longest and oddest ids",
    57: "nothing of a neighbour, and no secret, in a task's environment",
}

#: Why a case has no scenario.
ELSEWHERE: Final = {
    6: "a task has no options of its executor: its queue is checked with the document, and the executor's own settings "
    "when the service starts",
    10: "the order is the metastore's: it admits by priority, and no more than the workers of a queue can take",
    24: "no executor limits a task's memory; what the kernel kills is told with signal 9, which is 22",
}
