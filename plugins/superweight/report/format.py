"""How figures and verdicts are written for people, the same in every output."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from superweight.evidence.measured import Verdict
from superweight.plain_text import TURNING
from superweight.runs.document import CellDocument
from superweight.verdict import GateResult
from superweight.verdict.amounts import AS_MULTIPLE_FROM, as_multiple

SYMBOLS: dict[Verdict, str] = {"PASS": "✓", "REGRESSION": "✗", "INCONCLUSIVE": "?", "INFRA": "!"}

_CONTROL = "\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f"
_NO_CHARACTERS = "\\ud800-\\udfff\\ufdd0-\\ufdef\\ufeff\\ufffe\\uffff"
_UNSHOWN = re.compile(f"[{_CONTROL}{_NO_CHARACTERS}{TURNING}]")


def displayable(text: str) -> str:
    """A page or file for people: what no page may hold, or would make it read backwards, as replacement characters."""
    return _UNSHOWN.sub("\ufffd", text)


def verdict_label(cell: CellDocument) -> str:
    """The verdict in words, with a control's expectation beside it and references marked as informing only."""
    if cell.role == "control":
        met = "as expected" if cell.verdict == cell.expects else f"expected {cell.expects}"
        return f"{cell.verdict} ({met})"
    if cell.role == "reference":
        return f"({cell.verdict})"
    return str(cell.verdict)


def number(value: float | None, metric: str | None) -> str:
    """A figure to the digits that matter: accuracies to three decimals, the rest to four significant digits."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    if metric in ("survived", "super weights"):
        return f"{value:.0f}"
    if metric is not None and metric.startswith(("acc", "exact")):
        return f"{value:.3f}"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3g}"


class DifferenceText(NamedTuple):
    """A difference as it is shown."""

    value: str
    interval: str = ""
    """In brackets; empty if there is none."""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}" if self.interval else self.value


def difference(gate: GateResult) -> DifferenceText:
    """The difference with its interval, in per cent of perplexity or in points of a score."""
    if gate.difference is None:
        return DifferenceText("")
    if math.isnan(gate.difference):
        return DifferenceText("not a number")
    if gate.kind == "perplexity":
        interval = "" if gate.interval is None else f"[{_percent(gate.interval[0])}, {_percent(gate.interval[1])}]"
        unit = "" if gate.difference >= AS_MULTIPLE_FROM else " %"
        return DifferenceText(f"{_percent(gate.difference)}{unit}", interval)
    if gate.kind in ("zero-shot", "agreement", "flips"):
        ends = () if gate.interval is None else (_points(end) for end in gate.interval)
        interval = "" if gate.interval is None else f"[{', '.join(ends)}]"
        return DifferenceText(f"{_points(gate.difference)} pt", interval)
    if gate.kind == "divergence":
        interval = "" if gate.interval is None else f"[{gate.interval[0]:.2g}, {gate.interval[1]:.2g}]"
        return DifferenceText(f"{gate.difference:.3g}", interval)
    return DifferenceText(f"{gate.difference:+.0f}" if gate.difference else "")


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # no minus before a zero


def _percent(change: float) -> str:
    """A relative change in per cent; beyond tenfold, as a multiple."""
    return as_multiple(1 + change) if change >= AS_MULTIPLE_FROM else f"{100 * change:+.1f}"


def end_of_loss(gate: GateResult) -> str:
    """The end of the interval on the losing side, as `difference` writes it."""
    low, high = gate.interval or (math.nan, math.nan)
    if gate.kind == "perplexity":
        return f"{_percent(high)}{'' if high >= AS_MULTIPLE_FROM else ' %'}"
    return f"{_points(low if gate.higher_is_better else high)} pt"


def count(gate: GateResult) -> str:
    """Windows or items, out of how many if it stopped early."""
    if gate.n is None:
        return ""
    return f"{gate.n} of {gate.planned}" if gate.planned is not None and gate.n < gate.planned else str(gate.n)


def detectable(gate: GateResult) -> str:
    """The smallest true change that the gate would have called a regression four times in five."""
    if gate.detectable is None or not math.isfinite(gate.detectable):
        return ""
    if gate.kind == "perplexity":
        return f"{100 * gate.detectable:+.1f} %"
    return f"{gate.detectable:+.3g}" if gate.kind == "divergence" else f"{100 * gate.detectable:+.1f} pt"


def verdict_text(gate: GateResult) -> str:
    """The verdict with its symbol; a waived one says so, and a figure that is odd has a mark."""
    text = f"{SYMBOLS[gate.verdict]} {gate.verdict}"
    text += " (waived)" if gate.waiver is not None else ""
    text += "" if gate.informs else " (no better than guessing)"
    return text + (" (odd)" if gate.flags else "")


def margin(gate: GateResult) -> str:
    """The accepted loss, as it is compared."""
    if gate.margin is None:
        return ""
    if gate.kind == "perplexity":
        return f"+{100 * gate.margin:g} %"
    if gate.kind == "divergence":
        return f"+{gate.margin:g}"
    return f"{'-' if gate.higher_is_better else '+'}{100 * gate.margin:g} pt"
