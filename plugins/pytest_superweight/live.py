"""What a terminal shows while the gate runs: which cell, what it is doing, how far, how long, and verdicts so far."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_superweight.session import KEY
from pytest_superweight.signals import PROGRESS_DIR_VARIABLE, read_progress
from pytest_superweight.tally import CellTally, Tally
from superweight.errors import SuperweightError
from superweight.ids import GateId
from superweight.progress import duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from superweight.evidence import Verdict
    from superweight.progress import Step

_SYMBOLS = {"PASS": "✓", "as expected": "✓", "INCONCLUSIVE": "?", "INFRA": "!"}
_STYLES = {"PASS": "green", "as expected": "green", "INCONCLUSIVE": "yellow", "INFRA": "magenta"}
_WORDS = {
    "detection": "looking for super weights",
    "sanity": "compressing, and comparing every parameter",
    "noise": "again, in another way:",
    "quantise": "compressing with",
}


def wanted(config: pytest.Config) -> bool:
    """Whether this process should draw: on a terminal that nobody else writes to, and not in CI."""
    asked = config.getoption("superweight_progress")
    if asked == "off" or hasattr(config, "workerinput") or config.getoption("collectonly", False):
        return False
    if asked == "live":
        return True
    busy = config.getoption("verbose", 0) or config.getoption("usepdb", False) or config.getini("log_cli")
    plain = not busy and config.getoption("capture", "no") != "no" and config.pluginmanager.hasplugin("terminal")
    return bool(plain) and sys.stdout.isatty() and not os.environ.get("CI") and os.environ.get("TERM") != "dumb"


class LiveProgress:
    """Draws on the terminal between collection and summary, instead of pytest's dots for tests of cells."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._directory = Path(tempfile.mkdtemp(prefix="superweight-progress-"))
        os.environ[PROGRESS_DIR_VARIABLE] = str(self._directory)
        # while a test runs, descriptor 1 is pytest's: this is the terminal all the same
        self._terminal = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding=sys.stdout.encoding, errors="replace")
        self._tally: Tally | None = None
        self._live: Live | None = None
        self._since: dict[str, tuple[str, float]] = {}

    @property
    def tally(self) -> Tally:
        """Of this run."""
        if self._tally is None:
            self._tally = Tally({cell.id: cell.role for cell in self._config.stash[KEY].plan.cells})
        return self._tally

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """To know what will run."""
        self._expect([item.nodeid for item in session.items])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Draw while tests of cells run, and leave the terminal to pytest for others."""
        if self.tally.knows(nodeid):
            self._start()
        else:
            self.stop()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker that is gone measures nothing."""
        (self._directory / f"{node.gateway.id}.json").unlink(missing_ok=True)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """To know what workers will run."""
        self._expect(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """No letter for a test of a cell: its verdict is shown."""
        if self._live is None or not hasattr(report, "superweight_gates") or hasattr(report, "wasxfail"):
            return None
        if report.passed and report.when != "call":
            return "", "", ""
        return ("error" if report.failed and report.when != "call" else report.outcome), "", ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count, and say when a cell is done; a worker that dies over a test reports it without our answers."""
        gates: dict[str, Verdict] | None = getattr(report, "superweight_gates", None)
        if gates is None and not (report.failed and self.tally.knows(report.nodeid)):
            return
        self.tally.spent(report.nodeid, report.duration)
        if report.when != "setup" or report.outcome != "passed":
            cell = self.tally.end(report.nodeid, gates or {}, failed=report.failed)
            if cell is not None and self._live is not None:
                name = next(name for name, one in self.tally.cells.items() if one is cell)
                self._live.console.print(_line(name, cell), highlight=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """The rest is pytest's to write."""
        self.stop()

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        self.stop()
        self._terminal.close()
        os.environ.pop(PROGRESS_DIR_VARIABLE, None)
        shutil.rmtree(self._directory, ignore_errors=True)

    def stop(self) -> None:
        """Draw no more."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._pytest_writes(True)

    def _expect(self, nodeids: Sequence[str]) -> None:
        try:
            self.tally.expect(nodeids)
        except SuperweightError:  # a bad card, which is told elsewhere
            return

    def _start(self) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            self._pytest_writes(False)
            console = Console(file=self._terminal, force_terminal=True)
            self._live = Live(console=console, refresh_per_second=4, transient=True, get_renderable=self._drawn)
            self._live.start()

    def _pytest_writes(self, whether: bool) -> None:
        """Let pytest write the names of files and a letter a test, or not."""
        reporter: Any = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None:
            reporter.showfspath = whether
            reporter._show_progress_info = False
            reporter.ensure_newline()

    def _drawn(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        steps = read_progress(self._directory)
        seconds = self.tally.seconds_left
        cells = self.tally.cells.values()
        done = [cell for cell in cells if not cell.left]
        left = "time left not known yet" if seconds is None else f"about {duration(seconds / max(1, len(steps)))} left"
        summary = [
            f"{len(done)} of {len(self.tally.cells)} cells",
            f"{self.tally.done} of {self.tally.tests} tests",
            left,
        ]
        found = [f"{_SYMBOLS.get(one, '✗')} {n} {one}" for one, n in _counts(done).items()]
        lines = [_step(step, self._running(worker, step)) for worker, step in steps.items()]
        return Group(*lines, Text(" · ".join([*summary, *found]), style="dim"))

    def _running(self, worker: str, step: Step) -> float:
        """For how long a process has been at a stage, in seconds."""
        now, about = time.monotonic(), f"{step.cell} {step.stage}"
        if self._since.get(worker, ("", 0.0))[0] != about:
            self._since[worker] = (about, now)
        return now - self._since[worker][1]


def _counts(cells: Sequence[CellTally]) -> dict[str, int]:
    found: dict[str, int] = {}
    for cell in cells:
        if cell.role != "reference":
            found[cell.verdict] = found.get(cell.verdict, 0) + 1
    return found


def _line(name: str, cell: CellTally) -> RenderableType:
    from rich.text import Text

    verdict = cell.verdict
    text = Text(f"{_SYMBOLS.get(verdict, '✗')} {verdict:14}", style=_STYLES.get(verdict, "red"))
    if cell.role == "reference":
        text.stylize("dim")
    worst = [gate for gate, said in cell.verdicts.items() if said == verdict != "PASS"]
    about = f" ({', '.join(worst[:3])}{', …' if len(worst) > 3 else ''})" if worst and cell.role != "control" else ""
    return text.append(f" {name}", style="default").append(
        f"{about}  {cell.role}, {duration(cell.seconds)}", style="dim"
    )


def _step(step: Step, seconds: float) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    stage = GateId.parse(step.stage)
    figure = GateId.parse(stage.of) if stage.kind == "noise" else stage  # of a repeat, what is repeated
    what = " ".join(figure) if stage.kind == "noise" else stage.of
    doing = f"{_WORDS.get(stage.kind, stage.kind)} {what}".strip()
    unit = {"perplexity": "windows", "quantise": "steps"}.get(figure.kind, "items")
    row = Table.grid(padding=(0, 1))
    columns: list[RenderableType] = [Text("▸", style="cyan"), Text(step.cell, style="bold"), Text(doing)]
    if step.planned:
        columns += [
            ProgressBar(step.planned, step.done, width=16),
            Text(f"{step.done} of {step.planned} {unit}", style="dim"),
        ]
    columns.append(Text(duration(seconds), style="dim"))
    row.add_row(*columns)
    return row
