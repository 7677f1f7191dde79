"""What follows from a gate's kind: losses and figures on its scale, and how both are written.

A loss is how much worse a model is, positive if worse, and what is tested: nats a token for figures that are ratios,
else the figure's own unit. A change is what is shown and what a card's margin is compared with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol

from superweight.cards.gate import GateCard
from superweight.cards.gate_kinds import GATE_KINDS, GateKind
from superweight.statistics.averages import mean
from superweight.statistics.interval import Interval

IN_TABLES = 1
"""Decimals of per cent and of points where figures stand beside one another."""
IN_MESSAGES = 2
"""Decimals where a figure is argued with."""

AS_MULTIPLE_FROM = 9.0
"""A relative change of so much is tenfold."""

_LEGIBLE = 1e7
"""Nobody reads more digits than of smaller numbers."""
_LARGEST_EXPONENT = 700.0
"""Beyond it exponentials are too large for a float."""


class Scale:
    """How figures of a kind are compared and written; as it is, a figure in a unit that only its metric knows."""

    unit: ClassVar[str] = ""
    """After a change."""
    loss_unit: ClassVar[str] = ""
    """After a loss."""
    factor: ClassVar[float] = 1.0
    """From a change to what axes of pictures show of it."""
    axis: ClassVar[str] = ""
    """The unit of axes."""
    less_is_better: ClassVar[bool] = False
    """Whether it is of every figure on this scale, whatever its metric says."""
    compared: ClassVar[str] = " minus the uncompressed model's"
    """What a figure is that is taken against the uncompressed model's."""

    def loss(self, change: float) -> float:
        """The loss that a change for the worse amounts to; of a card's margin, what losses are tested against."""
        return change

    def change(self, loss: float) -> float:
        """The change that a loss amounts to where less is better."""
        return loss

    def total(self, values: Sequence[float]) -> float:
        """The figure over windows or items; infinity if any of them is no number."""
        return mean(values)

    def relative(self, change: float) -> float:
        """A figure against the uncompressed model's, from the change between the two."""
        return change

    def difference(self, before: float, after: float) -> float:
        """The loss between two figures where less is better."""
        return after - before

    def number(self, change: float, digits: int = IN_TABLES) -> str:
        """A change without its unit."""
        return _signed(change, digits + 2)

    def text(self, change: float, digits: int = IN_TABLES) -> str:
        """A change with its unit: `+2.7 %`, `-1.6 pt`."""
        return f"{self.number(change, digits)}{self.unit}"

    def exact(self, change: float) -> str:
        """A change to the digits that it was given with, such as a margin: `+5 %`."""
        return f"{change:+g}"

    def loss_text(self, loss: float) -> str:
        """A loss as the change that it amounts to, without its sign."""
        return self.text(self.change(loss), IN_MESSAGES).removeprefix("+")


class _Ratio(Scale):
    unit = " %"
    loss_unit = " nats a token"
    factor, axis = 100.0, ", %"
    less_is_better = True
    compared = " relative to the uncompressed model"

    def loss(self, change: float) -> float:
        return math.log1p(change)

    def change(self, loss: float) -> float:
        return math.expm1(loss) if loss < _LARGEST_EXPONENT else math.inf

    def total(self, values: Sequence[float]) -> float:
        average = mean(values)
        return math.exp(average) if average < _LARGEST_EXPONENT else math.inf

    def relative(self, change: float) -> float:
        return 1 + change

    def difference(self, before: float, after: float) -> float:
        return math.log(after / before)

    def number(self, change: float, digits: int = IN_TABLES) -> str:
        return as_multiple(1 + change) if change >= AS_MULTIPLE_FROM else _signed(100 * change, digits)

    def text(self, change: float, digits: int = IN_TABLES) -> str:
        return f"{self.number(change, digits)}{'' if change >= AS_MULTIPLE_FROM else self.unit}"

    def exact(self, change: float) -> str:
        return f"{100 * change:+g}{self.unit}"


class _Points(Scale):
    unit = " pt"
    factor, axis = 100.0, ", points"

    def number(self, change: float, digits: int = IN_TABLES) -> str:
        return _signed(100 * change, digits)

    def exact(self, change: float) -> str:
        return f"{100 * change:+g}{self.unit}"


