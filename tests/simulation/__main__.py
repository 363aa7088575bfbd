"""``python -m tests.simulation``: simulate seeds, and say for each that fails what is wrong and with how little."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.simulation import campaign, history
from tests.simulation.scenario import run_seed
from tests.simulation.shrink import shrink

if TYPE_CHECKING:
    from tests.simulation.scenario import Result, StoreKind

#: How many seeds, where nobody says.
_CAMPAIGN: Final = 20
_HUNT: Final = 500


def main() -> int:
    """Return 0 when no seed failed and no bug was missed, 1 otherwise."""
    options = _options()
    store: StoreKind = options.store
    if options.bugs is not None:
        from tests.simulation.hunt import hunt  # noqa: PLC0415  # a catalogue that most calls do without

        return hunt(options.bugs, seeds=options.seeds or _HUNT, jobs=options.jobs, start=options.start, say=_say)
    if options.only is not None:
        return _once(options.start, store, options.only, options.save)
    seeds = range(options.start, options.start + (options.seeds or _CAMPAIGN))
    found = campaign.run(seeds, store, jobs=options.jobs, on_result=_tell)
    for result in found.bad:
        _explain(result, store, shortens=options.shrink, save=options.save)
    _say(str(found))
    _say("how often: " + ", ".join(f"{name} {number}" for name, number in sorted(found.counts.items())))
    missed = found.missed(campaign.wanted(store))
    if missed:
        _say("never struck, more seeds would: " + ", ".join(missed))
    return 1 if found.bad else 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  # a command line prints what it has found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, help=f"how many (default: {_CAMPAIGN}; at most, for each bug: {_HUNT})")
    parser.add_argument("--start", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument(
        "--store", choices=("memory", "sqlite"), default="memory", help="the metastore (default: memory)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (default: 1)")
    parser.add_argument(
        "--shrink",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="find the few faults that a failing seed needs (default: yes)",
    )
    parser.add_argument(
        "--only", metavar="N,N", help="run the seed --start with these of its faults alone ('' is none)"
    )
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the histories of failing seeds there")
    parser.add_argument("--bugs", nargs="*", metavar="NAME", help="plant these bugs (none: all), and find each")
    return parser.parse_args()


def _once(seed: int, store: StoreKind, only: str, save: Path | None) -> int:
    whole = run_seed(seed, store, faults=None).faults
    faults = [whole[int(number)] for number in only.split(",") if number]
    result = run_seed(seed, store, faults=faults)
    _explain(result, store, shortens=False, save=save)
    return 0 if result.is_good else 1


def _tell(result: Result) -> None:
    if not result.is_good:
        _say(f"seed {result.seed} fails: {', '.join(sorted(result.names))}")


def _explain(result: Result, store: StoreKind, *, shortens: bool, save: Path | None) -> None:
    _say(f"\nseed {result.seed} over {store}: {'good' if result.is_good else ', '.join(sorted(result.names))}")
    for violation in result.violations[:8]:
        _say(f"  {violation.invariant}: {violation.sentence}")
    for error in [*result.errors[:4], *result.insights[:4]]:
        _say(f"  {error}")
    faults, numbers = list(result.faults), list(range(len(result.faults)))
    if shortens and not result.is_good:
        numbers = shrink(result, store)
        faults = [result.faults[number] for number in numbers]
        _say(f"  {len(faults)} of its {len(result.faults)} faults are enough:")
    for fault in faults:
        _say(f"  {fault}")
    only = ",".join(map(str, numbers))
    _say(f"  again: python -m tests.simulation --store {store} --start {result.seed} --only '{only}'")
    _say(f"  digest: {result.digest}")
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        file = save / f"{store}-{result.seed}.jsonl"
        file.write_text(history.text(result.lines))
        _say(f"  history: {file}")


if __name__ == "__main__":
    sys.exit(main())
