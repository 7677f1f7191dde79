"""The rules of a run: gate cards and waivers, the day, and how error rates are spent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

from superweight.cards.gate_book import GateBook
from superweight.statistics.noninferiority import ErrorBudget

EARLY = 0.2  # share of alpha that buys early stopping where a tier stops early


@dataclass(frozen=True)
class Rules:
    """What turns evidence into verdicts, the same for every cell of a run.

    Attributes:
        book: gate cards and waivers.
        today: the day of the run; expiries are compared with it, so that a report rebuilt later says the same.
        sequential: whether measurements may have been stopped early.
        planned: how many quality gates each cell is asked, by cell id, those not measured yet included; the family that
            a cell's REGRESSION is corrected for.
        sizes: windows or items of each gate by tier, smaller tiers first, for advice.
    """

    book: GateBook
    today: date
    sequential: bool = True
    planned: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, Mapping[str, int | None]] = field(default_factory=dict)

    def design(self, confidence: float) -> ErrorBudget:
        """How the error rate of a gate of this confidence is spent."""
        return ErrorBudget(alpha=(1 - confidence) / 2, early_share=EARLY if self.sequential else 0.0)
