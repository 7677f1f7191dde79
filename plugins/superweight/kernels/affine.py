"""Codes that deployed formats store: integers with a scale and a whole zero point, and 8-bit floats with a scale.

Scales are rounded to the dtype in which they are stored before codes are chosen, so that codes are the nearest on the
grid that a reader of the file has. Arithmetic is elementwise float32: the same bits in pieces of any size, and on
every device. A matrix of blocks is `(blocks, n)`; what belongs to a block is `(blocks, 1)`.
"""

from __future__ import annotations

import torch

from superweight.kernels.rounding import Range

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0


def symmetric_scale(ends: Range, bits: int, dtype: torch.dtype, *, full_range: bool = False) -> torch.Tensor:
    """max|X| over the largest code, in `dtype`: 2^(bits−1) − 1, or half more for the full range.

    Args:
        ends: least and largest element of each block.
        bits: of a code.
        dtype: in which the scale is stored.
        full_range: whether −2^(bits−1) is a code.
    """
    steps = (2**bits - 1) / 2 if full_range else 2 ** (bits - 1) - 1
    return _scale(torch.maximum(-ends.low, ends.high), steps, dtype)


def float8_scale(ends: Range, dtype: torch.dtype) -> torch.Tensor:
    """max|X|/448, in `dtype`."""
    return _scale(torch.maximum(-ends.low, ends.high), FLOAT8_MAX, dtype)


def asymmetric_scale(ends: Range, bits: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The step of a grid that covers each block and zero, in `dtype`, and the code of zero as int8."""
    low, high = ends.low.clamp(max=0), ends.high.clamp(min=0)
    scale = _scale(high - low, 2**bits - 1, dtype)
    least, most = code_range(bits)
    return scale, (least - low / scale.float()).round_().clamp_(least, most).to(torch.int8)


def code_range(bits: int, *, symmetric: bool = False, full_range: bool = False) -> tuple[int, int]:
    """The least and the largest code; without −2^(bits−1) where codes are symmetric about zero."""
    narrow = symmetric and not full_range
    return -(2 ** (bits - 1)) + int(narrow), 2 ** (bits - 1) - 1


def integer_codes(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, limits: tuple[int, int]
) -> torch.Tensor:
    """round(X/scale) + zero point within the limits, int8; halves to even."""
    codes = (x.float() / scale.float()).round_()
    if zero_point is not None:
        codes += zero_point.float()
    return codes.clamp_(*limits).to(torch.int8)


def float8_codes(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The nearest 8-bit floats to X/scale."""
    return (x.float() / scale.float()).clamp_(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8)


def decoded(codes: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None = None) -> torch.Tensor:
    """(code − zero point) · scale in the scale's dtype, as whoever loads the file computes it."""
    values = codes.to(scale.dtype)
    if zero_point is not None:
        values = values - zero_point.to(scale.dtype)
    return values * scale


def _scale(span: torch.Tensor, steps: float, dtype: torch.dtype) -> torch.Tensor:
    """A span over the steps in it; one where that is nothing, since a scale of zero is no grid."""
    scale = (span / torch.full_like(span, steps)).to(dtype)  # by a number, CUDA would multiply with its reciprocal
    return torch.where(scale == 0, torch.ones_like(scale), scale)
