"""How figures and verdicts are written for people, the same in every output."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from superweight.cards.gate_kinds import INTEGRITY_KINDS
from superweight.evidence.measured import Verdict
from superweight.plain_text import TURNING
from superweight.runs.document import CellDocument
from superweight.verdict import GateResult
from superweight.verdict.kinds import accepted_text, change_text, figure_text, interval_text, scale_of_gate

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
    return figure_text(value, metric)


class DifferenceText(NamedTuple):
    """A difference as it is shown."""

    value: str
    interval: str = ""
    """In brackets; empty if there is none."""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}" if self.interval else self.value


def difference(gate: GateResult) -> DifferenceText:
    """The change with its interval: `+2.0 % [+1.0, +3.0]`; a count, of what has no margin."""
    if gate.difference is None:
        return DifferenceText("")
    if gate.kind in INTEGRITY_KINDS:
        return DifferenceText(f"{gate.difference:+.0f}" if gate.difference else "")
    scale = scale_of_gate(gate)
    ends = None if math.isnan(gate.difference) else gate.interval
    return DifferenceText(change_text(scale, gate.difference), interval_text(scale, ends).strip())


def end_of_loss(gate: GateResult) -> str:
    """The end of the interval on the losing side, as `change` writes it."""
    low, high = gate.interval or (math.nan, math.nan)
    return change_text(scale_of_gate(gate), low if gate.higher_is_better else high)


def count(gate: GateResult) -> str:
    """Windows or items, out of how many if it stopped early."""
    if gate.n is None:
        return ""
    return f"{gate.n} of {gate.planned}" if gate.planned is not None and gate.n < gate.planned else str(gate.n)


def detectable(gate: GateResult) -> str:
    """The smallest true change that the gate would have called a regression four times in five."""
    if gate.detectable is None or not math.isfinite(gate.detectable):
        return ""
    return change_text(scale_of_gate(gate), gate.detectable)


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
    return accepted_text(scale_of_gate(gate), gate.margin, higher_is_better=gate.higher_is_better)
