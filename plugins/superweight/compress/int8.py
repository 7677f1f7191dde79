"""INT8 matrices of a model: which scalars are stored aside, and what the artefact then holds."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from superweight.cards.base import Coordinate
from superweight.kernels.int8 import Int8Weight, KeptScalar


def kept_scalars(matrix: torch.Tensor, coordinates: Sequence[Coordinate]) -> tuple[KeptScalar, ...]:
    """Copies of the scalars of a `(out, in)` matrix that are to be stored aside."""
    return tuple(KeptScalar(one.row, one.column, matrix[one.row, one.column].clone()) for one in coordinates)


def stored(weight: Int8Weight, coordinate: Coordinate, dtype: torch.dtype) -> torch.Tensor:
    """One scalar as the artefact holds it: from the side table, else dequantised; 0-dim."""
    for scalar in weight.kept:
        if (scalar.row, scalar.column) == (coordinate.row, coordinate.column):
            return scalar.value
    row = min(coordinate.row, weight.scale.shape[0] - 1)
    return (weight.codes[coordinate.row, coordinate.column].float() * weight.scale[row, 0]).to(dtype)


def result_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype an ordinary product with `x` would have: autocast's, where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
