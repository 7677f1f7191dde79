"""A weight seen as blocks: the runs of elements that share one scale, as views that write through."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from superweight.cards.methods import Granularity
from superweight.kernels.rounding import LONG
from superweight.kernels.rounding import piece_elements as piece_elements


def block_views(
    stored: torch.Tensor, granularity: Granularity, size: int | None = None, *, transposed: bool = False
) -> list[torch.Tensor]:
    """One matrix as views of shape `(…, n)`, each run along the last axis a block.

    Args:
        stored: the matrix as the checkpoint stores it, contiguous: `(out, in)`, or `(in, out)` if transposed.
        granularity: `tensor`: one block. `channel`: an output channel. `group`: `size` neighbours along the input axis
            of one output channel. `block`: `size` consecutive elements of the flattened matrix as stored
            (arXiv:2411.07191, section 4.2).
        size: elements of a group or block. Where it does not divide, the last and shorter run is a block of its own.
        transposed: whether `stored` is input-major.
    """
    if granularity == "tensor":
        return [stored.view(1, -1)]
    rows = stored.transpose(0, 1) if transposed else stored
    if granularity == "channel":
        return [rows]
    if granularity == "group":
        return _runs(rows, size or rows.shape[-1])
    return _runs(stored.view(1, -1), size or stored.numel())


def count_blocks(views: list[torch.Tensor]) -> int:
    """How many blocks the views hold."""
    return sum(view.numel() // view.shape[-1] for view in views)


def _runs(rows: torch.Tensor, size: int) -> list[torch.Tensor]:
    """`(rows, n)` as whole runs `(rows, n // size, size)` and, if some are left over, `(rows, n % size)`."""
    whole = rows.shape[-1] // size * size
    parts = [rows[:, :whole].view(rows.shape[0], -1, size)] if whole else []
    return parts + ([rows[:, whole:]] if whole < rows.shape[-1] else [])


def whole_blocks(view: torch.Tensor, limit: int) -> Iterator[torch.Tensor]:
    """Split a view between blocks into parts of at most `limit` elements; a block that is long comes alone.

    Blocks that lie one after another come as `(blocks, n)`.
    """
    n = view.shape[-1]
    if view.dim() > 2 and view.is_contiguous():
        view = view.view(-1, n)
    if view.dim() > 2 and view[0].numel() > limit:
        for row in view:
            yield from whole_blocks(row, limit)
        return
    step = 1 if n > LONG else max(1, limit // max(1, view[0].numel()))
    yield from torch.split(view, step)


def gathered(part: torch.Tensor) -> torch.Tensor:
    """A part as contiguous `(blocks, n)`: itself where its blocks lie one after another, else a copy."""
    return part.reshape(-1, part.shape[-1]).contiguous()
