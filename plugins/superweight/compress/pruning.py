"""Recipes that change single weights: zero or scale the super weights, or zero the largest others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

import torch

from superweight.cards.base import Coordinate
from superweight.cards.methods import (
    PruneLargestOthers,
    PruneSuperWeights,
    PruneSuperWeightsKeepActivation,
    ScaleSuperWeights,
)
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.blocks import piece_elements
from superweight.compress.context import Context
from superweight.compress.intercept import Call, Handler, intercept
from superweight.compress.matrix import Matrix
from superweight.compress.recipe import Recipe, uncompressed
from superweight.errors import InfraError

M = TypeVar("M", bound=PruneSuperWeights | PruneSuperWeightsKeepActivation | ScaleSuperWeights)


class SuperWeightsRecipe(Recipe[M]):
    """A base of recipes that multiply every super weight by a factor."""

    whole = False

    @property
    @abstractmethod
    def factor(self) -> float:
        """What super weights are multiplied by."""

    def prepare(self, context: Context) -> None:
        """Make sure that there are super weights.

        Raises:
            InfraError: there is none (`not-applicable`).
        """
        context.require_super_weights(self.method.kind)

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Multiply the super weights of one matrix, in float32."""
        where = matrix.flat(matrix.super_weights)
        matrix.put(where, matrix.stored.take(where).float() * self.factor + 0.0)  # a zero is +0.0
        return uncompressed(matrix)

    def figures(self, context: Context) -> dict[str, Any]:
        """The factor, and how many were multiplied."""
        return {"factor": self.factor, "scaled": len(set(context.super_weights))}


class ScaleSuperWeightsRecipe(SuperWeightsRecipe[ScaleSuperWeights]):
    """Multiply every super weight by a factor (arXiv:2411.07191, figure 6)."""

    @property
    def factor(self) -> float:
        """The card's."""
        return self.method.factor


class PruneSuperWeightsRecipe(SuperWeightsRecipe[PruneSuperWeights]):
    """Zero every super weight."""

    factor = 0.0


class PruneKeepingActivationRecipe(SuperWeightsRecipe[PruneSuperWeightsKeepActivation]):
    """Zero every super weight but put the super activation back by hand (arXiv:2411.07191, table 1).

    For a super weight w at [r, c] of a down projection with input X, the token t with the largest |X[t, c]| of each
    sequence gets X[t, c]·w added to its output at channel r. That one entry is put back and no other: the small
    contributions of w to all other tokens stay lost, so this differs from pruning nothing. Inside a mixture, t is
    the token among those that reach the expert, over the whole batch.
    """

    factor = 0.0

    def __init__(self, method: PruneSuperWeightsKeepActivation) -> None:
        super().__init__(method)
        self._values: dict[tuple[str, int | None], list[tuple[Coordinate, torch.Tensor]]] = {}

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Remember the super weights of one matrix, and zero them."""
        if matrix.super_weights:
            self._values[matrix.key] = [
                (one, matrix.values[one.row, one.column].float().clone()) for one in matrix.super_weights
            ]
        return super().compress(matrix)

    def install(self, context: Context, stack: ExitStack) -> Sequence[str]:
        """Put the activations back from now on."""

        def handler(weight: LinearWeight) -> Handler:
            def put_back(call: Call) -> torch.Tensor:
                y = call.linear(call.x)
                for one, value in self._values.get((weight.name, call.expert), ()):
                    y = restore_activation(y, call.x, one, value)
                return y

            return put_back

        return intercept(context.require_super_weights(self.method.kind), handler, stack)


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


class PruneLargestOthersRecipe(Recipe[PruneLargestOthers]):
    """Zero the `count` linear weights of the decoder layers with the largest magnitudes, super weights left alone.

    Of equal magnitudes the first in the order of the parameters, and within a parameter as stored, are zeroed, so that
    every device zeroes the same ones (arXiv:2411.07191, table 1: 7000 in Llama-7B).
    """

    whole = False

    def __init__(self, method: PruneLargestOthers) -> None:
        super().__init__(method)
        self._chosen: dict[tuple[str, int | None], torch.Tensor] = {}
        self._least = 0.0

    def prepare(self, context: Context) -> None:
        """Choose the weights among all matrices.

        Raises:
            InfraError: the model has no more than `count` such weights (`recipe-mismatch`).
        """
        count = self.method.count
        available = sum(weight.parameter.numel() for weight in context.known_weights) - len(set(context.super_weights))
        if available <= count:
            raise InfraError(
                f"prune-largest-others zeroes {count} weights, and the decoder layers have {available} besides "
                "super weights. Lower count in the recipe card.",
                reason="recipe-mismatch",
            )
        least = _kth_largest(context, count)
        self._least = float(least)
        equal = count - _count_above(context, least)
        for matrix in _matrices(context):
            flat = []
            for start, magnitude in _magnitudes(matrix):
                ties = (magnitude == least).nonzero().flatten()[:equal]
                equal -= ties.numel()
                flat.append(torch.cat([(magnitude > least).nonzero().flatten(), ties]) + start)
            self._chosen[matrix.key] = torch.cat(flat)

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Zero what was chosen in one matrix."""
        where = self._chosen[matrix.key]
        matrix.put(where, torch.zeros_like(where, dtype=matrix.stored.dtype))
        return uncompressed(matrix)

    def figures(self, context: Context) -> dict[str, Any]:
        """How many were zeroed, and the magnitude of the least of them."""
        return {"pruned": sum(where.numel() for where in self._chosen.values()), "least_magnitude": self._least}


def _matrices(context: Context) -> Iterator[Matrix]:
    for weight in context.known_weights:
        yield from context.matrices(weight)


def _magnitudes(matrix: Matrix) -> Iterator[tuple[int, torch.Tensor]]:
    """|W| in pieces of the flattened matrix, float32, with −1 at super weights; each with its start."""
    step = piece_elements(matrix.stored.device)
    held = matrix.flat(matrix.super_weights)
    start = 0
    for piece in torch.split(matrix.stored.flatten(), step):
        magnitude = piece.float().abs()
        magnitude[held[(held >= start) & (held < start + piece.numel())] - start] = -1
        yield start, magnitude
        start += piece.numel()


def _kth_largest(context: Context, k: int) -> torch.Tensor:
    """The k-th largest magnitude, 0-dim float32 on the CPU; holds no more than 2k and one piece at a time."""
    largest = torch.empty(0)
    for matrix in _matrices(context):
        for _, magnitude in _magnitudes(matrix):
            top = magnitude.topk(min(k, magnitude.numel())).values.cpu()
            both = torch.cat([largest, top])
            largest = both.topk(min(k, both.numel())).values
    return largest[-1]


def _count_above(context: Context, least: torch.Tensor) -> int:
    return sum(int((m > float(least)).sum()) for matrix in _matrices(context) for _, m in _magnitudes(matrix))
