"""What a recipe may know before it rewrites the first matrix: the model, its super weights, and calibration text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

from superweight.cards.base import Coordinate
from superweight.cards.methods import Method
from superweight.checkpoint.architecture import LinearWeight
from superweight.checkpoint.loading import LoadedModel
from superweight.compress.matrix import Matrix
from superweight.errors import InfraError

Calibration = Callable[[str, int, int], torch.Tensor]


@dataclass(frozen=True)
class Context:
    """What a recipe may use.

    Attributes:
        loaded: the model; recipes change it in place.
        super_weights: every super weight of the card and of detection.
        calibration: `(corpus id, windows, tokens a window) -> int64 token ids (windows, window)`; only recipes that
            calibrate call it.
    """

    loaded: LoadedModel
    super_weights: tuple[Coordinate, ...] = ()
    calibration: Calibration | None = None

    @property
    def width(self) -> int:
        """Bits of the checkpoint's dtype."""
        return 8 * self.loaded.dtype.itemsize

    @property
    def weights(self) -> tuple[LinearWeight, ...]:
        """The weights that a recipe compresses: `known_weights`, if nothing beside them should be among them.

        Raises:
            InfraError: there is none, or the decoder layers hold others that are not understood (`recipe-mismatch`).
        """
        self.loaded.architecture.coverage.require(type(self.loaded.model).__name__)
        return self.known_weights

    @cached_property
    def known_weights(self) -> tuple[LinearWeight, ...]:
        """The linear weights of the decoder layers, a parameter that several modules share counted once.

        Raises:
            InfraError: there is none (`recipe-mismatch`).
        """
        unique = {id(weight.parameter): weight for weight in reversed(self.loaded.architecture.linear_weights)}
        if not unique:
            raise InfraError(
                "the recipe compresses the linear weights of the decoder layers, and "
                f"{type(self.loaded.model).__name__} has none in its {len(self.loaded.architecture.layers)} layers. "
                "Choose a recipe that fits the model.",
                reason="recipe-mismatch",
            )
        return tuple(reversed(unique.values()))

    @cached_property
    def names(self) -> dict[int, str]:
        """By the `id` of a parameter, the name under which it is counted."""
        return {id(weight.parameter): weight.name for weight in self.known_weights}

    @cached_property
    def known(self) -> dict[str, tuple[Coordinate, ...]]:
        """The super weights by the name of the parameter that holds them.

        Raises:
            InfraError: a coordinate lies outside the model.
        """
        found: dict[str, list[Coordinate]] = {}
        for coordinate in sorted(set(self.super_weights), key=lambda one: one.key):
            found.setdefault(self.loaded.architecture.down_projection(coordinate).name, []).append(coordinate)
        return {name: tuple(coordinates) for name, coordinates in found.items()}

    def held(self, weight: LinearWeight, expert: int | None = None) -> list[Coordinate]:
        """The super weights that lie in one matrix."""
        return [coordinate for coordinate in self.known.get(weight.name, ()) if coordinate.expert == expert]

    def matrices(self, weight: LinearWeight) -> Iterator[Matrix]:
        """The matrices of a weight, views of the model: one of a dense weight, else one of every expert."""
        for expert in experts(weight):
            yield Matrix(
                weight.name,
                weight.stored(expert),
                self.loaded.dtype,
                transposed=weight.transposed,
                expert=expert,
                super_weights=self.held(weight, expert),
            )

    def calibration_windows(self, method: Method) -> torch.Tensor:
        """The text that a recipe calibrates on, token ids `(windows, window)`, int64.

        Raises:
            InfraError: there is no text to calibrate on (`recipe-mismatch`).
        """
        asked = method.calibration
        if asked is None:
            raise InfraError(
                f"recipe kind '{method.kind}' asks for calibration text, and its method names none. Declare it in "
                "'calibration', so that figures are keyed by it.",
                reason="recipe-mismatch",
            )
        if self.calibration is None:
            raise InfraError(
                f"{method.kind} calibrates on corpus '{asked.corpus}', and the context has no calibration text. "
                "Give the context a calibration function.",
                reason="recipe-mismatch",
            )
        return self.calibration(*asked)

    def require_super_weights(self, kind: str) -> tuple[LinearWeight, ...]:
        """The weights that hold super weights.

        Raises:
            InfraError: there is no super weight (`not-applicable`): a control that changes nothing proves nothing.
        """
        holding = tuple(weight for weight in self.known_weights if weight.name in self.known)
        if not holding:
            raise InfraError(
                f"recipe kind '{kind}' changes super weights, and none is known for {self.loaded.checkpoint.origin}: "
                "neither its card nor detection names one. Leave the recipe out for this model, or say in a control's "
                "card what it does instead (stand_in).",
                reason="not-applicable",
            )
        return holding


def experts(weight: LinearWeight) -> Iterator[int | None]:
    """Which matrices a weight has: `None` for a dense one, else every expert."""
    yield from (None,) if weight.experts is None else range(weight.experts)
