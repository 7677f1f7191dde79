"""A figure of two runs on the windows or items that both have: the tests, and the sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from superweight.cards.gate import GateCard
from superweight.runs.snapshot import PerplexityFigure, TaskFigure
from superweight.statistics.noninferiority import ErrorBudget, compare_means, compare_scores

_Key = TypeVar("_Key", int, str)
Scores = Mapping[str, float]


@dataclass(frozen=True)
class Paired:
    """Two figures on the same windows or items.

    Attributes:
        kind: of the gate.
        what: metric and corpus or task, in words.
        unit: windows or items, in words.
        before, after: nats a token of each window, or the score of each item, in the same order.
        planned: windows or items that the runs would have used at most.
        higher_is_better: of the metric.
        unchanged: whether nothing differs that the figures depend on.

    """

    kind: Literal["perplexity", "zero-shot"]
    what: str
    unit: str
    before: Sequence[float]
    after: Sequence[float]
    planned: int
    higher_is_better: bool
    unchanged: bool

    @classmethod
    def of_corpus(cls, corpus: str, before: PerplexityFigure, after: PerplexityFigure, *, same_key: bool) -> Self:
        """Perplexity, window by window."""
        ours, theirs = shared(before.by_window(), after.by_window())
        return cls(
            kind="perplexity",
            what=f"perplexity on {corpus}",
            unit=f"windows of {after.window} tokens",
            before=ours,
            after=theirs,
            planned=max(before.planned, after.planned),
            higher_is_better=False,
            unchanged=same_key and ours == theirs,
        )

    @classmethod
    def of_task(
        cls, task: str, figures: tuple[TaskFigure, TaskFigure], scores: tuple[Scores, Scores], *, same_key: bool
    ) -> Self:
        """A zero-shot metric, item by item."""
        ours, theirs = shared(*scores)
        return cls(
            kind="zero-shot",
            what=f"{figures[1].metric} on {task}",
            unit="items",
            before=ours,
            after=theirs,
            planned=max(figure.planned for figure in figures),
            higher_is_better=figures[1].higher_is_better,
            unchanged=same_key and ours == theirs,
        )

    @property
    def losses(self) -> list[float]:
        """How much worse the later run is on each: nats a token, or the score's own unit."""
        sign = -1.0 if self.higher_is_better else 1.0
        return [sign * (after - before) for before, after in zip(self.before, self.after, strict=True)]

    def judged(self, card: GateCard) -> dict[str, Any]:
        """The fields of a change, all but its verdict, which awaits the other figures of the cell."""
        tested = self._settled() or self._tested(card)
        low, high = tested.pop("loss_interval")
        difference, interval = self._in_metric(tested.pop("loss"), low, high)
        found = {
            "metric": self.kind if self.kind == "perplexity" else self.what.split(" on ")[0],
            "before": self._total(self.before),
            "after": self._total(self.after),
            "difference": difference,
            "interval": interval,
            "margin": card.margin,
            "higher_is_better": self.higher_is_better,
            "n": len(self.after),
            "alpha": (1 - card.confidence) / 2,
            "card": card.id,
            **tested,
        }
        return found | {"message": self._sentence(difference, interval, card.margin)}

    def summary(self) -> str:
        """Both figures, without a judgement."""
        return f"{self.what} {self._total(self.before):.4g} → {self._total(self.after):.4g}"

    def _tested(self, card: GateCard) -> dict[str, Any]:
        """All of them at the final analysis: nothing is left to be asked, so nothing is spent on stopping early."""
        design = ErrorBudget(alpha=(1 - card.confidence) / 2, early_share=0.0)
        margin = math.log1p(card.margin) if self.kind == "perplexity" else card.margin
        losses, n = self.losses, len(self.after)
        if self.binary:
            gained, lost = self.answers_changed
            found = compare_scores(gained, lost, n, planned=n, margin=margin, design=design)
        else:
            found = compare_means(losses, planned=n, margin=margin, design=design)
        return _result(found.loss, found.interval, found.p_pass, found.p_regression, found.method)

    def _settled(self) -> dict[str, Any] | None:
        """What needs no test: a model that gives no number is worse than one that does; what is the same stays so."""
        anything = (-math.inf, math.inf)
        match finite(self.before), finite(self.after):
            case False, False:
                return _result(0.0, anything, 1.0, 1.0, "neither run has a finite figure")
            case True, False:
                return _result(math.inf, anything, 1.0, 0.0, "the later run has no finite figure")
            case False, True:
                return _result(-math.inf, anything, 0.0, 1.0, "the earlier run had no finite figure")
        return _result(0.0, (0.0, 0.0), 0.0, 1.0, "same key, same figures") if self.unchanged else None

    @property
    def binary(self) -> bool:
        """Whether the scores are answers, right or wrong."""
        return self.kind == "zero-shot" and all(score in (0.0, 1.0) for score in (*self.before, *self.after))

    @property
    def answers_changed(self) -> tuple[int, int]:
        """Items on which the later run is better, and on which it is worse."""
        losses = self.losses
        return sum(loss < 0 for loss in losses), sum(loss > 0 for loss in losses)

    def _in_metric(self, loss: float, low: float, high: float) -> tuple[float, tuple[float, float]]:
        """In the metric's own direction: ratio − 1 of perplexities, after − before of scores."""
        if self.kind == "perplexity":
            return _expm1(loss), (_expm1(low), _expm1(high))
        return (0.0 - loss, (0.0 - high, 0.0 - low)) if self.higher_is_better else (loss, (low, high))

    def _total(self, values: Sequence[float]) -> float:
        average = mean(values)
        return exp(average) if self.kind == "perplexity" else average

    def _sentence(self, difference: float, interval: tuple[float, float], margin: float) -> str:
        ratio = self.kind == "perplexity"
        style, digits = ("+.2%", ".4g") if ratio else ("+.4f", ".4f")
        n = len(self.after)
        stopped = f" of {self.planned} planned" if n < self.planned else ""
        gained, lost = self.answers_changed
        answers = f" ({lost} lost, {gained} gained)" if self.binary else ""
        bound = -margin if self.higher_is_better else margin
        return (
            f"{self.what} {self._total(self.before):{digits}} → {self._total(self.after):{digits}}: "
            f"{difference:{style}} [{interval[0]:{style}}, {interval[1]:{style}}] over {n}{stopped} {self.unit}"
            f"{answers}; accepted {'down' if self.higher_is_better else 'up'} to {bound:{style}}"
        )


def shared(one: Mapping[_Key, float], other: Mapping[_Key, float]) -> tuple[list[float], list[float]]:
    """Values of the keys that both have, in one order."""
    keys = [key for key in one if key in other]
    return [one[key] for key in keys], [other[key] for key in keys]


def finite(values: Iterable[float]) -> bool:
    """Whether every value is a number."""
    return all(math.isfinite(value) for value in values)


def mean(values: Sequence[float]) -> float:
    """Their mean; infinity if any is none."""
    return math.fsum(values) / len(values) if finite(values) else math.inf


def exp(x: float) -> float:
    """Exponential of x, infinity where that is too large for a float."""
    return math.exp(x) if x < 700 else math.inf


def _expm1(x: float) -> float:
    return math.expm1(x) if x < 700 else math.inf


def _result(
    loss: float, loss_interval: tuple[float, float], p_pass: float, p_regression: float, method: str
) -> dict[str, Any]:
    return {
        "loss": loss,
        "loss_interval": loss_interval,
        "p_pass": p_pass,
        "p_regression": p_regression,
        "method": method,
    }
