"""Means over values that may be no numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def finite(values: Iterable[float]) -> bool:
    """Whether every value is a number."""
    return all(map(math.isfinite, values))


def mean(values: Sequence[float]) -> float:
    """The mean of one value or more, rounded once; infinity if any of them is no number."""
    return math.fsum(values) / len(values) if finite(values) else math.inf
