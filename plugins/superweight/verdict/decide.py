"""From gates to one decision per cell, and from cells to one decision per run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from superweight.evidence.measured import CellEvidence, Record, Verdict
from superweight.statistics.multiplicity import holm
from superweight.verdict.result import QUALITY, GateResult, combine, decides


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
            asked = any(gate.kind in QUALITY for gate in self.gates) or self.verdict == "INFRA"
            return asked and self.verdict != self.evidence.expects
        if self.evidence.role == "reference":
            return self.verdict == "INFRA"
        return self.verdict in ("REGRESSION", "INFRA")


def _standing(gates: Iterable[GateResult]) -> Verdict:
    """The worst, waived gates left out; a cell whose every gate is waived passes, since somebody answers for it."""
    gates = list(gates)
    counted = [gate.verdict for gate in gates if gate.waiver is None]
    return "PASS" if gates and not counted else combine(counted)


def judge_cell(evidence: CellEvidence, gates: Sequence[GateResult]) -> JudgedCell:
    """One verdict for one cell."""
    verdict = _control(gates) if evidence.role == "control" else _standing(gates)
    gates = [gate.model_copy(update={"decides": evidence.role != "reference"}) for gate in gates]
    return JudgedCell(
        evidence=evidence, gates=list(gates), verdict=verdict, argument=_argument(evidence, gates, verdict)
    )


def _control(gates: Sequence[GateResult]) -> Verdict:
    """What perplexity and zero-shot say; a control that is damaged or unmeasured in any other way shows nothing.

    Gates on which no model could be seen to lose anything are left out, so that the others can vouch.
    """
    quality = [gate for gate in gates if gate.kind in QUALITY and gate.informs]
    others = [gate for gate in gates if gate.kind not in QUALITY]
    if any(gate.verdict == "INFRA" for gate in quality) or any(gate.verdict != "PASS" for gate in others):
        return "INFRA"
    return combine(gate.verdict for gate in quality) if quality else "INCONCLUSIVE"


def unmeasured(verdict: Verdict, gates: Sequence[GateResult]) -> bool:
    """Whether a control shows nothing for want of figures, and not by the figures that there are."""
    others = [gate.verdict for gate in gates if gate.kind not in QUALITY]
    return verdict == "INFRA" and all(other in ("PASS", "INFRA") for other in others)


def _behind(evidence: CellEvidence, gates: Sequence[GateResult], verdict: Verdict) -> list[GateResult]:
    """The gates that a cell's verdict comes from, waived ones left out; none of a PASS."""
    standing = [gate for gate in gates if gate.waiver is None]
    behind = [gate for gate in standing if gate.verdict == verdict != "PASS"]
    if evidence.role == "control" and not behind:
        return [gate for gate in gates if gate.verdict not in ("PASS", verdict)]  # what makes it show nothing
    return behind


def _argument(evidence: CellEvidence, gates: Sequence[GateResult], verdict: Verdict) -> str:
    waived = [gate for gate in gates if gate.waiver is not None]
    behind = _behind(evidence, gates, verdict)
    summaries = list(dict.fromkeys(gate.headline for gate in behind))  # one cause may stop several
    cleared = f"{len(gates) - len(waived)} of {len(gates)}" if waived else f"all {len(gates)}"
    text = "; ".join(summaries) or ("nothing was measured" if not gates else f"{cleared} gates cleared")
    text += "".join(f"; {_waiver(gate)}" for gate in waived)
    text += "".join(f"; {gate.gate}: {flag}" for gate in gates for flag in gate.flags)
    return f"{_control_clause(evidence, gates, verdict)} {text}" if evidence.role == "control" else text


def _control_clause(evidence: CellEvidence, gates: Sequence[GateResult], verdict: Verdict) -> str:
    """Whether a control got the verdict that it must get, and what follows if not."""
    meaning = "so this gate cannot be trusted"
    if verdict == evidence.expects:
        meaning = "as it must be"
    elif unmeasured(verdict, gates):
        meaning = "so nothing vouches for this gate"
    instead = ""
    if evidence.stands_in:
        kind = evidence.recipe_parameters.get("kind")
        instead = f" ({kind}, since no super weight is known for {evidence.stands_in})"
    return f"control expected {evidence.expects}, got {verdict}, {meaning}{instead}."


def _waiver(gate: GateResult) -> str:
    waiver = gate.waiver or {}
    return f"{gate.gate} {gate.verdict} is waived until {waiver.get('expires')} ({waiver.get('ticket')})"


