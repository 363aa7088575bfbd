"""The conformance kit: what every executor promises, one scenario a guarantee.

A scenario runs against a :class:`~executors.conformance.harness.Harness`: the executor under test with the hooks that
its medium allows.  It knows no test framework; ``pytest --executor-harness=package.module:Harness`` runs all of them
(:mod:`runyard.conformance.plugin`), and anybody else does it with::

    for scenario in scenarios():
        harness = MyHarness(folder)
        if not scenario.missing(harness):
            await scenario.run(harness)

The numbers are those of the brief that the kit was written from; they stay with a guarantee for good.
"""

from executors.conformance.bench import Bench, Broken, NotApplicable
from executors.conformance.harness import Harness, Hooks
from executors.conformance.metastore import Metastore
from executors.conformance.scenario import Scenario, scenarios

__all__ = ["Bench", "Broken", "Harness", "Hooks", "Metastore", "NotApplicable", "Scenario", "scenarios"]
