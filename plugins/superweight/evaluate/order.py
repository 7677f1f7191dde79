"""The order in which windows and items are visited: random, the same on every machine, and in fixed batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SEED = 20241107  # of every order; another would do as well


def visiting_order(n: int, *, seed: int = SEED) -> list[int]:
    """The numbers 0 … n − 1 in a random order.

    A number's place depends on its hash alone, so the order for fewer numbers is the order for more with the rest left
    out, and no library's generator can change it.
    """
    return sorted(range(n), key=lambda index: hashlib.sha256(f"{seed}:{index}".encode()).digest())


def batched(order: Sequence[int], size: int) -> list[list[int]]:
    """Consecutive runs of `size` numbers, of one if it is less; the last may be shorter."""
    size = max(1, size)
    return [list(order[start : start + size]) for start in range(0, len(order), size)]
