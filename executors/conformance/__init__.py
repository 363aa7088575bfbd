"""The conformance kit: what every executor promises, one scenario a guarantee.

A scenario runs against a :class:`~executors.conformance.harness.Harness`: the executor under test with the hooks that
its medium allows.  It knows no test framework; ``tests/conformance`` runs all of them for ours, and a third party does
the same with a harness of its own::

    for scenario in scenarios():
        if not scenario.missing(harness):
            await scenario.run(harness)

The numbers are those of the brief that the kit was written from; they stay with a guarantee for good.
"""

from executors.conformance.bench import Bench, Broken
from executors.conformance.harness import Harness
from executors.conformance.metastore import Metastore
from executors.conformance.scenario import Scenario, scenarios

__all__ = ["Bench", "Broken", "Harness", "Metastore", "Scenario", "scenarios"]
