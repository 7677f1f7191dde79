"""Recipe `w8a8`: INT8 weights and activations, simulated or in integers (arXiv:2411.07191, section 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from superweight.cards.base import Coordinate
from superweight.cards.recipe import W8A8
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.activations import quantiser_of
from superweight.compress.attention_matmuls import quantise_attention
from superweight.compress.context import Context, RecipeReport, UndoLog, experts
from superweight.compress.int8 import kept_scalars, result_dtype, stored
from superweight.compress.intercept import Call, Handler, intercept
from superweight.compress.size import SCALE_BITS, measure, side_table_bits
from superweight.kernels.activations import ActivationQuantiser
from superweight.kernels.int8 import Int8Weight, linear, piece_rows, weight_codes, weight_scale

Smoothing = Mapping[tuple[str, int | None], torch.Tensor]
Matrices = dict[tuple[str, int | None], Int8Weight]


@dataclass(frozen=True)
class Int8:
    """How a model is brought to INT8.

    Attributes:
        weights: what shares a weight scale: the matrix (all of a fused one), or an output channel.
        activations: how inputs are quantised.
        execution: `simulated` multiplies dequantised numbers, `integer` multiplies int8 and accumulates int32.
        keep_super_weights: store them exactly, beside the INT8 weight. They then count neither towards a scale nor as
            a code, since they are not in the INT8 weight.
        smoothing: for some matrices, positive factors `(in,)`: inputs are divided by them and columns multiplied.
    """

    weights: Literal["tensor", "channel"]
    activations: ActivationQuantiser
    execution: Literal["simulated", "integer"] = "simulated"
    keep_super_weights: bool = False
    smoothing: Smoothing = field(default_factory=dict)


def apply(method: W8A8, context: Context, journal: UndoLog) -> RecipeReport:
    """Quantise the linear weights and their inputs; the inputs of the attention matmuls too, if the card says so."""
    how = Int8(method.weights, quantiser_of(method), method.execution, method.keep_super_weights)
    outcome = install(how, context, journal)
    if method.attention_matmuls:
        quantise_attention(context.loaded.model, method.activations, journal.stack)
    return outcome


def install(how: Int8, context: Context, journal: UndoLog) -> RecipeReport:
    """Rewrite every linear weight with its dequantised INT8, and quantise its inputs from now on.

    The integer execution multiplies int8 matrices of its own; the model's parameters hold what those decode to.
    """
    matrices: Matrices = {}
    parts = []
    for weight in context.weights:
        journal.keep(weight)
        for expert in experts(weight):
            matrix = _quantise(how, context, journal, weight, expert)
            if how.execution == "integer":
                matrices[weight.name, expert] = matrix
        parts.append(_size_parts(how, context, weight))
    names = {id(weight.parameter): weight.name for weight in context.weights}
    hooks = intercept(
        context.loaded.architecture.linear_weights,
        lambda weight: _handler(how, names[id(weight.parameter)], matrices),
        journal.stack,
    )
    return RecipeReport(
        size=measure(context.loaded.model, context.weights, parts, width=context.width),
        figures={"kept": len(context.super_weights) if how.keep_super_weights else 0},
        hooks=hooks,
        stored=_reader(context, matrices) if matrices else None,
    )


def _quantise(how: Int8, context: Context, journal: UndoLog, weight: LinearWeight, expert: int | None) -> Int8Weight:
    """Rewrite one matrix in place and return it as integers (without codes if nothing will execute them)."""
    matrix = weight.matrix(expert)  # (out, in)
    kept = kept_scalars(matrix, context.held(weight, expert) if how.keep_super_weights else ())
    for scalar in kept:
        matrix[scalar.row, scalar.column] = 0
    smoothing = how.smoothing.get((weight.name, expert))
    scale = weight_scale(matrix, how.weights, smoothing)
    integer = how.execution == "integer"
    codes = torch.empty(matrix.shape if integer else (0, 0), dtype=torch.int8, device=matrix.device)
    step = piece_rows(matrix)
    for start in range(0, matrix.shape[0], step):
        rows = slice(start, start + step)
        row_scale = scale[rows] if how.weights == "channel" else scale
        whole = weight_codes(matrix[rows], row_scale, smoothing)
        if integer:
            codes[rows] = whole.to(torch.int8)
        journal.write(weight, matrix[rows], whole * row_scale)
    for scalar in kept:
        matrix[scalar.row, scalar.column] = scalar.value
    return Int8Weight(codes, scale, kept)


def _handler(how: Int8, name: str, matrices: Matrices) -> Handler:
    def smoothed(call: Call) -> torch.Tensor:
        smoothing = how.smoothing.get((name, call.expert))
        return call.x if smoothing is None else call.x.float() / smoothing

    def simulated(call: Call) -> torch.Tensor:
        return call.linear(how.activations.simulate(smoothed(call)).to(call.x.dtype))

    def integer(call: Call) -> torch.Tensor:
        matrix = matrices[name, call.expert]
        return linear(smoothed(call), matrix, how.activations, call.bias, result_dtype(call.x))

    return integer if how.execution == "integer" else simulated


def _reader(context: Context, matrices: Matrices) -> Callable[[Coordinate], torch.Tensor]:
    architecture = context.loaded.architecture

    def read(coordinate: Coordinate) -> torch.Tensor:
        weight = architecture.down_projection(coordinate)
        return stored(matrices[weight.name, coordinate.expert], coordinate, weight.parameter.dtype)

    return read


def _size_parts(how: Int8, context: Context, weight: LinearWeight) -> dict[str, int]:
    out, inputs = weight.shape
    count = weight.experts or 1
    kept = len(context.known.get(weight.name, ())) if how.keep_super_weights else 0
    smoothed = sum((weight.name, expert) in how.smoothing for expert in experts(weight))
    return {
        "codes": weight.parameter.numel() * 8,
        "scales": count * (out if how.weights == "channel" else 1) * SCALE_BITS,
        "smoothing": smoothed * inputs * SCALE_BITS,
        "super_weights": side_table_bits(kept, width=context.width),
    }
