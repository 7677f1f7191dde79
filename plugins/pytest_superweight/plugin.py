"""The pytest plugin: hooks and fixtures, each handing over to the session."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_superweight.junit import add_properties
from pytest_superweight.options import add_options, settings_of
from pytest_superweight.ordering import cell_of, is_empty, sort_by_cell
from pytest_superweight.session import KEY, GateSession
from superweight.errors import GateFailure, InfraError, SuperweightError
from superweight.gc_pause import gc_paused

if TYPE_CHECKING:
    from pytest_superweight.cell_under_test import CellUnderTest
    from superweight.cards import TierPerplexity, TierTask
    from superweight.verdict import GateResult


def pytest_addoption(parser: pytest.Parser) -> None:
    """To see the options, run `pytest --help`; all begin with `--superweight-`."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """To restrict a test to some roles, write `@pytest.mark.superweight_roles("candidate", "reference")`."""
    config.addinivalue_line("markers", "superweight_roles(*roles): run this test on cells of these roles only")
    config.stash[KEY] = GateSession(
        settings_of(config),
        arguments=tuple(map(str, config.invocation_params.args)),
        expression=config.getoption("keyword", default="") or "",
        root=config.rootpath,
    )
    _configure_workers(config)
    if config.getoption("superweight_progress") == "live" or sys.stdout.isatty():
        from pytest_superweight.live import LiveProgress, wanted

        with suppress(Exception):  # whatever is odd about this terminal, tests can run without it
            if wanted(config):
                config.pluginmanager.register(LiveProgress(config), "superweight-live")


def _configure_workers(config: pytest.Config) -> None:
    """A worker leaves crumbs, and the controller looks after workers; a run in one process does neither."""
    if hasattr(config, "workerinput"):
        from pytest_superweight.crumbs import Crumbs

        if directory := config.workerinput.get("superweight_crumbs"):
            config.stash[KEY].crumbs = Crumbs(Path(directory))
    elif config.pluginmanager.hasplugin("xdist") and config.getoption("dist", "no") != "no":
        from pytest_superweight.workers import Workers

        config.pluginmanager.register(Workers(config), "superweight-workers")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """To run a test on every cell, take `superweight_cell`; add `superweight_corpus` or `superweight_task`."""
    if "superweight_cell" not in metafunc.fixturenames:
        return
    session = metafunc.config.stash[KEY]
    try:
        with gc_paused():  # the first call imports and reads the cards
            from pytest_superweight.selection import parametrize

            parametrize(metafunc, session.plan)
    except SuperweightError as error:
        session.bad_card = str(error)  # told once, when collection is over, rather than for every file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Each cell's tests run in a row, so that a recipe is applied once."""
    session = config.stash[KEY]
    if session.bad_card and not hasattr(config, "workerinput"):
        session.start()
        raise pytest.UsageError(session.bad_card)
    empty = [item for item in items if is_empty(item)]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]
    if any(cell_of(item) for item in items):
        sort_by_cell(items, session.plan.cells)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Remember what is asked of each model, so that its baseline is measured before the first recipe is applied."""
    gate = session.config.stash[KEY]
    if session.config.option.collectonly:
        return
    for item in session.items:
        if (cell := cell_of(item)) is not None:
            gate.request(cell, item.callspec.params)  # type: ignore[attr-defined]
    if gate.requested_gates and not hasattr(session.config, "workerinput"):
        gate.start()
    if gate.requested_gates and gate.crumbs is not None:
        gate.crumbs.collected(session.config.workerinput["workerid"], gate.requested_gates)  # type: ignore[attr-defined]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A worker says what it is about to run, for the case that it does not live to tell."""
    gate = item.config.stash[KEY]
    if gate.requested_gates and gate.crumbs is not None:
        gate.crumbs.starts(item.config.workerinput["workerid"], item.nodeid)  # type: ignore[attr-defined]
    return (yield)


@pytest.fixture
def superweight_cell(request: pytest.FixtureRequest) -> CellUnderTest:
    """One model under one recipe, ready to be measured and judged."""
    from pytest_superweight.cell_under_test import CellUnderTest

    session = request.config.stash[KEY]
    if session.bad_card:
        pytest.fail(session.bad_card, pytrace=False)
    return CellUnderTest(session.run, request.param)


