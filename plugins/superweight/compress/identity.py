"""Recipes that are no compression: the baseline, a control that changes nothing, and one that no model survives."""

from __future__ import annotations

from superweight.cards.recipe import Baseline, NoOp, RollChannels
from superweight.compress.context import Context, RecipeReport, UndoLog, experts
from superweight.compress.size import measure


def baseline(method: Baseline, context: Context, journal: UndoLog) -> RecipeReport:
    """The uncompressed model."""
    return RecipeReport(size=measure(context.loaded.model, context.known_weights, width=context.width))


def no_op(method: NoOp, context: Context, journal: UndoLog) -> RecipeReport:
    """Copies, rewrites and later restores every linear weight, with the weight itself."""
    for weight in context.known_weights:
        journal.keep(weight)
        for expert in experts(weight):
            matrix = weight.matrix(expert)
            journal.write(weight, matrix, matrix.clone())
    return RecipeReport(size=measure(context.loaded.model, context.known_weights, width=context.width))


def roll_channels(method: RollChannels, context: Context, journal: UndoLog) -> RecipeReport:
    """Moves every row of every linear weight of the decoder layers to the next output channel, the last to the first.

    Every weight is still there, and every statistic of a matrix is what it was; but what a matrix writes is read from
    other channels than it was meant for.
    """
    for weight in context.known_weights:
        journal.keep(weight)
        for expert in experts(weight):
            matrix = weight.matrix(expert)
            journal.write(weight, matrix, matrix.roll(1, dims=0))
    return RecipeReport(size=measure(context.loaded.model, context.known_weights, width=context.width))
