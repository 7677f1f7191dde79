"""Asymmetric round-to-nearest over blocks, in float32 and in bounded memory (arXiv:2411.07191, section 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from superweight.compress.blocks import piece_elements, pieces


class Range(NamedTuple):
    """The ends of each block's grid, float32 `(…, 1)`."""

    low: torch.Tensor
    high: torch.Tensor


def extremes(part: torch.Tensor) -> Range:
    """The least and the largest element of each block of a `(…, n)` view in any float dtype."""
    return Range(part.amin(-1, keepdim=True).float(), part.amax(-1, keepdim=True).float())


def round_to_nearest(x: torch.Tensor, ends: Range, bits: int) -> torch.Tensor:
    """Round each block to 2^bits evenly spaced values between its ends.

    Δ = (high − low)/(2^bits − 1), Q = round((X − low)/Δ), X̂ = Δ·Q + low. The paper prints 2^(bits−1) − 1; its code uses
    2^bits − 1, as here. Elements beyond the ends are clamped to them. Ties round to even, as `torch.round` does.

    Args:
        x: float32 `(…, n)`.
        ends: of each block; where they meet (a constant block) every element becomes that value, exactly.
        bits: of a code.
    """
    low, high = ends
    step = (high - low) / (2**bits - 1)
    divisor = torch.where(step == 0, 1.0, step)
    clamped = x.clamp(low, high)
    rounded = ((clamped - low) / divisor).round_().mul_(step).add_(low)
    return torch.where(step == 0, clamped, rounded)


class Moments(NamedTuple):
    """Mean and standard deviation of each block's magnitudes, float32 `(…, 1)`."""

    mean: torch.Tensor
    std: torch.Tensor


def magnitude_moments(part: torch.Tensor) -> Moments:
    """Mean and sample standard deviation (n − 1, as `torch.std`) of |X| for each block; a block of one has std 0.

    Sums run in float64, in two passes, piece by piece.
    """
    n = part.shape[-1]
    limit = piece_elements(part.device)
    total = sum(piece.float().abs().sum(-1, keepdim=True, dtype=torch.float64) for piece in pieces(part, limit))
    mean = torch.as_tensor(total / n)
    squares = sum(
        (piece.float().abs() - mean.float()).square_().sum(-1, keepdim=True, dtype=torch.float64)
        for piece in pieces(part, limit)
    )
    std = torch.as_tensor(squares / max(1, n - 1)).sqrt()
    return Moments(mean.float(), std.float())


def clipped(ends: Range, moments: Moments, z: float) -> Range:
    """The ends of each block clamped to ±(mean|X| + z·std|X|); z = inf leaves them alone (section 4.2)."""
    if z == float("inf"):
        return ends
    threshold = moments.mean + z * moments.std
    return Range(ends.low.clamp(-threshold, threshold), ends.high.clamp(-threshold, threshold))
