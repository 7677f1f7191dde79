"""Recipes that are no compression: the baseline, a control that changes nothing, and one that no model survives."""

from __future__ import annotations

from superweight.cards.methods import Baseline, NoOp, RollChannels
from superweight.compress.matrix import Matrix
from superweight.compress.recipe import Recipe, uncompressed


class BaselineRecipe(Recipe[Baseline]):
    """The uncompressed model."""

    whole = False

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Writes nothing."""
        return uncompressed(matrix)


class NoOpRecipe(Recipe[NoOp]):
    """Copies, rewrites and later restores every linear weight, with the weight itself."""

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Write the matrix to itself."""
        matrix.write(matrix.values, matrix.values.clone())
        return uncompressed(matrix)


class RollChannelsRecipe(Recipe[RollChannels]):
    """Moves every row of every linear weight of the decoder layers to the next output channel, the last to the first.

    Every weight is still there, and every statistic of a matrix is what it was; but what a matrix writes is read from
    other channels than it was meant for.
    """

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Write the rolled matrix."""
        matrix.write(matrix.values, matrix.values.roll(1, dims=0))
        return uncompressed(matrix)
