"""Symmetric INT8 weights, and the integer product with its exact corrections (arXiv:2411.07191, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from superweight.cards.base import Coordinate
from superweight.compress.activations import Q_MAX, Quantised
from superweight.compress.blocks import piece_elements


@dataclass(frozen=True)
class KeptScalar:
    """A weight stored beside the INT8 matrix, exactly."""

    row: int
    column: int
    value: torch.Tensor  # 0-dim, the checkpoint's dtype


@dataclass(frozen=True)
class Int8Weight:
    """One matrix as an integer engine holds it.

    Attributes:
        codes: int8 `(out, in)`, contiguous; 0 where a scalar is kept aside.
        scale: float32 `(out, 1)` per channel or `(1, 1)` per tensor.
        kept: scalars stored aside.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    kept: tuple[KeptScalar, ...] = ()

    def stored(self, coordinate: Coordinate, dtype: torch.dtype) -> torch.Tensor:
        """One scalar as the artefact holds it: from the side table, else dequantised; 0-dim."""
        for scalar in self.kept:
            if (scalar.row, scalar.column) == (coordinate.row, coordinate.column):
                return scalar.value
        row = min(coordinate.row, self.scale.shape[0] - 1)
        return (self.codes[coordinate.row, coordinate.column].float() * self.scale[row, 0]).to(dtype)

    def linear(self, x: Quantised, bias: torch.Tensor | None = None) -> torch.Tensor:
        """X̂·Ŵᵀ in float32, `(…, out)`.

        The integer product of the replaced activations, dequantised, plus (a − â)·Ŵ[:, c] on the row of each entry a
        that was replaced by â, plus X̂[:, c]·w in output r for each kept scalar w at [r, c]. Exact but for float32
        rounding.
        """
        rows = x.codes.flatten(0, 1)
        scale = x.scale.expand(*x.codes.shape[:2], 1).reshape(-1, 1)
        y = int8_matmul(rows, self.codes).float() * scale * self.scale.T
        sequence, token, channel = x.where
        row = sequence * x.codes.shape[1] + token
        if row.numel():
            columns = self.codes[:, channel].float() * self.scale  # (out, n)
            y.index_add_(0, row, x.differences().unsqueeze(-1) * columns.T)
        for scalar in self.kept:
            inputs = rows[:, scalar.column].float() * scale[:, 0]
            here = channel == scalar.column
            inputs = inputs.index_put((row[here],), x.entries[here])
            y[:, scalar.row] += inputs * scalar.value.float()
        if bias is not None:
            y += bias.float()
        return y.view(*x.shape[:-1], self.codes.shape[0])


def weight_scale(
    matrix: torch.Tensor, granularity: Literal["tensor", "channel"], smoothing: torch.Tensor | None = None
) -> torch.Tensor:
    """max|W|/127 of each output channel `(out, 1)` or of the matrix `(1, 1)`, float32, of W·s if smoothed."""
    step = max(1, piece_elements(matrix.device) // max(1, matrix.shape[1]))
    largest = torch.cat([_smoothed(rows, smoothing).abs().amax(-1, keepdim=True) for rows in torch.split(matrix, step)])
    if granularity == "tensor":
        largest = largest.amax(0, keepdim=True)
    return largest / Q_MAX


def weight_codes(rows: torch.Tensor, scale: torch.Tensor, smoothing: torch.Tensor | None = None) -> torch.Tensor:
    """round(W/scale) as float32 whole numbers from −127 to 127; a channel of zeros gets zeros."""
    divisor = torch.where(scale == 0, 1.0, scale)
    return (_smoothed(rows, smoothing) / divisor).round_().clamp_(-Q_MAX, Q_MAX)


def int8_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a·bᵀ for int8 `(m, k)` and `(n, k)`, accumulated in int32 `(m, n)`; exact while k ≤ 133152.

    CUDA's kernel wants more than 16 rows, and k and n in multiples of 8: zeros are added and cut off.
    """
    if a.device.type != "cuda":
        return torch._int_mm(a.contiguous(), b.t())
    (m, k), n = a.shape, b.shape[0]
    extra_m, extra_k, extra_n = max(0, 17 - m), -k % 8, -n % 8
    a = functional.pad(a, (0, extra_k, 0, extra_m)) if extra_k or extra_m else a.contiguous()
    b = functional.pad(b, (0, extra_k, 0, extra_n)) if extra_k or extra_n else b
    return torch._int_mm(a, b.t())[:m, :n]


def result_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype an ordinary product with `x` would have: autocast's, where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def kept_scalars(matrix: torch.Tensor, coordinates: Sequence[Coordinate]) -> tuple[KeptScalar, ...]:
    """Copies of the scalars of a `(out, in)` matrix that are to be stored aside."""
    return tuple(KeptScalar(one.row, one.column, matrix[one.row, one.column].clone()) for one in coordinates)


def _smoothed(rows: torch.Tensor, smoothing: torch.Tensor | None) -> torch.Tensor:
    return rows.float() if smoothing is None else rows.float() * smoothing
