"""Weights as bits: so that −0.0, NaN payloads and a trip through another dtype all show."""

from __future__ import annotations

import torch

_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def as_integers(tensor: torch.Tensor) -> torch.Tensor:
    """A view of a tensor's bits as signed integers of the same width."""
    return tensor.view(_INTEGER[tensor.element_size()])


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one dtype are equal as integers: −0.0 differs from 0.0, a NaN equals itself."""
    return torch.equal(as_integers(one), as_integers(other))


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether a floating-point tensor holds neither NaN nor infinity, in one read of it.

    A sum is finite only if every addend is. A sum that is not may have overflowed, and only then is looked at closer.
    """
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def bits(scalar: torch.Tensor) -> int:
    """The bits of a 0-dimensional tensor as an unsigned integer."""
    modulus: int = 1 << (8 * scalar.element_size())
    return int(as_integers(scalar.detach().cpu().reshape(1))[0]) % modulus


def hexadecimal(scalar: torch.Tensor) -> str:
    """The bits of a 0-dimensional tensor, two digits a byte: `0x3f800000` for float32 one."""
    return f"0x{bits(scalar):0{2 * scalar.element_size()}x}"
