"""What a bench is doing at the moment, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Step(NamedTuple):
    """A measurement that is going on."""

    cell: str
    """`model/recipe`."""
    stage: str
    """`detection`, `sanity`, `perplexity:wiki`, `zero-shot:piqa`, `noise:perplexity:wiki`."""
    done: int = 0
    """Windows or items so far."""
    planned: int = 0
    """Windows or items at most; 0 where there are none to count."""


Watch = Callable[[Step], None]
