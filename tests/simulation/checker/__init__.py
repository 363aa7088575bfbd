"""The independent history checker: judges what happened by the witnesses of what happened, and by nothing else.

It shares no code with the server, and needs nothing but the standard library.
"""

from tests.simulation.checker.judge import check
from tests.simulation.checker.violations import Report, Violation

__all__ = ["Report", "Violation", "check"]
