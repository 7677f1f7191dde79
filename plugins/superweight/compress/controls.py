"""Recipes that change nothing: the baseline, and a control that goes through every motion."""

from __future__ import annotations

from superweight.cards.recipe import Baseline, NoOp
from superweight.compress.base import Context, Journal, Outcome, experts
from superweight.compress.size import measure


def baseline(method: Baseline, context: Context, journal: Journal) -> Outcome:
    """The uncompressed model."""
    return Outcome(size=measure(context.loaded.model, context.known_weights, width=context.width))


def no_op(method: NoOp, context: Context, journal: Journal) -> Outcome:
    """Copies, rewrites and later restores every linear weight, with the weight itself."""
    for weight in context.known_weights:
        journal.keep(weight)
        for expert in experts(weight):
            matrix = weight.matrix(expert)
            journal.write(weight, matrix, matrix.clone())
    return Outcome(size=measure(context.loaded.model, context.known_weights, width=context.width))
