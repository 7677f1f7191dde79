"""A figure of two runs on the windows or items that both have: what a change says of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from superweight.cards.gate import GateCard
from superweight.runs.snapshot import PerplexityFigure, TaskFigure
from superweight.statistics.averages import finite
from superweight.statistics.noninferiority import ErrorBudget
from superweight.verdict.paired_figure import PairedFigure

Scores = Mapping[str, float]


@dataclass(frozen=True)
class FigurePair:
    """One figure of an earlier run and of a later one.

    Attributes:
        figure: both, on the same windows or items.
        planned: windows or items that the runs would have used at most.
        unchanged: whether nothing differs that the figures depend on.

    """

    figure: PairedFigure
    planned: int
    unchanged: bool

    @classmethod
    def of_corpus(cls, corpus: str, before: PerplexityFigure, after: PerplexityFigure, *, same_key: bool) -> Self:
        """Perplexity, window by window; neighbours are taken for independent."""
        figure = PairedFigure.of_windows(corpus, after.window, before.by_window(), after.by_window())
        return cls.of(replace(figure, places=None), max(before.planned, after.planned), same_key=same_key)

    @classmethod
    def of_task(
        cls, task: str, figures: tuple[TaskFigure, TaskFigure], scores: tuple[Scores, Scores], *, same_key: bool
    ) -> Self:
        """A zero-shot metric, item by item."""
        metric, higher = figures[1].metric, figures[1].higher_is_better
        figure = PairedFigure.of_items(task, metric, *scores, higher_is_better=higher)
        return cls.of(figure, max(one.planned for one in figures), same_key=same_key)

    @classmethod
    def of(cls, figure: PairedFigure, planned: int, *, same_key: bool) -> Self:
        """A pair that is unchanged where keys and figures are the same."""
        return cls(figure, planned, unchanged=same_key and figure.before == figure.after)

    def judged(self, card: GateCard) -> dict[str, Any]:
        """The fields of a change, all but its verdict, which awaits the other figures of the cell."""
        figure, found = self.figure, self._settled() or self._tested(card)
        before, after = figure.total(figure.before), figure.total(figure.after)
        change = figure.change(found.loss, found.interval)
        return {
            "metric": figure.metric,
            "before": before,
            "after": after,
            "difference": change.difference,
            "interval": change.interval,
            "margin": card.margin,
            "higher_is_better": figure.higher_is_better,
            "n": len(figure.after),
            "alpha": (1 - card.confidence) / 2,
            "card": card.id,
            "p_pass": found.p_pass,
            "p_regression": found.p_regression,
            "method": found.method,
            "message": figure.sentence(before, after, change, planned=self.planned, margin=card.margin),
        }

    def summary(self) -> str:
        """Both figures, without a judgement."""
        return self.figure.summary(self.figure.total(self.figure.before), self.figure.total(self.figure.after))

    def _tested(self, card: GateCard) -> _Found:
        """All of them at the final analysis: nothing is left to be asked, so nothing is spent on stopping early."""
        budget = ErrorBudget(alpha=(1 - card.confidence) / 2, early_share=0.0)
        test = self.figure.test(card.margin, len(self.figure.after), budget)
        return _Found(test.loss, test.interval, test.p_pass, test.p_regression, test.method)

    def _settled(self) -> _Found | None:
        """What needs no test: a model that gives no number is worse than one that does; what is the same stays so."""
        anything = (-math.inf, math.inf)
        match finite(self.figure.before), finite(self.figure.after):
            case False, False:
                return _Found(0.0, anything, 1.0, 1.0, "neither run has a finite figure")
            case True, False:
                return _Found(math.inf, anything, 1.0, 0.0, "the later run has no finite figure")
            case False, True:
                return _Found(-math.inf, anything, 0.0, 1.0, "the earlier run had no finite figure")
        return _Found(0.0, (0.0, 0.0), 0.0, 1.0, "same key, same figures") if self.unchanged else None


class _Found(NamedTuple):
    """What is known of the loss."""

    loss: float
    interval: tuple[float, float]
    p_pass: float
    p_regression: float
    method: str
