"""Steps of a measurement, for whoever shows progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Step(NamedTuple):
    """A measurement that is going on."""

    cell: str
    """`model/recipe`."""
    stage: str
    """`detection`, `sanity`, `perplexity:wiki`, `zero-shot:piqa`, `noise:perplexity:wiki`,
    `quantise:torchao`."""
    done: int = 0
    """Windows or items so far."""
    planned: int = 0
    """Windows or items at most; 0 where there are none to count."""


Watch = Callable[[Step], None]


def duration(seconds: float) -> str:
    """A time in words: `43 s`, `12 min`, `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
