"""Figures computed again from what they are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence

_MEANS = ("acc", "exact")  # metrics that begin like this are means over items; others need not be


def perplexity_fits(value: float, nll: Sequence[float]) -> bool:
    """Whether a perplexity is that of its windows' mean negative log-likelihoods, nats a token."""
    if not nll or not all(map(math.isfinite, nll)):
        return not math.isfinite(value)
    mean = math.fsum(nll) / len(nll)
    return math.isclose(value, math.exp(mean), rel_tol=1e-6) if mean < 700 else value > 1e300


def score_fits(metric: str, value: float, scores: Sequence[float]) -> bool:
    """Whether a score is the mean of its items', where its metric is one."""
    if not metric.startswith(_MEANS) or not scores:
        return True
    if not all(map(math.isfinite, scores)):
        return not math.isfinite(value)
    return math.isclose(value, math.fsum(scores) / len(scores), abs_tol=1e-9)
