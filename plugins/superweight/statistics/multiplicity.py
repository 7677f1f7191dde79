"""Correction for asking several questions at once."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """P-values adjusted by Holm's step-down method (Scandinavian Journal of Statistics 6, 1979).

    Rejecting those at most alpha keeps the probability of any false rejection at alpha, whatever the dependence.

    Args:
        p_values: one a hypothesis.
        family: hypotheses in all, at least `len(p_values)`; those without a p-value count as 1.

    Returns:
        Adjusted p-values in the order given.

    Raises:
        ValueError: if the family is smaller than the p-values given.

    """
    size = len(p_values) if family is None else family
    if size < len(p_values):
        raise ValueError(f"a family of {size} hypotheses cannot hold {len(p_values)} p-values")
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (size - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
