"""Losses that no single run shows: a figure that gets worse little by little from one release to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from pydantic import Field
from scipy import stats

from superweight.cards.gate_kinds import GateKind
from superweight.evidence.measured import Record
from superweight.verdict.kinds import Scale, scale_of

TREND_RUNS = 8  # of fewer, nearly every one would have to be worse than the one before to reach TREND_P
TREND_P = 0.01
_WAY_BACK = 2.0  # a drift is at least so many times the largest step in the other direction
_SIGMAS = 3.0  # beyond the noise of two figures by chance: about once in a thousand
_ROUNDING = 1e-9  # so that a loss of 10 of 200 items is no more than a margin of 0.05


class Point(NamedTuple):
    """A figure of one run."""

    when: str
    """When the run was started, ISO 8601."""
    value: float


class Alarm(Record):
    """A figure that is no longer what it was."""

    kind: Literal["drift", "trend", "step"] = Field(
        description="drift: the margin is used up although no run used it up; trend: on its way there, run after run; "
        "step: one run used it up, and it stayed so"
    )
    message: str
    loss: float = Field(description="from the first run to the last: nats for perplexity, else the score's own unit")
    margin: float = Field(description="in the same unit")
    first: float
    last: float
    since: str = Field(description="when the first run was started")
    until: str = Field(description="when the last run was started; of a step, the run that made it")
    runs: int
    p: float | None = Field(default=None, description="of Kendall's test for a trend towards the worse")


class FigureAlarm(Alarm):
    """An alarm with the figure it is about."""

    model: str
    recipe: str
    gate: str


def drift(
    series: Sequence[Point],
    margin: float,
    kind: GateKind | str,
    higher_is_better: bool = True,
    noise: float = 0.0,
) -> Alarm | None:
    """Look for a loss that is spread over several runs.

    The whole loss, from the first run to the last, must exceed the margin, or half of it if Kendall's test
    (Biometrika 30, 1938) finds a trend over at least eight runs. It must also be larger than what the runs show to be
    noise: three standard deviations of the difference of two figures, and twice the largest step towards the better.
    An alarm is a hint to look, not a verdict: every run is tested anew.

    Args:
        series: the figure, in the order of time; the first is the one that was released. Values that are not numbers
            are left out, unless the last is one.
        margin: the gate card's: ratio − 1 for perplexity, else in the score's own unit.
        kind: of the gate; figures are compared on its scale: perplexities as ratios, scores as differences.
        higher_is_better: of a score; perplexity is better when lower in any case.
        noise: standard deviation of one figure under repetition: nats for perplexity, else the score's own unit.

    Returns:
        the alarm; None for a stable or an improving series, and for noise around a level.

    """
    points = [point for point in series[:-1] if math.isfinite(point.value)] + list(series[-1:])
    if len(points) < 2 or math.isnan(points[-1].value):
        return None
    scale = scale_of(kind, margin)
    accepted = scale.loss(margin)
    sign = -1.0 if higher_is_better and not scale.less_is_better else 1.0
    losses = _losses([point.value for point in points], scale, sign)
    steps = [after - before for before, after in pairwise(losses)]
    total, p = losses[-1] - _ROUNDING, _trend(losses)
    if total <= max(accepted / 2, _SIGMAS * math.sqrt(2) * noise, _WAY_BACK * -min(steps)):
        return None
    largest = max(range(len(steps)), key=steps.__getitem__)
    found: Literal["drift", "trend", "step"]
    if steps[largest] - _ROUNDING > accepted:
        if total <= accepted:
            return None
        found = "step"
    elif total > accepted:
        found = "drift"
    elif p is not None and p < TREND_P and steps[largest] < total / 2:
        found = "trend"
    else:
        return None
    until = points[largest + 1] if found == "step" else points[-1]
    return Alarm(
        kind=found,
        message=_sentence(found, points, largest, losses[-1], accepted, scale, p),
        loss=losses[-1],
        margin=accepted,
        first=points[0].value,
        last=points[-1].value,
        since=points[0].when,
        until=until.when,
        runs=len(points),
        p=p,
    )


def _losses(values: Sequence[float], scale: Scale, sign: float) -> list[float]:
    """How much worse than the first each is; the sign is negative where more is better."""
    return [sign * scale.difference(values[0], value) if math.isfinite(value) else math.inf for value in values]


def _trend(losses: Sequence[float]) -> float | None:
    if len(losses) < TREND_RUNS or len(set(losses)) < 2:
        return None
    return float(stats.kendalltau(range(len(losses)), losses, alternative="greater").pvalue)


def _sentence(
    found: str,
    points: Sequence[Point],
    largest: int,
    total: float,
    accepted: float,
    scale: Scale,
    p: float | None,
) -> str:
    first, last = points[0], points[-1]
    span = (
        f"{first.value:.4g} ({_day(first)}) → {last.value:.4g} ({_day(last)}) over {len(points)} runs: "
        f"{_amount(total, scale)} worse"
    )
    bound = _amount(accepted, scale)
    if found == "step":
        one, other = points[largest], points[largest + 1]
        return (
            f"{span}, beyond the accepted {bound}, by one step: {one.value:.4g} ({_day(one)}) → "
            f"{other.value:.4g} ({_day(other)})"
        )
    if found == "drift":
        return f"{span} in all, beyond the accepted {bound}, though no single run lost that much"
    return f"{span} in all, more than half of the accepted {bound}, run after run (Kendall's test, p = {p:.2g})"


def _amount(loss: float, scale: Scale) -> str:
    return scale.loss_text(loss) if math.isfinite(scale.change(loss)) else "infinitely much"


def _day(point: Point) -> str:
    return point.when[:10]
