"""One model that is being measured: its reference, its figures, and the runner of the cell at hand."""

from __future__ import annotations

from superweight.cards import Cell, TierPerplexity, TierTask
from superweight.evidence import CellEvidence
from superweight.forward.runner import Runner
from superweight.measure.integrity import describe_into, detect_into, inspect_into
from superweight.measure.quality import QualityFigures
from superweight.measure.reference import Reference
from superweight.measure.runners import OpenRunner


class ModelInMeasurement:
    """Measures the cells of one model; of their runners one is open at a time.

    Args:
        reference: the uncompressed model.
        figures: takes perplexity and zero-shot accuracy.
        open_runner: makes what runs a cell.
    """

    def __init__(self, reference: Reference, figures: QualityFigures, open_runner: OpenRunner) -> None:
        self.reference = reference
        self._figures = figures
        self._open_runner = open_runner
        self._runner: tuple[str, Runner] | None = None

    def detect_into(self, cell: Cell, evidence: CellEvidence) -> None:
        """Super weights of the model, by detection and by the card."""
        detect_into(self.reference, self.runner(cell), cell, evidence)

    def inspect_into(self, cell: Cell, evidence: CellEvidence) -> None:
        """What the recipe did to the weights."""
        inspect_into(self.reference, self.runner(cell), cell, evidence)

    def measure_into(self, cell: Cell, evidence: CellEvidence, entry: TierPerplexity | TierTask) -> None:
        """One figure of a cell."""
        runner = self.runner(cell)
        describe_into(self.reference, runner, cell, evidence)
        if isinstance(entry, TierPerplexity):
            self._figures.perplexity_into(runner, evidence, entry)
        else:
            self._figures.zero_shot_into(runner, evidence, entry)

    def measure_again(self, cell: Cell, evidence: CellEvidence, entry: TierPerplexity | TierTask) -> None:
        """The A/A repeat of one figure of the baseline."""
        runner = self.runner(cell)
        if isinstance(entry, TierPerplexity):
            self._figures.perplexity_again(runner, evidence, entry)
        else:
            self._figures.zero_shot_again(runner, evidence, entry)

    def runner(self, cell: Cell) -> Runner:
        """What runs the cell; the one of another cell is closed first."""
        if self._runner is None or self._runner[0] != cell.id:
            self.close()
            self._runner = (cell.id, self._open_runner(self.reference, cell))
        return self._runner[1]

    def close(self) -> None:
        """Let go of what runs a cell."""
        if self._runner is not None:
            self._runner[1].close()
            self._runner = None
