"""A weight seen as blocks: the runs of elements that share one scale, as views that write through."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from superweight.cards.recipe import Granularity
from superweight.checkpoint.architecture import LinearWeight


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


def weight_views(
    weight: LinearWeight, expert: int | None, granularity: Granularity, size: int | None = None
) -> list[torch.Tensor]:
    """`block_views` of one matrix of a model."""
    stored = weight.parameter.data if expert is None else weight.parameter.data[expert]
    return block_views(stored, granularity, size, transposed=weight.transposed)


def count_blocks(views: list[torch.Tensor]) -> int:
    """How many blocks the views hold."""
    return sum(view.numel() // view.shape[-1] for view in views)


def _runs(rows: torch.Tensor, size: int) -> list[torch.Tensor]:
    """`(rows, n)` as whole runs `(rows, n // size, size)` and, if some are left over, `(rows, n % size)`."""
    whole = rows.shape[-1] // size * size
    parts = [rows[:, :whole].view(rows.shape[0], -1, size)] if whole else []
    return parts + ([rows[:, whole:]] if whole < rows.shape[-1] else [])


def piece_elements(device: torch.device) -> int:
    """How many elements are worked on at a time: what stays in a CPU's cache, or keeps a GPU busy."""
    return 1 << 18 if device.type == "cpu" else 1 << 24


def whole_blocks(view: torch.Tensor, limit: int) -> Iterator[torch.Tensor]:
    """Split a view between blocks into parts of at most `limit` elements; a longer block comes alone."""
    if view.dim() > 2 and view[0].numel() > limit:
        for row in view:
            yield from whole_blocks(row, limit)
        return
    step = max(1, limit // max(1, view[0].numel()))
    yield from torch.split(view, step)


def pieces(part: torch.Tensor, limit: int) -> Iterator[torch.Tensor]:
    """Split a part within its blocks, so that no float32 copy exceeds `limit` elements."""
    step = max(1, limit // max(1, part.numel() // part.shape[-1]))
    yield from torch.split(part, step, dim=-1)
