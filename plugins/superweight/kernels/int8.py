"""Symmetric INT8 weights, and the integer product with its exact corrections (arXiv:2411.07191, section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from superweight.kernels import int8_fused
from superweight.kernels.activations import Q_MAX, ActivationQuantiser, Quantised, scale_of

_ACCUMULATOR_BYTES = {"cpu": 2 << 20}  # of int32 sums at a time: what stays in cache. Elsewhere all at once


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

    def linear(
        self, x: Quantised, bias: torch.Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """X̂·Ŵᵀ `(…, out)`, summed in float32 and cast once.

        The integer product of the replaced activations, dequantised, plus (a − â)·Ŵ[:, c] on the row of each entry a
        that was replaced by â, plus X̂[:, c]·w in output r for each kept scalar w at [r, c]. Exact but for float32
        rounding.
        """
        rows = x.codes.flatten(0, 1)
        scale = x.scale.expand(*x.codes.shape[:2], 1).reshape(-1, 1)
        corrections = _Corrections(self, x, rows, scale)
        result = torch.empty(len(rows), len(self.codes), dtype=dtype, device=rows.device)
        for piece in _pieces(len(rows), len(self.codes), rows.device):
            y = int8_matmul(rows[piece], self.codes).float().mul_(scale[piece]).mul_(self.scale.T)
            corrections.add_to(y, piece)
            if bias is not None:
                y += bias.float()
            result[piece] = y
        return result.view(*x.shape[:-1], len(self.codes))


class _Corrections:
    """What the integer product of an input lacks: replaced entries and kept scalars."""

    def __init__(self, weight: Int8Weight, x: Quantised, rows: torch.Tensor, scale: torch.Tensor) -> None:
        sequence, token, channel = x.where
        self.weight, self.channel = weight, channel
        self.row = sequence * x.codes.shape[1] + token  # ascending
        self.differences = x.differences() if self.row.numel() else x.entries
        self.kept: list[tuple[int, torch.Tensor]] = []  # the output and X̂[:, c]·w, float32 (rows,)
        for scalar in weight.kept:
            inputs = rows[:, scalar.column].float() * scale[:, 0]
            here = channel == scalar.column
            inputs[self.row[here]] = x.entries[here]
            self.kept.append((scalar.row, inputs * scalar.value.float()))

    def add_to(self, y: torch.Tensor, piece: slice) -> None:
        """Add them to the rows `piece` of the result, float32 `(rows of the piece, out)`."""
        if self.row.numel():
            mine = (self.row >= piece.start) & (self.row < piece.stop)
            columns = self.weight.codes[:, self.channel[mine]].float() * self.weight.scale  # (out, n)
            y.index_add_(0, self.row[mine] - piece.start, (columns * self.differences[mine]).T.contiguous())
        for output, values in self.kept:
            y[:, output] += values[piece]


def linear(
    x: torch.Tensor,
    weight: Int8Weight,
    quantiser: ActivationQuantiser,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Quantise `(…, in)` and multiply in integers: `weight.linear(quantiser(x), bias, dtype)`, fused where possible."""
    if int8_fused.covers(x, quantiser):
        kept = [(scalar.row, scalar.column, scalar.value) for scalar in weight.kept]
        with torch.cuda.device(x.device):
            return int8_fused.linear(x, weight.codes, weight.scale, kept, quantiser, bias, dtype)
    return weight.linear(quantiser(x), bias, dtype)


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


def weight_scale(
    matrix: torch.Tensor, granularity: Literal["tensor", "channel"], smoothing: torch.Tensor | None = None
) -> torch.Tensor:
    """max|W|/127 of each output channel `(out, 1)` or of the matrix `(1, 1)`, float32, of W·s if smoothed."""
    pieces = torch.split(matrix, piece_rows(matrix))
    largest = torch.cat([_smoothed(rows, smoothing).abs().amax(-1, keepdim=True) for rows in pieces])
    if granularity == "tensor":
        largest = largest.amax(0, keepdim=True)
    return scale_of(largest)


def piece_rows(matrix: torch.Tensor) -> int:
    """Rows to work on at a time, in float32: what stays in a CPU's cache, or keeps a GPU busy."""
    return max(1, (1 << 18 if matrix.device.type == "cpu" else 1 << 24) // max(1, matrix.shape[1]))


def weight_codes(rows: torch.Tensor, scale: torch.Tensor, smoothing: torch.Tensor | None = None) -> torch.Tensor:
    """round(W/scale) as float32 whole numbers from −127 to 127; a channel of zeros gets zeros."""
    divisor = torch.where(scale == 0, 1.0, scale)
    return (_smoothed(rows, smoothing) / divisor).round_().clamp_(-Q_MAX, Q_MAX)


def _smoothed(rows: torch.Tensor, smoothing: torch.Tensor | None) -> torch.Tensor:
    return rows.float() if smoothing is None else rows.float() * smoothing


def _pieces(rows: int, outputs: int, device: torch.device) -> list[slice]:
    """Rows to be multiplied at a time."""
    limit = _ACCUMULATOR_BYTES.get(device.type)
    step = max(64, limit // (4 * max(1, outputs))) if limit else max(1, rows)
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
