"""The pytest plugin: ``pytest --executor-harness=package.module:Harness`` checks an executor.

Every scenario of :mod:`executors.conformance` becomes a test ``conformance::NN_name``; no test file is needed.  Every
pytest run of an environment with Runyard in it imports this module, so that it brings in nothing before it is asked to.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Generator, Iterator

    from executors.conformance import Harness, Scenario

#: What the ids of these tests begin with.
NAME: Final = "conformance"
_OPTION: Final = "--executor-harness"
_LONG: Final = "--executor-long"
_NOT_APPLICABLE: Final = "not applicable: "
_NOT_RUN: Final = "not run: "
#: What a test framework that has a clock of its own gives beyond the scenario's limit.
_MARGIN: Final = 60


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("runyard", "conformance of Runyard executors")
    group.addoption(
        _OPTION,
        metavar="MODULE:NAME",
        dest="executor_harness",
        help="check an executor: NAME is called with a folder for each scenario and returns its harness; "
        f"'{NAME}' or '{NAME}::NN_name' instead of a path runs nothing but (one of) these",
    )
    group.addoption(_LONG, action="store_true", dest="executor_long", help="also run the scenarios that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    option = config.option
    if not option.executor_harness:
        return
    if not hasattr(option, "executor_scenarios"):  # else this is a worker of a distributed run, told by its controller
        option.executor_scenarios = [name for name in config.args if _is_ours(name)]
        option.executor_alone = bool(option.executor_scenarios) and len(config.args) == len(option.executor_scenarios)
    config.args[:] = [] if option.executor_alone else [name for name in config.args if not _is_ours(name)]
    config.pluginmanager.register(_Run(config), "runyard-conformance-run")


def _is_ours(name: str) -> bool:
    return (name == NAME or name.startswith(f"{NAME}::")) and not Path(name.partition("::")[0]).exists()


class _Run:
    """One run of pytest that was asked to check an executor."""

    def __init__(self, config: pytest.Config) -> None:
        self.name: str = config.option.executor_harness
        self._path = str(config.invocation_params.dir)
        self._factory: Callable[[Path], Harness] | None = None

    def factory(self) -> Callable[[Path], Harness]:
        """Return what makes harnesses; raise CollectError with the way out where there is none."""
        if self._factory is None:
            module, _, attribute = self.name.partition(":")
            if not module or not attribute:
                raise pytest.Collector.CollectError(f"{_OPTION}={self.name}: write it as package.module:Harness")
            if self._path not in sys.path:
                sys.path.append(self._path)
            try:
                found = getattr(import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise pytest.Collector.CollectError(
                    f"{_OPTION}={self.name} cannot be loaded: {error}\n"
                    "The module must be installed, or lie in the folder that pytest was started in."
                ) from error
            self._factory = found
        assert self._factory is not None  # noqa: S101  # loaded above
        return self._factory

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Have the session find the kit beside all files, or without any."""
        report = yield
        if isinstance(collector, pytest.Session) and report.passed:
            kit = _Kit.from_parent(collector, name=NAME, nodeid=NAME, run=self)
            report.result = [*report.result, kit]
        return report

    @pytest.hookimpl
    def pytest_sessionfinish(self) -> None:
        """End what the harnesses of this process share: *teardown* of what makes them, a coroutine function."""
        teardown = getattr(self._factory, "teardown", None)
        if teardown is not None:
            LOOP.run(teardown())
        LOOP.close()

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what holds, what does not, and what was not looked at."""
        found = {
            kind: [one for one in terminalreporter.stats.get(kind, ()) if getattr(one, "nodeid", "").startswith(NAME)]
            for kind in ("passed", "failed", "error", "skipped")
        }
        if not any(found.values()):
            return
        terminalreporter.section(f"executor conformance: {self.name}")
        for line in _summary(found):
            terminalreporter.line(line)


def _summary(found: dict[str, list[Any]]) -> Iterator[str]:
    broken = [*found["failed"], *found["error"]]
    left_out: dict[str, list[str]] = defaultdict(list)
    for report in found["skipped"]:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        left_out[reason.removeprefix("Skipped: ")].append(_title(report))
    yield f"{len(found['passed'])} hold, {len(broken)} broken, {len(found['skipped'])} not looked at"
    for report in broken:
        guarantee = dict(getattr(report, "user_properties", ())).get("guarantee", "it could not be begun")
        yield f"broken: {_title(report)}: {guarantee}"
    for reason, titles in sorted(left_out.items()):
        yield f"{reason}: {', '.join(sorted(titles))}"


def _title(report: Any) -> str:
    return str(report.nodeid.removeprefix(f"{NAME}::"))


class _Kit(pytest.Collector):
    """All scenarios, or those that were named."""

    def __init__(self, *, run: _Run, **given: Any) -> None:
        super().__init__(**given)
        self._run = run

    def collect(self) -> Iterator[pytest.Item]:
        from executors.conformance import scenarios  # noqa: PLC0415  # not before somebody asks for it

        factory = self._run.factory()
        named = {name.partition("::")[2] for name in self.config.option.executor_scenarios}
        found = scenarios()
        unknown = named - {scenario.title for scenario in found} - {""}
        if unknown:
            raise self.CollectError(f"no scenario is called {', '.join(sorted(unknown))}")
        for scenario in found:
            if not named or "" in named or scenario.title in named:
                yield _Check.from_parent(self, name=scenario.title, scenario=scenario, factory=factory)


class _Check(pytest.Item):
    """One scenario."""

    def __init__(self, *, scenario: Scenario, factory: Callable[[Path], Harness], **given: Any) -> None:
        super().__init__(**given)
        self._scenario = scenario
        self._factory = factory
        self._folder: Path | None = None
        self.user_properties.append(("guarantee", scenario.guarantee))
        if self.config.pluginmanager.hasplugin("timeout"):
            self.add_marker(pytest.mark.timeout(scenario.limit + _MARGIN))

    def runtest(self) -> None:
        if self._scenario.long and not self.config.option.executor_long:
            pytest.skip(f"{_NOT_RUN}{_LONG} runs it")
        self._folder = Path(tempfile.mkdtemp(prefix="runyard-kit-"))
        check(self._scenario, self._factory(self._folder))
        shutil.rmtree(self._folder, ignore_errors=True)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        del style
        from executors.conformance import Broken  # noqa: PLC0415  # it is there already

        trace = excinfo.getrepr(style="short", chain=not isinstance(excinfo.value, Broken))
        return "\n".join(
            (
                f"What does not hold ({self.name}): {self._scenario.guarantee}",
                f"Because: {excinfo.value}",
                f"Its files: {self._folder}",
                "",
                str(trace),
            )
        )

    def reportinfo(self) -> tuple[Path, int, str]:
        code = self._scenario.check.__code__
        return Path(code.co_filename), code.co_firstlineno - 1, f"{NAME}::{self.name}"


def check(scenario: Scenario, harness: Harness) -> None:
    """Run one scenario as a test; skipped where it does not apply."""
    from executors.conformance import NotApplicable  # noqa: PLC0415  # it is there already

    if missing := scenario.missing(harness):
        pytest.skip(f"{_NOT_APPLICABLE}there is no {', '.join(missing)}")
    try:
        LOOP.run(scenario.run(harness))
    except NotApplicable as why:
        pytest.skip(f"{_NOT_APPLICABLE}{why}")


class _Loop:
    """One event loop for all scenarios of this process, of the kind that the service runs on.

    So what takes long to start, a broker or an API, can be there for all of them.
    """

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        if self._runner is None:
            import asyncio  # noqa: PLC0415  # not before somebody asks for it

            import uvloop  # noqa: PLC0415  # as above

            self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        return self._runner.run(work)

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None


LOOP: Final = _Loop()
