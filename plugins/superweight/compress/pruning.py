"""Recipes that change single weights: zero or scale the super weights, or zero the largest others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from superweight.cards.base import Coordinate
from superweight.cards.recipe import (
    PruneLargestOthers,
    PruneSuperWeights,
    PruneSuperWeightsKeepActivation,
    ScaleSuperWeights,
)
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.blocks import piece_elements
from superweight.compress.context import Context, RecipeReport, UndoLog
from superweight.compress.intercept import Call, Handler, intercept
from superweight.compress.size import measure
from superweight.errors import InfraError


def prune_super_weights(method: PruneSuperWeights, context: Context, journal: UndoLog) -> RecipeReport:
    """Zero every super weight."""
    return _scale(0.0, method.kind, context, journal)


def scale_super_weights(method: ScaleSuperWeights, context: Context, journal: UndoLog) -> RecipeReport:
    """Multiply every super weight by a factor (arXiv:2411.07191, figure 6)."""
    return _scale(method.factor, method.kind, context, journal)


def prune_keeping_activation(
    method: PruneSuperWeightsKeepActivation, context: Context, journal: UndoLog
) -> RecipeReport:
    """Zero every super weight but put the super activation back by hand (arXiv:2411.07191, table 1).

    For a super weight w at [r, c] of a down projection with input X, the token t with the largest |X[t, c]| of each
    sequence gets X[t, c]·w added to its output at channel r. That one entry is put back and no other: the small
    contributions of w to all other tokens stay lost, so this differs from pruning nothing. Inside a mixture, t is
    the token among those that reach the expert, over the whole batch.
    """
    weights = context.require_super_weights(method.kind)
    values = {
        (weight.name, one.key): weight.matrix(one.expert)[one.row, one.column].float().clone()
        for weight in weights
        for one in context.known[weight.name]
    }
    outcome = _scale(0.0, method.kind, context, journal)

    def handler(weight: LinearWeight) -> Handler:
        def put_back(call: Call) -> torch.Tensor:
            y = call.linear(call.x)
            for one in context.held(weight, call.expert):
                y = restore_activation(y, call.x, one, values[weight.name, one.key])
            return y

        return put_back

    hooks = intercept(weights, handler, journal.stack)
    return RecipeReport(size=outcome.size, figures=outcome.figures, hooks=hooks)


def restore_activation(y: torch.Tensor, x: torch.Tensor, one: Coordinate, value: torch.Tensor) -> torch.Tensor:
    """Add X[t, c]·w to Y[t, r] for the token t of each sequence with the largest |X[t, c]|.

    Args:
        y: `(…, tokens, out)`.
        x: `(…, tokens, in)`.
        one: r and c.
        value: w, 0-dim float32.

    Returns:
        A new tensor like `y`.
    """
    if x.numel() == 0:
        return y
    column = x.detach()[..., one.column].float()  # (…, tokens)
    token = column.abs().argmax(-1, keepdim=True)
    added = torch.zeros_like(column).scatter(-1, token, column.gather(-1, token) * value)
    restored = y.clone()
    restored[..., one.row] = (y[..., one.row].float() + added).to(y.dtype)
    return restored


def prune_largest_others(method: PruneLargestOthers, context: Context, journal: UndoLog) -> RecipeReport:
    """Zero the `count` linear weights of the decoder layers with the largest magnitudes, super weights left alone.

    Of equal magnitudes the first in the order of the parameters, and within a parameter as stored, are zeroed, so that
    every device zeroes the same ones (arXiv:2411.07191, table 1: 7000 in Llama-7B).

    Raises:
        InfraError: the model has no more than `count` such weights (`recipe-mismatch`).
    """
    available = sum(weight.parameter.numel() for weight in context.known_weights) - len(set(context.super_weights))
    if available <= method.count:
        raise InfraError(
            f"prune-largest-others zeroes {method.count} weights, and the decoder layers have {available} besides "
            "super weights. Lower count in the recipe card.",
            reason="recipe-mismatch",
        )
    least = _kth_largest(context, method.count)
    pruned, equal = 0, method.count - _count_above(context, least)
    for weight in context.known_weights:
        flat = []
        for start, magnitude in _magnitudes(weight, context):
            ties = (magnitude == least).nonzero().flatten()[:equal]
            equal -= ties.numel()
            flat.append(torch.cat([(magnitude > least).nonzero().flatten(), ties]) + start)
        where = torch.cat(flat)
        pruned += where.numel()
        _put(weight, where, torch.zeros_like(where, dtype=weight.parameter.dtype), journal)
    figures = {"pruned": pruned, "least_magnitude": float(least)}
    return RecipeReport(size=measure(context.loaded.model, context.known_weights, width=context.width), figures=figures)


def _scale(factor: float, kind: str, context: Context, journal: UndoLog) -> RecipeReport:
    for weight in context.require_super_weights(kind):
        where = flat_indices(weight, context.known[weight.name])
        scaled = weight.parameter.data.take(where).float() * factor + 0.0  # a zero is +0.0
        _put(weight, where, scaled.to(weight.parameter.dtype), journal)
    figures = {"factor": factor, "scaled": len(set(context.super_weights))}
    return RecipeReport(size=measure(context.loaded.model, context.known_weights, width=context.width), figures=figures)


def _put(weight: LinearWeight, flat: torch.Tensor, values: torch.Tensor, journal: UndoLog) -> None:
    """Write scalars, by their flat index in the parameter as stored."""
    if flat.numel() == 0:
        return
    journal.keep_scalars(weight, flat)
    scalars = weight.parameter.data.take(flat)
    journal.write(weight, scalars, values)
    weight.parameter.data.put_(flat, scalars)


def flat_indices(weight: LinearWeight, coordinates: Sequence[Coordinate]) -> torch.Tensor:
    """Where coordinates lie in the flattened parameter as stored: int64 `(n,)` on its device."""
    rows, columns = weight.shape
    flat = [
        (one.expert or 0) * rows * columns
        + (one.column * rows + one.row if weight.transposed else one.row * columns + one.column)
        for one in coordinates
    ]
    return torch.tensor(flat, dtype=torch.int64, device=weight.parameter.device)


def _magnitudes(weight: LinearWeight, context: Context) -> Iterator[tuple[int, torch.Tensor]]:
    """|W| in pieces of the flattened parameter, float32, with −1 at super weights; each with its start."""
    step = piece_elements(weight.parameter.device)
    held = flat_indices(weight, context.known.get(weight.name, ()))
    start = 0
    for piece in torch.split(weight.parameter.data.flatten(), step):
        magnitude = piece.float().abs()
        magnitude[held[(held >= start) & (held < start + piece.numel())] - start] = -1
        yield start, magnitude
        start += piece.numel()


def _kth_largest(context: Context, k: int) -> torch.Tensor:
    """The k-th largest magnitude, 0-dim float32 on the CPU; holds no more than 2k and one piece at a time."""
    largest = torch.empty(0)
    for weight in context.known_weights:
        for _, magnitude in _magnitudes(weight, context):
            top = magnitude.topk(min(k, magnitude.numel())).values.cpu()
            both = torch.cat([largest, top])
            largest = both.topk(min(k, both.numel())).values
    return largest[-1]


def _count_above(context: Context, least: torch.Tensor) -> int:
    return sum(
        int((m > float(least)).sum()) for weight in context.known_weights for _, m in _magnitudes(weight, context)
    )
