"""What every recipe is given, what it hands back, and the journal with which it is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils.weak import WeakIdKeyDictionary

from superweight.cards.base import Coordinate
from superweight.checkpoint.architecture import LinearWeight
from superweight.checkpoint.bits import same_bits
from superweight.checkpoint.loading import LoadedModel
from superweight.compress.size import Size
from superweight.errors import InfraError

Calibration = Callable[[str, int, int], torch.Tensor]


@dataclass(frozen=True)
class Context:
    """What a recipe may use.

    Attributes:
        loaded: the model; recipes change it in place.
        super_weights: every super weight of the card and of detection.
        super_activations: what detection found. No recipe needs them, since the token of a super activation differs
            from text to text: at run time massive entries are found by magnitude (`ActivationQuantiser.find`).
        calibration: `(corpus id, windows, tokens a window) -> int64 token ids (windows, window)`; only recipes that
            calibrate call it.
    """

    loaded: LoadedModel
    super_weights: tuple[Coordinate, ...] = ()
    super_activations: tuple[Any, ...] = ()
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
    """The matrices of a weight: `None` for a dense one, else every expert."""
    yield from (None,) if weight.experts is None else range(weight.experts)


def module_name(weight: LinearWeight) -> str:
    """The name of the module that owns a weight."""
    return weight.name.rpartition(".")[0]


def label(weight: LinearWeight, expert: int | None) -> str:
    """The name of one matrix in figures."""
    return weight.name if expert is None else f"{weight.name}[{expert}]"


_spare: MutableMapping[torch.Tensor, torch.Tensor] = WeakIdKeyDictionary()
"""Where a parameter was kept by a recipe that has been undone, for the next one; freed with the parameter. Copying into
memory that has been used costs a fifth of copying into memory that is new to the process."""


class UndoLog:
    """Every change to the model goes through here, and is undone from here in reverse order.

    Weights are kept in host memory, so that a model which fits its device once can be compressed on it.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype  # the checkpoint's, which a model upcast for its arithmetic no longer has
        self.stack = ExitStack()
        self.written: dict[str, bool] = {}

    @property
    def changed(self) -> tuple[str, ...]:
        """Parameters that hold other bits than before, in the order they were written."""
        return tuple(name for name, changed in self.written.items() if changed)

    def keep(self, weight: LinearWeight) -> None:
        """Copy a whole parameter, before it is rewritten."""
        parameter = weight.parameter
        if not parameter.is_contiguous():  # blocks are runs of the stored order
            parameter.data = parameter.data.contiguous()
        kept = _spare.pop(parameter, None)
        if kept is None or kept.shape != parameter.shape or kept.dtype != parameter.dtype:
            kept = torch.empty_like(parameter.data, device="cpu")
        kept.copy_(parameter.data)

        def put_back() -> None:
            parameter.data.copy_(kept)
            _spare[parameter] = kept

        self.stack.callback(put_back)

    def keep_scalars(self, weight: LinearWeight, flat: torch.Tensor) -> None:
        """Copy the scalars at `flat` (int64 indices into the parameter as stored), before they are rewritten."""
        parameter = weight.parameter
        kept = parameter.data.take(flat)
        self.stack.callback(lambda: parameter.data.put_(flat, kept))

    def write(self, weight: LinearWeight, destination: torch.Tensor, values: torch.Tensor) -> None:
        """Round float32 `values` to the checkpoint's dtype, once, and write them to `destination`, a view of it."""
        cast = values.to(self.dtype).to(destination.dtype)
        if not self.written.setdefault(weight.name, False):
            self.written[weight.name] = not same_bits(cast, destination)
        destination.copy_(cast)

    def rewrite(self, weight: LinearWeight, destination: torch.Tensor, change: Callable[[torch.Tensor], None]) -> None:
        """Let `change` write to `destination`, a view of the parameter, in place and in the checkpoint's dtype.

        What was there is kept for comparison until a bit of the parameter has changed: mostly for one call.
        """
        before = None if self.written.setdefault(weight.name, False) else destination.clone()
        change(destination)
        if before is not None:
            self.written[weight.name] = not same_bits(destination, before)

    def undo(self) -> None:
        """Undo everything; nothing is left to undo afterwards."""
        with torch.no_grad():
            self.stack.close()


@dataclass(frozen=True)
class RecipeReport:
    """What a recipe reports of itself.

    Attributes:
        size: bits per weight.
        figures: what it chose or counted on the way, JSON-ready.
        hooks: modules whose activations it changes.
        stored: the artefact's value of a scalar, where that is not simply the model's.
    """

    size: Size
    figures: dict[str, Any] = field(default_factory=dict)
    hooks: Sequence[str] = ()
    stored: Callable[[Coordinate], torch.Tensor] | None = None


class Applied:
    """A recipe in force on a model; as a context manager, undone on leaving.

    Attributes:
        changed: names of the parameters whose bits differ from the checkpoint's.
        rewritten: names of the parameters the recipe wrote to, whether or not that changed a bit.
        hooks: names of the modules whose activations the recipe changes.
        size: bits per weight of the compressed weights and of the model.
        figures: what the recipe chose or counted on the way, JSON-ready.
    """

    def __init__(self, context: Context, journal: UndoLog, outcome: RecipeReport) -> None:
        self._context, self._journal, self._stored = context, journal, outcome.stored
        self.changed: tuple[str, ...] = journal.changed
        self.rewritten: tuple[str, ...] = tuple(journal.written)
        self.hooks: tuple[str, ...] = tuple(dict.fromkeys(outcome.hooks))
        self.size = outcome.size
        self.figures = outcome.figures
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
        read = self._stored or self._context.loaded.architecture.scalar
        return read(coordinate).detach().to("cpu", copy=True)

    def undo(self) -> None:
        """Put every bit and every forward back; a second call does nothing."""
        self._in_force = False
        self._journal.undo()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()
