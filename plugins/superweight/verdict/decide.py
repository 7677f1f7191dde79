"""From gates to one decision per cell, and from cells to one decision per run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from superweight.evidence.measured import CellEvidence, Record, Verdict
from superweight.verdict.result import GateResult


class JudgedCell(Record):
    """A cell's evidence with its gates and its verdict."""

    evidence: CellEvidence
    gates: list[GateResult] = Field(default_factory=list)
    verdict: Verdict
    argument: str = Field(description="why, in one or two sentences")

    @property
    def red(self) -> bool:
        """Whether this cell alone makes the run red (an inconclusive one is left to the tier)."""
        if self.evidence.role == "control":
            asked = any(gate.kind in ("perplexity", "zero-shot") for gate in self.gates) or self.verdict == "INFRA"
            return asked and self.verdict != self.evidence.expects
        if self.evidence.role == "reference":
            return self.verdict == "INFRA"
        return self.verdict in ("REGRESSION", "INFRA")


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """A proven regression outweighs what could not be measured, which outweighs what could not be decided.

    Nothing measured is INFRA: silence is not a pass.
    """
    found = set(verdicts)
    order: tuple[Verdict, ...] = ("REGRESSION", "INFRA", "INCONCLUSIVE", "PASS")
    return next((verdict for verdict in order if verdict in found), "INFRA")


def judge_cell(evidence: CellEvidence, gates: Sequence[GateResult]) -> JudgedCell:
    """One verdict for one cell."""
    verdict = _control(gates) if evidence.role == "control" else combine(gate.verdict for gate in gates)
    gates = [gate.model_copy(update={"decides": evidence.role != "reference"}) for gate in gates]
    return JudgedCell(
        evidence=evidence, gates=list(gates), verdict=verdict, argument=_argument(evidence, gates, verdict)
    )


def _control(gates: Sequence[GateResult]) -> Verdict:
    """What perplexity and zero-shot say; a control that is damaged or unmeasured in any other way shows nothing."""
    quality = [gate for gate in gates if gate.kind in ("perplexity", "zero-shot")]
    others = [gate for gate in gates if gate not in quality]
    if any(gate.verdict == "INFRA" for gate in quality) or any(gate.verdict != "PASS" for gate in others):
        return "INFRA"
    return combine(gate.verdict for gate in quality) if quality else "INCONCLUSIVE"


def _argument(evidence: CellEvidence, gates: Sequence[GateResult], verdict: Verdict) -> str:
    reasons = [gate.message.splitlines()[0] for gate in gates if gate.verdict == verdict and verdict != "PASS"]
    text = "; ".join(reasons) or ("nothing was measured" if not gates else f"all {len(gates)} gates cleared")
    if evidence.role == "control":
        seen = "as it must be" if verdict == evidence.expects else "so this gate cannot be trusted"
        return f"control expected {evidence.expects}, got {verdict}, {seen}. {text}"
    return text


class RunVerdict(Record):
    """One decision for the run, with what drove it."""

    verdict: Verdict
    reasons: list[str] = Field(default_factory=list)


def judge_run(cells: Sequence[JudgedCell], outside: Sequence[str] = ()) -> RunVerdict:
    """One verdict for the run: candidates decide, controls vouch for the gate, references only inform.

    A control that did not get its verdict is INFRA whatever else was found: the gate itself is broken, and nothing it
    says about the candidates counts. So is whatever went wrong `outside` any cell, unless a regression is proven all
    the same. Among candidates and baselines the worst verdict stands.
    """
    broken = [c for c in cells if c.evidence.role == "control" and c.red]
    unmeasured = [c for c in cells if c.evidence.role == "reference" and c.red]
    deciding = [c for c in cells if c.evidence.role in ("baseline", "candidate")]
    verdicts: list[Verdict] = [c.verdict for c in deciding]
    if unmeasured or outside or not cells:
        verdicts.append("INFRA")
    verdict = "INFRA" if broken else combine(verdicts or ["PASS"])
    drivers = [*broken, *unmeasured, *(c for c in deciding if c.verdict != "PASS")]
    reasons = [*outside, *(f"{c.evidence.id}: {c.argument}" for c in drivers)]
    return RunVerdict(verdict=verdict, reasons=reasons if cells else ["no cell was measured", *reasons])