@pytest.fixture
def superweight_corpus(request: pytest.FixtureRequest) -> TierPerplexity:
    """One perplexity measurement of the tier."""
    entry: TierPerplexity = request.param
    return entry


@pytest.fixture
def superweight_task(request: pytest.FixtureRequest) -> TierTask:
    """One zero-shot measurement of the tier."""
    entry: TierTask = request.param
    return entry


@pytest.fixture
def superweight_enforce(request: pytest.FixtureRequest) -> Callable[[CellUnderTest, GateResult], None]:
    """Fail the test if a gate of a candidate or baseline did not pass."""
    from pytest_superweight.enforce import enforce

    red = request.config.stash[KEY].tier.inconclusive_is_red

    return partial(enforce, inconclusive_is_red=red)


@pytest.fixture
def superweight_enforce_control() -> Callable[..., None]:
    """Fail the test if a control did not get the verdict that it declares."""
    from pytest_superweight.enforce import enforce_control

    return enforce_control


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed gate shows its argument, not a traceback; a crash is written down as INFRA."""
    report = yield
    cell = cell_of(item)
    if cell is not None:
        under_test = item.funcargs.get("superweight_cell")  # type: ignore[attr-defined]
        report.superweight_gates = dict(getattr(under_test, "answers", {}))  # type: ignore[attr-defined]
        if report.when == "teardown" and hasattr(item.config, "workerinput"):
            report.superweight_evidence = item.config.stash[KEY].hand_over(cell)  # type: ignore[attr-defined]
    if cell is None or call.excinfo is None or not report.failed:
        return report
    error = call.excinfo.value
    gate, name = item.config.stash[KEY], item.originalname  # type: ignore[attr-defined]
    if isinstance(error, GateFailure | InfraError):
        report.longrepr = str(error)
    elif isinstance(error, AssertionError | pytest.fail.Exception):
        gate.run.record_failure(cell, name, "test-failed", str(error).partition("\n")[0] or type(error).__name__)
    else:
        gate.run.record_failure(cell, name, "crash", f"{type(error).__name__}: {error}")
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
    """A worker hands its evidence to the controller; the controller judges the run before others write of it."""
    _finish(session, exitstatus)
    return (yield)


def _finish(session: pytest.Session, exitstatus: int) -> None:
    gate = session.config.stash[KEY]
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["superweight"] = gate.hand_over() if gate.requested_gates else ""
        return
    if gate.deaths and gate.scheduled:
        gate.start()
        if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:  # some take that for success, and nobody lived to collect
            session.exitstatus = exitstatus = pytest.ExitCode.TESTS_FAILED
    if not gate.active or gate.bad_card:
        return
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        ended = (
            "was interrupted" if exitstatus == pytest.ExitCode.INTERRUPTED else f"ended with pytest status {exitstatus}"
        )
        gate.run_errors.append(f"the run {ended}: what is missing was not measured")
    try:
        gate.finish()
    except InfraError as error:
        gate.write_error = str(error)
    if gate.document is not None:
        add_properties(session.config, gate.document)
    if exitstatus == pytest.ExitCode.OK and (gate.write_error or gate.run.is_red or gate.deaths):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of every cell and gate, the verdict, and where the report is."""
    gate = config.stash[KEY]
    document = gate.document
    if document is None:
        return
    from superweight.report import terminal_table
    from superweight.report.comparison_text import look_back_lines
    from superweight.report.overview import headline, measured_share, reason_lines, remarks

    terminalreporter.section("compression gates")
    for line in terminal_table(document).splitlines():  # one by one: a line that cannot be encoded is escaped whole
        terminalreporter.write_line(line)
    terminalreporter.write_line("")
    colour = {"PASS": {"green": True}, "INCONCLUSIVE": {"yellow": True}}.get(document.verdict, {"red": True})
    terminalreporter.write_line(headline(document), bold=True, **colour)
    for reason in reason_lines(document)[:10]:
        terminalreporter.write_line(f"  {reason}")
    if share := measured_share(document):
        terminalreporter.write_line(share)
    for line in look_back_lines(document.look_back):
        terminalreporter.write_line(line)
    for note in [*remarks(document), *gate.run.notes]:
        terminalreporter.write_line(f"note: {note}")
    where = f"no report: {gate.write_error}" if gate.write_error else f"report: {gate.settings.out / 'report.html'}"
    terminalreporter.write_line(where)
