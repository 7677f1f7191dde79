"""What a suite holds in its hands: one cell that can be measured and judged."""

from __future__ import annotations

from collections.abc import Callable

from superweight.cards import Cell, Role, TierPerplexity, TierTask
from superweight.errors import InfraError
from superweight.evidence import Verdict
from superweight.gate.measurer import Measurer
from superweight.gate.plan import gate_name
from superweight.gate.run import GateRun
from superweight.verdict import GateResult, JudgedCell


class CellUnderTest:
    """One model under one recipe. Every figure is measured once a run, whoever asks first."""

    def __init__(self, run: GateRun, cell: Cell) -> None:
        self._run = run
        self.cell = cell
        self.answers: dict[str, Verdict] = {}
        """Verdicts that were asked for, by gate."""

    def __repr__(self) -> str:
        return f"<cell {self.cell.id}, {self.cell.role}>"

    @property
    def role(self) -> Role:
        """`baseline`, `candidate`, `control` or `reference`."""
        return self.cell.role

    def detection(self) -> GateResult:
        """Super weights found by measurement, against those on the card."""
        self._run.measurer.detection(self.cell)
        return self._gate("detection")

    def sanity(self) -> GateResult:
        """Finite weights, only declared changes, a size."""
        return self._after("sanity", lambda measurer: measurer.sanity(self.cell))

    def super_weights(self) -> GateResult:
        """Whether super weights keep their bits."""
        return self._after("super-weights", lambda measurer: measurer.sanity(self.cell), "sanity")

    def perplexity(self, entry: TierPerplexity) -> GateResult:
        """Perplexity on one corpus against the baseline's."""
        return self._after(gate_name(entry), lambda measurer: measurer.perplexity(self.cell, entry))

    def zero_shot(self, entry: TierTask) -> GateResult:
        """One task against the baseline's."""
        return self._after(gate_name(entry), lambda measurer: measurer.zero_shot(self.cell, entry))

    def stands(self, gate: GateResult) -> bool:
        """Whether a regression is one for the whole run, corrected for the number of candidates as well."""
        return self._run.stands(gate)

    def everything(self) -> JudgedCell:
        """All gates of the tier on this cell."""
        for measure in self._run.measurements(self.cell):
            measure()
        judged = self._run.judged(self.cell.id)
        self.answers[self.cell.id] = judged.verdict
        return judged

    def _after(self, name: str, measure: Callable[[Measurer], None], stage: str = "") -> GateResult:
        """The gate, once measured; where a reference has nothing to show on this model, the gate that says so."""
        try:
            measure(self._run.measurer)
        except InfraError as error:
            if error.reason != "not-applicable" or self.role != "reference":
                raise
            return self._gate(stage or name)
        return self._gate(name)

    def _gate(self, name: str) -> GateResult:
        judged = self._run.judged(self.cell.id)
        found = [gate for gate in judged.gates if gate.gate == name]
        if not found:
            raise InfraError(
                f"{self.cell.id} has no gate '{name}': the {self.role} cell is not asked that. "
                "Mark the test with the roles it is for, as in superweight_roles('candidate').",
                reason="unsupported",
            )
        self.answers[name] = "PASS" if found[0].waiver else found[0].verdict
        return found[0]
