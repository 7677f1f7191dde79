"""Run a cell by its recipe applied to the uncompressed model in memory, and undone before another's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from superweight.cards import Cell, Coordinate
from superweight.cards.methods import Method
from superweight.compress import Applied, Context, apply, foreign_source
from superweight.detect import layer_peaks
from superweight.errors import InfraError
from superweight.evidence import LayerPeaks, Sanity
from superweight.forward.runner import Inspection, Pair, Progress, Prompt, Scalar, TextWindows, WindowScore
from superweight.measure.fingerprint import fingerprints, non_finite
from superweight.measure.reference import Reference, as_scalar


class ResidentRunner:
    """Runs one cell on the model in memory.

    Args:
        reference: the cell's model, uncompressed.
        cell: one of its cells.
    """

    def __init__(self, reference: Reference, cell: Cell) -> None:
        self._reference = reference
        self._cell = cell
        self._memory = reference.memory
        self._otherwise = False

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The recipe, what it protects and compresses, its calibration text, and the model's own identity."""
        calibration = self._method.calibration
        tokens = self._reference.tokens(calibration.corpus).numpy().tobytes() if calibration else None
        source = foreign_source(self._method)
        return {
            "recipe": self._method.model_dump(mode="json"),
            **({"recipe_source": source} if source else {}),
            "protected": [str(where) for where in self._reference.protected],
            "compressed": self._reference.compressible,
            "calibration": None if tokens is None else hashlib.sha256(tokens).hexdigest(),
            "alone": self._method.scale_spans_row,
            **self._reference.identity,
        }

    @property
    def about(self) -> Mapping[str, Any]:
        """What the report says of the model in memory."""
        return self._reference.about

    @property
    def cannot(self) -> Mapping[str, str]:
        """Divergence is not to be had of a model whose head cannot be run apart from its body."""
        if self._memory.model.separable:
            return {}
        return {"divergence": "the model's head cannot be run apart from its body"}

    @property
    def vocabulary(self) -> int:
        """How many tokens the model chooses among."""
        return self._memory.model.vocabulary

    def score_windows(self, text: TextWindows, batch: Sequence[int], *, compare: bool = False) -> list[WindowScore]:
        """As `Runner.score_windows`; the uncompressed model's states are kept when it is scored, for the others.

        There is no divergence where the recipe changes the head itself, which reads both models' states.
        """
        model = self._memory.model
        compare = compare and model.separable
        if compare and model.reference.missing(text):
            self._memory.undo()
            model.remember(text)
        self._apply()
        compare = compare and not self._memory.head_changed
        remember = self._cell.role == "baseline" and model.separable and not self._otherwise
        return model.score_windows(text, batch, compare=compare, remember=remember)

    def score_continuations(
        self, pairs: Sequence[Pair], *, max_length: int, progress: Progress | None = None
    ) -> list[tuple[float, bool]]:
        """As `Runner.score_continuations`; one pair a row, if the recipe takes one scale over a whole row."""
        self._apply()
        return self._memory.model.score_continuations(
            pairs, max_length=max_length, progress=progress, alone=self._method.scale_spans_row
        )

    def generate(self, prompts: Sequence[Prompt]) -> list[str]:
        """As `Runner.generate`."""
        self._apply()
        return self._memory.model.generate(prompts)

    def stored(self, where: Coordinate) -> Scalar:
        """The scalar after the recipe, in the checkpoint's dtype."""
        return as_scalar(self._apply().stored(where))

    def inspect(self) -> Inspection:
        """Compare every parameter's bits with the checkpoint's, and with what the recipe says it changes."""
        before = self._memory.original
        applied = self._apply()
        after = fingerprints(self._reference.loaded.model)
        changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        declared = sorted(applied.rewritten)
        sanity = Sanity(
            declared=declared,
            changed=changed,
            undeclared=sorted(set(changed) - set(declared)),
            unchanged=sorted(set(declared) - set(changed)),
            hooks=sorted(applied.hooks),
            non_finite=non_finite(self._reference.loaded.model),
        )
        self._memory.written_unasked.update(sanity.undeclared)
        return Inspection(sanity, applied.size, applied.figures, self._peaks())

    @contextmanager
    def another_way(self) -> Iterator[str]:
        """Inside the block, another attention kernel, whose states are nobody's reference."""
        self._apply()
        self._otherwise = True
        try:
            with self._memory.model.another_way() as other:
                yield other
        finally:
            self._otherwise = False

    def close(self) -> None:
        """Leave the model in memory as it is: the next recipe undoes this one."""

    @cached_property
    def _method(self) -> Method:
        return self._reference.recipe(self._cell).method

    def _apply(self) -> Applied:
        return self._memory.apply(self._cell.recipe.id, self._compress)

    def _compress(self) -> Applied:
        context = Context(
            self._reference.loaded, tuple(self._reference.protected), calibration=self._reference.calibration
        )
        return apply(self._reference.recipe(self._cell), context)

    def _peaks(self) -> list[LayerPeaks]:
        try:
            return list(layer_peaks(self._memory.loaded))
        except InfraError:  # a wrecked model, or one that cannot be watched: a picture is missing, no figure is
            return []