class _Nats(Scale):
    unit = " nats a token"
    loss_unit = " nats a token"
    axis = ", nats a token"

    def number(self, change: float, digits: int = IN_TABLES) -> str:
        return f"{change + 0.0:+.{digits + 2}g}"

    def exact(self, change: float) -> str:
        return f"{change:+g}{self.unit}"


RATIO, POINTS, NATS, OWN = _Ratio(), _Points(), _Nats(), Scale()
_SCALES: dict[str, Scale] = {"ratio": RATIO, "points": POINTS, "nats": NATS}


class Judged(Protocol):
    """What tells on which scale a figure is: a gate's result."""

    @property
    def kind(self) -> str:
        """The kind of gate."""

    @property
    def margin(self) -> float | None:
        """The largest accepted loss."""

    @property
    def value(self) -> float | None:
        """The figure."""

    @property
    def baseline(self) -> float | None:
        """What it is compared with."""


def scale_of(kind: GateKind | str, *figures: float | None) -> Scale:
    """The scale of a kind.

    Args:
        kind: the row of the table, or a name; a kind that is not in the table has a scale of its own.
        figures: the margin, and any figures of it; scores are written in points where all of them are shares, since a
            metric may also be something else.

    """
    row = GATE_KINDS.get(kind) if isinstance(kind, str) else kind
    if row is None:
        return OWN
    beyond = any(figure is not None and math.isfinite(figure) and abs(figure) > 1 for figure in figures)
    return OWN if row.scale == "points" and beyond else _SCALES[row.scale]


def scale_of_gate(gate: Judged) -> Scale:
    """The scale on which a gate's figures are."""
    return scale_of(gate.kind, gate.margin, gate.value, gate.baseline)


def loss_margin(card: GateCard) -> float:
    """The margin on the scale of losses: of perplexity, nats a token (the log of the ratio); else as on the card."""
    return scale_of(card.kind).loss(card.margin)


class Change(NamedTuple):
    """A change in the direction of the metric, and its interval."""

    difference: float
    interval: Interval


def change_of(scale: Scale, loss: float, interval: tuple[float, float], *, higher_is_better: bool) -> Change:
    """A loss and its interval in the direction of the metric: ratio − 1, or after − before."""
    low, high = interval
    if higher_is_better:
        return Change(0.0 - scale.change(loss), Interval(0.0 - scale.change(high), 0.0 - scale.change(low)))
    return Change(scale.change(loss), Interval(scale.change(low), scale.change(high)))


def change_text(scale: Scale, change: float, digits: int = IN_TABLES) -> str:
    """A change with its unit, or that it is none."""
    return "not a number" if math.isnan(change) else scale.text(change, digits)


def interval_text(scale: Scale, interval: tuple[float, float] | None, digits: int = IN_TABLES) -> str:
    """Both ends without their unit, which stands with the change: ` [+1.0, +3.0]`; empty if there are none."""
    return "" if interval is None else f" [{', '.join(scale.number(end, digits) for end in interval)}]"


def accepted_text(scale: Scale, margin: float, *, higher_is_better: bool) -> str:
    """The margin as the change that is still accepted: `+5 %`, `-2 pt`."""
    return scale.exact(-margin if higher_is_better else margin)


def figure_text(value: float | None, metric: str | None, digits: int = 3) -> str:
    """A figure to the digits that matter.

    Args:
        value: the figure; None for none.
        metric: accuracies have `digits` decimals, counts none, and everything else has four significant digits.
        digits: of accuracies.

    """
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    if metric in ("survived", "super weights"):
        return f"{value:.0f}"
    if metric is not None and metric.startswith(("acc", "exact")):
        return f"{value:.{digits}f}"
    return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.3g}"


def as_multiple(ratio: float) -> str:
    """A ratio in words: `×1.03`, `×128,000`, `×2.8e+36`."""
    if not math.isfinite(ratio):
        return "×∞"
    if ratio >= _LEGIBLE:
        return f"×{ratio:.2g}"
    return f"×{ratio:.3g}" if ratio < 1000 else f"×{float(f'{ratio:.2g}'):,.0f}"


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # no minus before a zero
