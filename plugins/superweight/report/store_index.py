"""`index.html` over a run store: every run with its verdict, a link to its report, and the history of its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from markupsafe import Markup

from superweight.evidence.write import write_text
from superweight.report.format import SYMBOLS, displayable
from superweight.report.page.render import asset, jinja_environment
from superweight.report.pictures.gallery import MODELS, history_gallery
from superweight.runs.history import RunEntry, read_history

_REPORT = "report.html"
_BADGE = "badge.json"
_PATIENCE = 60  # seconds


class _Row(NamedTuple):
    run: RunEntry
    symbol: str
    counts: str
    report: str
    """Its report below the store; empty if it was not kept."""


def keep_report(store: Path, run: str, directory: Path) -> None:
    """Copy a run's report to where the store keeps the run.

    Args:
        store: the directory.
        run: the run's name in the store.
        directory: the run directory.

    Raises:
        InfraError: it cannot be written.

    """
    write_text(_kept(store, run), (directory / _REPORT).read_text(encoding="utf-8"))
    write_text(store / _BADGE, (directory / _BADGE).read_text(encoding="utf-8"))


def write_index(store: Path) -> Path:
    """Write `index.html` of a store.

    Returns:
        the file.

    Raises:
        InfraError: the history cannot be read, or the index not be written.

    """
    path = store / "index.html"
    with FileLock(store / "index.lock", timeout=_PATIENCE):  # else a run that ends meanwhile may be left out
        history = read_history(store)
        write_text(path, render_index(store, history.runs, history.notes))
    return path


def render_index(store: Path, runs: Sequence[RunEntry], notes: Sequence[str] = ()) -> str:
    """The page: the latest run of each tier first, then every run, newest first, then pictures."""
    newest = list(reversed(runs))
    tiers = dict.fromkeys(run.tier for run in newest)
    pairs = list(dict.fromkeys((run.tier, model) for run in newest for model in run.snapshots))
    drawn = history_gallery(runs, pairs[:MODELS])
    remarks = [*notes, *drawn.notes]
    if len(pairs) > MODELS:
        remarks.append(f"Pictures of the {MODELS} models that ran last; the others' are in their reports.")
    return displayable(
        jinja_environment()
        .get_template("index.html")
        .render(
            latest=[_row(store, next(run for run in newest if run.tier == tier)) for tier in tiers],
            rows=[_row(store, run) for run in newest],
            pictures=drawn.models,
            notes=remarks,
            css=Markup(asset("report.css")),
            safe_svg=Markup,
        )
    )


def _row(store: Path, run: RunEntry) -> _Row:
    counts = Counter(verdict for cell, verdict in run.verdicts.items() if run.roles.get(cell) == "candidate")
    said = ", ".join(f"{n} {SYMBOLS[verdict]} {verdict}" for verdict, n in sorted(counts.items()))
    kept = _kept(store, run.id)
    return _Row(run, SYMBOLS[run.verdict], said, kept.relative_to(store).as_posix() if kept.is_file() else "")


def _kept(store: Path, run: str) -> Path:
    return store / "runs" / run / _REPORT