class Reason(Record):
    """Something that drove the verdict of a run."""

    cell: str = Field(default="", description="`model/recipe`; empty if it happened outside any cell")
    gates: list[str] = Field(default_factory=list, description="gates of the cell behind it, waived ones included")
    text: str = Field(description="a sentence or two")
    by_chance: bool = Field(
        default=False,
        description="among so many candidates one looks like this too often: it decides the cell and not the run",
    )
    outside: bool = Field(default=False, description="went wrong outside any cell")

    def __str__(self) -> str:
        return f"{self.cell}: {self.text}" if self.cell else self.text


class RunVerdict(Record):
    """One decision for the run, with what drove it."""

    verdict: Verdict
    causes: list[Reason] = Field(default_factory=list)

    @property
    def reasons(self) -> list[str]:
        """The causes as sentences."""
        return [str(cause) for cause in self.causes]


def judge_run(cells: Sequence[JudgedCell], outside: Sequence[str] = ()) -> RunVerdict:
    """One verdict for the run: candidates decide, controls vouch for the gate, references only inform.

    A control that did not get its verdict is INFRA whatever else was found: where it got another, the gate itself is
    broken, and nothing it says about the candidates counts; where it was not measured, nobody vouches for the gate. So
    is whatever went wrong `outside` any cell, unless a regression is proven all the same. Among candidates and
    baselines the worst verdict stands, regressions corrected for the number of candidates (Holm): where many
    candidates are tried, one that fails by chance leaves the run undecided, not failed.
    """
    missed = [cell for cell in cells if cell.evidence.role == "control" and cell.red]
    unread = [cell for cell in cells if cell.evidence.role == "reference" and cell.red]
    deciding = [cell for cell in cells if decides(cell.evidence.role)]
    chance = _by_chance([cell for cell in deciding if cell.evidence.role == "candidate"])
    verdicts: list[Verdict] = ["INCONCLUSIVE" if cell.evidence.id in chance else cell.verdict for cell in deciding]
    if unread or outside or not cells:
        verdicts.append("INFRA")
    verdict = "INFRA" if missed else combine(verdicts or ["PASS"])
    waived = [cell for cell in cells if cell.verdict == "PASS" and any(gate.waiver for gate in cell.gates)]
    silent = [cell for cell in missed if unmeasured(cell.verdict, cell.gates)]
    contrary = [cell for cell in missed if cell not in silent]
    drivers = [*contrary, *unread, *(cell for cell in deciding if cell.verdict != "PASS"), *waived, *silent]
    happened = ([] if cells else ["no cell was measured"]) + list(outside)
    causes = [Reason(text=text, outside=True) for text in happened]
    causes += [_reason(cell, chance.get(cell.evidence.id, "")) for cell in drivers]
    return RunVerdict(verdict=verdict, causes=causes)


def _reason(cell: JudgedCell, chance: str) -> Reason:
    behind = _behind(cell.evidence, cell.gates, cell.verdict)
    waived = [gate for gate in cell.gates if gate.waiver is not None and gate not in behind]
    return Reason(
        cell=cell.evidence.id,
        gates=[gate.gate for gate in (*behind, *waived)],
        text=f"{cell.argument}{chance}",
        by_chance=bool(chance),
    )


def _by_chance(candidates: Sequence[JudgedCell]) -> dict[str, str]:
    """Regressions that do not stand once corrected for the number of candidates, with what to say of them."""
    smallest = [_smallest_p(cell) for cell in candidates]
    adjusted = holm([p for p, _ in smallest])
    sentences = {}
    for cell, (p, alpha), corrected in zip(candidates, smallest, adjusted, strict=True):
        if cell.verdict == "REGRESSION" and corrected > alpha:
            sentences[cell.evidence.id] = (
                f"; of {len(candidates)} candidates one looks like this by chance too often (p = {p:.2g}, "
                f"{corrected:.2g} after correction), so it decides this cell and not the run"
            )
    return sentences


def _smallest_p(cell: JudgedCell) -> tuple[float, float]:
    """The p-value behind a cell's REGRESSION, corrected within the cell, and the level it is compared with.

    A lost super weight and a recipe that does what it does not say are no matter of chance.
    """
    standing = [gate for gate in cell.gates if gate.waiver is None]
    if any(gate.verdict == "REGRESSION" and gate.p_adjusted is None for gate in standing):
        return 0.0, 1.0
    tested = [(gate.p_adjusted, gate.alpha) for gate in standing if gate.p_adjusted is not None and gate.alpha]
    return min(tested, key=lambda pair: pair[0] / pair[1], default=(1.0, 1.0))
