"""The undo log: what a recipe overwrote, kept in host memory and put back in reverse order."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import ExitStack

import torch
from torch.utils.weak import WeakIdKeyDictionary

from superweight.checkpoint.architecture import LinearWeight

_spare: MutableMapping[torch.Tensor, torch.Tensor] = WeakIdKeyDictionary()
"""Where a parameter was kept by a recipe that has been undone, for the next one; freed with the parameter. Copying into
memory that has been used costs a fifth of copying into memory that is new to the process."""


class UndoLog:
    """What is to be undone of a recipe, and which parameters it wrote to.

    Weights are kept in host memory, so that a model which fits its device once can be compressed on it.
    """

    def __init__(self) -> None:
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

    def keep_scalars(self, weight: LinearWeight, expert: int | None, flat: torch.Tensor) -> None:
        """Copy scalars of one matrix, before they are rewritten.

        Args:
            weight: the weight.
            expert: which matrix of a mixture.
            flat: int64 indices into the matrix as stored.
        """
        kept = weight.stored(expert).take(flat)
        self.stack.callback(lambda: weight.stored(expert).put_(flat, kept))

    def record(self, name: str, *, changed: bool) -> None:
        """Note that a parameter was written to, and whether any of its bits differ now."""
        self.written[name] = changed or self.written.get(name, False)

    def undo(self) -> None:
        """Undo everything; nothing is left to undo afterwards."""
        with torch.no_grad():
            self.stack.close()
