"""Recipe `w8a8`: INT8 weights and activations, simulated or in integers (arXiv:2411.07191, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, TypeVar

import torch

from superweight.cards.base import Coordinate
from superweight.cards.methods import W8A8, SmoothQuant
from superweight.compress.attention_matmuls import quantise_attention
from superweight.compress.context import Context
from superweight.compress.integer import Codes
from superweight.compress.intercept import Call, Handler, intercept
from superweight.compress.matrix import Matrix
from superweight.compress.recipe import Recipe
from superweight.compress.size import SCALE_BITS, side_table_bits
from superweight.kernels.activations import ActivationQuantiser
from superweight.kernels.int8 import Int8Weight, KeptScalar, linear, piece_rows, weight_codes, weight_scale

Smoothing = Mapping[tuple[str, int | None], torch.Tensor]

M = TypeVar("M", bound=W8A8 | SmoothQuant)


class Int8Recipe(Recipe[M]):
    """A base of recipes that bring weights to INT8, and the inputs of every linear weight.

    The integer execution multiplies int8 matrices of its own; the model's parameters hold what those decode to.

    Attributes:
        activations: how inputs are quantised.
        execution: `simulated` multiplies dequantised numbers, `integer` multiplies int8 and accumulates int32.
        keep_super_weights: store them exactly, beside the INT8 weight. They then count neither towards a scale nor as
            a code, since they are not in the INT8 weight.
        smoothing: for some matrices, positive factors `(in,)`: inputs are divided by them and columns multiplied.
        matrices: what an integer engine holds of each matrix; empty if nothing is executed in integers.
    """

    execution: Literal["simulated", "integer"] = "simulated"
    keep_super_weights: bool = False

    def __init__(self, method: M, activations: ActivationQuantiser) -> None:
        super().__init__(method)
        self.activations = activations
        self.smoothing: Smoothing = {}
        self.matrices: dict[tuple[str, int | None], Int8Weight] = {}

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Rewrite one matrix with its dequantised INT8."""
        weight = self._quantise(matrix)
        if self.execution == "integer":
            self.matrices[matrix.key] = weight
        smoothing = self.smoothing.get(matrix.key)
        return {
            "codes": matrix.stored.numel() * 8,
            "scales": weight.scale.numel() * SCALE_BITS,
            "smoothing": 0 if smoothing is None else smoothing.numel() * SCALE_BITS,
            "super_weights": side_table_bits(len(weight.kept), width=matrix.width),
        }

    def codes(self, matrix: Matrix) -> Codes:
        """What a file would hold of a matrix that has not been rewritten: no smoothing, and nothing kept aside."""
        scale = weight_scale(matrix.values, self.method.weights)
        return Codes(weight_codes(matrix.values, scale).to(torch.int8), scale, None, 8)

    def install(self, context: Context, stack: ExitStack) -> Sequence[str]:
        """Quantise the inputs of the linear weights."""
        names = context.names
        return intercept(
            context.loaded.architecture.linear_weights,
            lambda weight: self._handler(names[id(weight.parameter)]),
            stack,
        )

    def figures(self, context: Context) -> dict[str, Any]:
        """How many super weights are stored aside."""
        return {"kept": len(context.super_weights) if self.keep_super_weights else 0}

    def stored(self, matrix: Matrix, coordinate: Coordinate) -> torch.Tensor:
        """A scalar of the side table or of the dequantised INT8, where integers are executed."""
        if matrix.key not in self.matrices:
            return super().stored(matrix, coordinate)
        return stored_scalar(self.matrices[matrix.key], coordinate, matrix.stored.dtype)

    def _quantise(self, matrix: Matrix) -> Int8Weight:
        """Rewrite one matrix in place and return it as integers (without codes if nothing will execute them)."""
        values = matrix.values  # (out, in)
        kept = kept_scalars(values, matrix.super_weights if self.keep_super_weights else ())
        for scalar in kept:
            values[scalar.row, scalar.column] = 0
        smoothing = self.smoothing.get(matrix.key)
        scale = weight_scale(values, self.method.weights, smoothing)
        integer = self.execution == "integer"
        codes = torch.empty(values.shape if integer else (0, 0), dtype=torch.int8, device=values.device)
        step = piece_rows(values)
        for start in range(0, values.shape[0], step):
            rows = slice(start, start + step)
            row_scale = scale[rows] if self.method.weights == "channel" else scale
            whole = weight_codes(values[rows], row_scale, smoothing)
            if integer:
                codes[rows] = whole.to(torch.int8)
            matrix.write(values[rows], whole * row_scale)
        for scalar in kept:
            values[scalar.row, scalar.column] = scalar.value
        return Int8Weight(codes, scale, kept)

    def _handler(self, name: str) -> Handler:
        def smoothed(call: Call) -> torch.Tensor:
            smoothing = self.smoothing.get((name, call.expert))
            return call.x if smoothing is None else call.x.float() / smoothing

        def simulated(call: Call) -> torch.Tensor:
            return call.linear(self.activations.simulate(smoothed(call)).to(call.x.dtype))

        def integer(call: Call) -> torch.Tensor:
            matrix = self.matrices[name, call.expert]
            return linear(smoothed(call), matrix, self.activations, call.bias, _result_dtype(call.x))

        return integer if self.execution == "integer" else simulated


class W8A8Recipe(Int8Recipe[W8A8]):
    """Quantise the linear weights and their inputs; the inputs of the attention matmuls too, if the card says so."""

    def __init__(self, method: W8A8) -> None:
        if method.super_activations == "naive":
            quantiser = ActivationQuantiser(method.activations)
        else:
            quantiser = ActivationQuantiser(
                method.activations, method.entries, method.massive_ratio, method.replacement
            )
        super().__init__(method, quantiser)
        self.execution = method.execution
        self.keep_super_weights = method.keep_super_weights

    def install(self, context: Context, stack: ExitStack) -> Sequence[str]:
        """Quantise the inputs of the linear weights, and of attention."""
        hooks = super().install(context, stack)
        if self.method.attention_matmuls:
            quantise_attention(context.loaded.model, self.method.activations, stack)
        return hooks


def kept_scalars(matrix: torch.Tensor, coordinates: Sequence[Coordinate]) -> tuple[KeptScalar, ...]:
    """Copies of the scalars of a `(out, in)` matrix that are to be stored aside."""
    return tuple(KeptScalar(one.row, one.column, matrix[one.row, one.column].clone()) for one in coordinates)


def stored_scalar(weight: Int8Weight, coordinate: Coordinate, dtype: torch.dtype) -> torch.Tensor:
    """One scalar as the artefact holds it: from the side table, else dequantised; 0-dim."""
    for scalar in weight.kept:
        if (scalar.row, scalar.column) == (coordinate.row, coordinate.column):
            return scalar.value
    row = min(coordinate.row, weight.scale.shape[0] - 1)
    return (weight.codes[coordinate.row, coordinate.column].float() * weight.scale[row, 0]).to(dtype)


def _result_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype an ordinary product with `x` would have: autocast's, where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
