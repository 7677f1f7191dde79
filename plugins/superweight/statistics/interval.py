"""The two ends of a confidence interval."""

from __future__ import annotations

from typing import NamedTuple


class Interval(NamedTuple):
    """A two-sided confidence interval; either end may be infinite."""

    low: float
    high: float
