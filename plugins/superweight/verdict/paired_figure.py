"""A figure of two models, or of two runs, on the windows or items that both have: the test, and the sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self, TypeVar

from superweight.cards.gate_kinds import PERPLEXITY, ZERO_SHOT, GateKind
from superweight.statistics.noninferiority import ErrorBudget, PairedTest, compare_means, compare_scores
from superweight.verdict.kinds import (
    IN_MESSAGES,
    Change,
    Scale,
    accepted_text,
    change_of,
    change_text,
    figure_text,
    interval_text,
    scale_of,
)

_Key = TypeVar("_Key", int, str)


@dataclass(frozen=True)
class PairedFigure:
    """Two figures on the same windows or items.

    Attributes:
        kind: of the gate.
        metric: `perplexity`, or a task's.
        of: corpus or task.
        unit: windows or items, in words.
        before: nats a token of each window, or the score of each item, of the uncompressed model or the earlier run.
        after: likewise, in the same order, of the candidate or the later run.
        higher_is_better: of the metric.
        binary: whether the scores are answers, right or wrong.
        places: where in the text each window is; None if neighbours are taken for independent.

    """

    kind: GateKind
    metric: str
    of: str
    unit: str
    before: Sequence[float]
    after: Sequence[float]
    higher_is_better: bool
    binary: bool = False
    places: Sequence[int] | None = None

    @classmethod
    def of_windows(cls, corpus: str, window: int, before: Mapping[int, float], after: Mapping[int, float]) -> Self:
        """Perplexity, window by window.

        Args:
            corpus: its id.
            window: tokens in one.
            before: mean negative log-likelihood by the window's place, nats a token.
            after: likewise.

        """
        places, earlier, later = shared(before, after)
        return cls(
            kind=PERPLEXITY,
            metric="perplexity",
            of=corpus,
            unit=f"windows of {window} tokens",
            before=earlier,
            after=later,
            higher_is_better=False,
            places=places,
        )

    @classmethod
    def of_items(
        cls, task: str, metric: str, before: Mapping[str, float], after: Mapping[str, float], *, higher_is_better: bool
    ) -> Self:
        """A zero-shot metric, item by item.

        Whether scores are answers must not depend on how many items are in, so all of both are looked at.
        """
        _, earlier, later = shared(before, after)
        return cls(
            kind=ZERO_SHOT,
            metric=metric,
            of=task,
            unit="items",
            before=earlier,
            after=later,
            higher_is_better=higher_is_better,
            binary=all(score in (0.0, 1.0) for score in (*before.values(), *after.values())),
        )

    @cached_property
    def losses(self) -> list[float]:
        """How much worse it got on each: nats a token, or the score's own unit."""
        sign = -1.0 if self.higher_is_better else 1.0
        return [sign * (after - before) for before, after in zip(self.before, self.after, strict=True)]

    @cached_property
    def lost(self) -> int:
        """Windows or items on which it got worse."""
        return sum(loss > 0 for loss in self.losses)

    @cached_property
    def gained(self) -> int:
        """Windows or items on which it got better."""
        return sum(loss < 0 for loss in self.losses)

    def test(self, margin: float, planned: int, budget: ErrorBudget) -> PairedTest:
        """The loss against a card's margin: exact for answers, where the margin is a share; else of the mean loss."""
        losses = self.losses
        if self.binary and margin < 1:
            return compare_scores(self.gained, self.lost, len(losses), planned=planned, margin=margin, design=budget)
        accepted = self.scale(margin).loss(margin)
        return compare_means(losses, planned=planned, margin=accepted, design=budget, places=self.places)

    def scale(self, margin: float) -> Scale:
        """On which figures are compared and written, with a card's margin."""
        return scale_of(self.kind, margin, self.total(self.before), self.total(self.after))

    def change(self, loss: float, interval: tuple[float, float]) -> Change:
        """A loss and its interval in the direction of the metric."""
        return change_of(scale_of(self.kind), loss, interval, higher_is_better=self.higher_is_better)

    def total(self, values: Sequence[float]) -> float:
        """The figure over these windows or items."""
        return scale_of(self.kind).total(values)

    def summary(self, before: float, after: float) -> str:
        """Both figures, without a judgement."""
        was, now = (figure_text(value, self.metric, digits=4) for value in (before, after))
        return f"{self.metric} on {self.of} {was} → {now}"

    def sentence(self, before: float, after: float, change: Change, *, planned: int, margin: float) -> str:
        """Both figures, the change with its interval, on how much it rests, and what is accepted."""
        scale, n = self.scale(margin), len(self.after)
        counted = f"{n} of {planned}" if n < planned else str(n)
        answers = f" ({self.lost} lost, {self.gained} gained)" if self.kind.of == "task" else ""
        return (
            f"{self.summary(before, after)}: {change_text(scale, change.difference, IN_MESSAGES)}"
            f"{interval_text(scale, change.interval, IN_MESSAGES)} over {counted} {self.unit}{answers}; accepted "
            f"{'down' if self.higher_is_better else 'up'} to "
            f"{accepted_text(scale, margin, higher_is_better=self.higher_is_better)}"
        )


def shared(before: Mapping[_Key, float], after: Mapping[_Key, float]) -> tuple[list[_Key], list[float], list[float]]:
    """The keys that both have, in the order of the latter, and the values of each."""
    keys = [key for key in after if key in before]
    return keys, [before[key] for key in keys], [after[key] for key in keys]
