"""Every kind of recipe by name, and the one way to apply a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from superweight.cards.recipe import RecipeCard
from superweight.compress import clip_restore, identity, pruning, rtn, smoothquant, w8a8
from superweight.compress.context import Applied, Context, RecipeReport, UndoLog

Recipe = Callable[[Any, Context, UndoLog], RecipeReport]

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "baseline": identity.baseline,
        "no-op": identity.no_op,
        "rtn": rtn.apply,
        "clip-restore": clip_restore.apply,
        "w8a8": w8a8.apply,
        "smoothquant": smoothquant.apply,
        "prune-super-weights": pruning.prune_super_weights,
        "prune-super-weights-keep-activation": pruning.prune_keeping_activation,
        "prune-largest-others": pruning.prune_largest_others,
        "scale-super-weights": pruning.scale_super_weights,
        "roll-channels": identity.roll_channels,
    }
)
"""A new kind is one module and one line here."""


def apply(recipe: RecipeCard, context: Context) -> Applied:
    """Compress a loaded model in place.

    Args:
        recipe: the card; its `method` names the kind and the parameters.
        context: the model and what is known of its super weights.

    Returns:
        The recipe in force; `undo()`, or leaving it as a context manager, restores the model bit for bit.

    Raises:
        InfraError: the recipe fits no module of the model (`recipe-mismatch`), or a coordinate lies outside it. The
            model is left as it was, as after any other exception.
    """
    journal = UndoLog(context.loaded.dtype)
    context.loaded.recipes.append(recipe.method.kind)
    journal.stack.callback(context.loaded.recipes.pop)
    try:
        with torch.no_grad():
            outcome = RECIPES[recipe.method.kind](recipe.method, context, journal)
    except BaseException:
        journal.undo()
        raise
    return Applied(context, journal, outcome)
