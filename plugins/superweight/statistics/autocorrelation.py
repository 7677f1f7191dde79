"""The variance of a mean over neighbouring windows, which resemble one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

_FEWEST = 8  # pairs of neighbours; fewer say nothing of how alike they are


def variance_inflation(values: Sequence[float], places: Sequence[int]) -> float:
    """By how much the likeness of neighbours raises the variance of a mean.

    Var(mean) = σ²/n · (1 + 2ρ·A/n), with ρ the correlation of neighbours and A the number of pairs of them among the n
    values; more distant ones are taken for independent. Values drawn from all over a text have few neighbours, those
    of a whole text have n − 1. The sample correlation is low by about 1/n (Kendall, Biometrika 41, 1954), which is put
    back; a negative one is taken for 0, since likeness is what windows may have.

    Args:
        values: one a window.
        places: the place of each window in the text, all different.

    Returns:
        A factor, 1 at least; 1 if there are too few neighbours to tell.

    """
    n = len(values)
    mean = math.fsum(values) / n if n else 0.0
    deviations = {place: value - mean for place, value in zip(places, values, strict=True)}
    products = [deviation * deviations[place + 1] for place, deviation in deviations.items() if place + 1 in deviations]
    variance = math.fsum(deviation**2 for deviation in deviations.values()) / max(n, 1)
    if len(products) < _FEWEST or variance <= 0 or not math.isfinite(variance):
        return 1.0
    correlation = math.fsum(products) / len(products) / variance + 1 / n
    return 1 + 2 * min(max(correlation, 0.0), 1.0) * len(products) / n
