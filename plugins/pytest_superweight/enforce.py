"""Turning verdicts into test outcomes: candidates and baselines answer for theirs, controls must meet theirs."""

from __future__ import annotations

import warnings

from pytest_superweight.cell_under_test import CellUnderTest
from superweight.errors import GateFailure, Inconclusive, Suspicious, Waived
from superweight.verdict import GateResult, JudgedCell, decides, unmeasured


def enforce(cell: CellUnderTest, gate: GateResult, *, inconclusive_is_red: bool = False) -> None:
    """Fail the test if this gate decides and did not pass.

    References inform; controls are enforced as whole cells by `enforce_control`. What could not be measured is red in
    every role.

    A regression that is none once corrected for the number of candidates warns, and the end of the run decides: a run
    that is a REGRESSION is red whatever its tests said. A failure that is waived warns, and so does a figure that is
    too good to be true.

    Raises:
        GateFailure: REGRESSION or INFRA, or INCONCLUSIVE where the tier says that is red.

    """
    text = f"{gate.verdict}  {cell.cell.id}  {gate.gate}\n{gate.message}"
    text += f"\nmargin: {gate.why}" if gate.why and gate.verdict != "PASS" else ""
    if gate.verdict == "INFRA":
        raise GateFailure(text)
    if not decides(cell.role):
        return
    if gate.flags:
        warnings.warn(Suspicious(text), stacklevel=2)
    if gate.waiver is not None:
        told = f"waived until {gate.waiver['expires']} ({gate.waiver['ticket']}): {gate.waiver['why']}\n{text}"
        warnings.warn(Waived(told), stacklevel=2)
        return
    by_chance = gate.verdict == "REGRESSION" and not cell.stands(gate)
    if by_chance:
        text += "\nof so many candidates, one looks like this by chance too often: the end of the run decides"
    undecided = by_chance or gate.verdict == "INCONCLUSIVE"
    if (gate.verdict == "REGRESSION" and not by_chance) or (undecided and inconclusive_is_red):
        raise GateFailure(text)
    if undecided:
        warnings.warn(Inconclusive(text), stacklevel=2)


def enforce_control(cell: CellUnderTest, judged: JudgedCell) -> None:
    """Fail the test if a control did not get the verdict that it declares.

    Raises:
        GateFailure: the gate cannot see what it must see, so nothing it says can be trusted.

    """
    if not judged.red:
        return
    means = "a gate that cannot tell is broken, and no verdict of this run counts"
    if unmeasured(judged.verdict, judged.gates):
        means = "it was not measured, so nothing vouches for this gate"
    figures = "\n".join(f"  {gate.verdict:12} {gate.gate}: {gate.message}" for gate in judged.gates)
    raise GateFailure(
        f"the control {cell.cell.id} must get {judged.evidence.expects} and got {judged.verdict}: {means}.\n{figures}"
    )
