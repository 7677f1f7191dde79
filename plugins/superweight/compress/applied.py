"""A recipe applied to a model in memory: the one loop over its matrices, the size they add up to, and undo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from superweight.cards.base import Coordinate
from superweight.cards.recipe import RecipeCard
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.context import Context
from superweight.compress.recipe import Recipe, recipe_of
from superweight.compress.size import measure
from superweight.compress.undo_log import UndoLog
from superweight.evidence.measured import Size

Progress = Callable[[int, int], None]
"""Is told how many weights are done, and of how many."""


class Applied:
    """A recipe in force on a model; as a context manager, undone on leaving.

    Attributes:
        changed: names of the parameters whose bits differ from the checkpoint's.
        rewritten: names of the parameters the recipe wrote to, whether or not that changed a bit.
        hooks: names of the modules whose activations the recipe changes.
        size: bits per weight of the compressed weights and of the model.
        figures: what the recipe chose or counted on the way, JSON-ready.
    """

    def __init__(self, context: Context, recipe: Recipe[Any], log: UndoLog, size: Size, hooks: tuple[str, ...]) -> None:
        self._context, self._recipe, self._log = context, recipe, log
        self.changed: tuple[str, ...] = log.changed
        self.rewritten: tuple[str, ...] = tuple(log.written)
        self.hooks = hooks
        self.size = size
        self.figures = recipe.figures(context)
        self._in_force = True

    def stored(self, coordinate: Coordinate) -> torch.Tensor:
        """What the compressed artefact holds for one scalar of a down projection.

        Returns:
            A 0-dim tensor in the checkpoint's dtype, on the CPU: read back from the model or, where integers are
            executed, from the side table of kept weights and the dequantised INT8.

        Raises:
            InfraError: the coordinate lies outside the model.
            RuntimeError: the recipe has been undone.
        """
        if not self._in_force:
            raise RuntimeError("the recipe has been undone: the model holds the checkpoint's weights again")
        weight = self._context.loaded.architecture.down_projection(coordinate)
        matrix = next(one for one in self._context.matrices(weight) if one.expert == coordinate.expert)
        return self._recipe.stored(matrix, coordinate).detach().to("cpu", copy=True)

    def undo(self) -> None:
        """Put every bit and every forward back; a second call does nothing."""
        self._in_force = False
        self._log.undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()


def apply(card: RecipeCard, context: Context, progress: Progress | None = None) -> Applied:
    """Compress a loaded model in place.

    Args:
        card: its `method` names the kind and the parameters.
        context: the model and what is known of its super weights.
        progress: told after every weight.

    Returns:
        The recipe in force; `undo()`, or leaving it as a context manager, restores the model bit for bit.

    Raises:
        InfraError: the recipe fits no module of the model (`recipe-mismatch`), or a coordinate lies outside it. The
            model is left as it was, as after any other exception.
    """
    log = UndoLog()
    context.loaded.recipes.append(card.method.kind)
    log.stack.callback(context.loaded.recipes.pop)
    try:
        with torch.no_grad():
            recipe = recipe_of(card.method)
            weights = context.weights if card.method.compresses else context.known_weights
            recipe.prepare(context)
            bits: Counter[str] = Counter()
            for done, weight in enumerate(weights, start=1):
                bits.update(rewrite(recipe, context, weight, log))
                if progress is not None:
                    progress(done, len(weights))
            hooks = tuple(dict.fromkeys(recipe.install(context, log.stack)))
            size = measure(context.loaded.model, weights, bits, width=context.width)
            return Applied(context, recipe, log, size, hooks)
    except BaseException:
        log.undo()
        raise


def rewrite(recipe: Recipe[Any], context: Context, weight: LinearWeight, log: UndoLog) -> Counter[str]:
    """Let a recipe rewrite every matrix of one weight in place, with undo.

    Returns:
        the bits that the weight takes from now on, by what they are for.
    """
    if recipe.whole:
        log.keep(weight)
    bits: Counter[str] = Counter()
    for matrix in context.matrices(weight):
        matrix.changed = log.written.get(weight.name, False)
        if not recipe.whole:
            matrix.before_put = partial(log.keep_scalars, weight, matrix.expert)
        bits.update(recipe.compress(matrix))
        if matrix.written:
            log.record(weight.name, changed=matrix.changed)
    return bits
