"""One matrix of a checkpoint, as a recipe is given it: a tensor to rewrite in place, and what must be known of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from superweight.cards.base import Coordinate
from superweight.checkpoint.bits import same_bits


@dataclass(eq=False)
class Matrix:
    """One matrix, in memory for as long as it is rewritten; whether a model is around it does not matter.

    Attributes:
        name: of the parameter that holds it.
        stored: the matrix as the checkpoint stores it: `(out, in)`, or `(in, out)` if transposed. What is written to it
            is written to the model or file that it is a view of.
        dtype: the checkpoint's, to which results are rounded; `stored` may be wider for the sake of the arithmetic.
        transposed: whether `stored` is input-major.
        expert: which matrix of a mixture; None for a dense weight.
        super_weights: where the super weights of this matrix are.
        changed: whether a bit of the parameter is known to differ from before; once it is, nothing is compared.
        written: whether anything was written.
        before_put: is given the flat indices of scalars before they are overwritten, for an undo log to keep them.
    """

    name: str
    stored: torch.Tensor
    dtype: torch.dtype
    transposed: bool = False
    expert: int | None = None
    super_weights: Sequence[Coordinate] = ()
    changed: bool = False
    written: bool = False
    before_put: Callable[[torch.Tensor], None] | None = None

    @property
    def values(self) -> torch.Tensor:
        """The matrix as `(out, in)`, Hugging Face orientation: a view, so writing to it writes to `stored`."""
        return self.stored.transpose(0, 1) if self.transposed else self.stored

    @property
    def width(self) -> int:
        """Bits of the checkpoint's dtype."""
        return 8 * self.dtype.itemsize

    @property
    def key(self) -> tuple[str, int | None]:
        """Name of the parameter, and expert."""
        return self.name, self.expert

    @property
    def label(self) -> str:
        """The name of this matrix in figures."""
        return self.name if self.expert is None else f"{self.name}[{self.expert}]"

    def flat(self, coordinates: Sequence[Coordinate]) -> torch.Tensor:
        """Where coordinates lie in the flattened matrix as stored: int64 `(n,)` on its device."""
        columns = self.stored.shape[1]
        found = [
            one.column * columns + one.row if self.transposed else one.row * columns + one.column for one in coordinates
        ]
        return torch.tensor(found, dtype=torch.int64, device=self.stored.device)

    def write(self, destination: torch.Tensor, values: torch.Tensor) -> None:
        """Round float32 `values` to the checkpoint's dtype, once, and write them to `destination`, a view of it."""
        cast = values.to(self.dtype).to(destination.dtype)
        self._compare(destination, cast)
        destination.copy_(cast)

    def rewrite(self, destination: torch.Tensor, change: Callable[[torch.Tensor], None]) -> None:
        """Let `change` write to `destination`, a view of the matrix, in place and in the checkpoint's dtype.

        What was there is kept for comparison until a bit of the parameter has changed: mostly for one call.
        """
        before = None if self.changed else destination.clone()
        change(destination)
        self.written = True
        if before is not None:
            self.changed = not same_bits(destination, before)

    def put(self, flat: torch.Tensor, values: torch.Tensor) -> None:
        """Write single scalars, rounded to the checkpoint's dtype; none if there are none.

        Args:
            flat: int64 indices into the flattened matrix as stored, `(n,)`.
            values: `(n,)`, in any float dtype.
        """
        if flat.numel() == 0:
            return
        if self.before_put is not None:
            self.before_put(flat)
        cast = values.to(self.dtype).to(self.stored.dtype)
        self._compare(self.stored.take(flat), cast)
        self.stored.put_(flat, cast)

    def _compare(self, before: torch.Tensor, after: torch.Tensor) -> None:
        self.written = True
        if not self.changed:
            self.changed = not same_bits(after, before)
