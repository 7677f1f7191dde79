"""Scalars as bits: so that −0.0, NaN payloads and a trip through another dtype all show."""

from __future__ import annotations

import torch

_INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def bits(scalar: torch.Tensor) -> int:
    """The bits of a 0-dimensional tensor as an unsigned integer."""
    size = scalar.element_size()
    return int(scalar.detach().cpu().reshape(1).view(_INTEGER[size])[0]) & ((1 << 8 * size) - 1)


def hexadecimal(scalar: torch.Tensor) -> str:
    """The bits of a 0-dimensional tensor, `0x3f800000` for float32 one."""
    return f"0x{bits(scalar):0{2 * scalar.element_size()}x}"
