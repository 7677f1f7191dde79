"""How changes of perplexity are written: in per cent, and beyond tenfold as multiples."""

from __future__ import annotations

import math

AS_MULTIPLE_FROM = 9.0
"""A relative change of so much is tenfold."""

_LEGIBLE = 1e7
"""Nobody reads more digits than of smaller numbers."""


def as_multiple(ratio: float) -> str:
    """A ratio in words: `×1.03`, `×128,000`, `×2.8e+36`."""
    if not math.isfinite(ratio):
        return "×∞"
    if ratio >= _LEGIBLE:
        return f"×{ratio:.2g}"
    return f"×{ratio:.3g}" if ratio < 1000 else f"×{float(f'{ratio:.2g}'):,.0f}"


def as_percent(change: float) -> str:
    """A relative change: `+2.67%`, `×128,000`."""
    return as_multiple(1 + change) if change >= AS_MULTIPLE_FROM else f"{change:+.2%}"
