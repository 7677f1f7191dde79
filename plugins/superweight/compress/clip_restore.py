"""Recipe `clip-restore`: clip, round, and write the super weights back (arXiv:2411.07191, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from superweight.cards.recipe import ClipRestore
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.base import Context, Journal, Outcome, experts, label
from superweight.compress.blocks import block_views, piece_elements, pieces, weight_views, whole_blocks
from superweight.compress.rounding import Range, clipped, extremes, magnitude_moments, round_to_nearest
from superweight.compress.rtn import size_of, size_parts
from superweight.compress.size import measure, side_table_bits

Z_GRID: tuple[float, ...] = (2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, math.inf)
"""What `z = "search"` chooses from: the range the paper reports for 4 bits on 7B models (9 and 11), the tighter clips
that suit small blocks, and not clipping at all."""


def apply(method: ClipRestore, context: Context, journal: Journal) -> Outcome:
    """Clip at mean|X| + z·std|X| a block, round to nearest, restore the super weights' bits.

    Clipping is what helps: the super weight is usually its block's extreme, so that without it the block's other
    weights get a smaller step; restoring then undoes the damage to the super weight itself.
    """
    chosen: dict[str, float] = {}
    parts = []
    for weight in context.weights:
        journal.keep(weight)
        for expert in experts(weight):
            held = [weight.matrix(expert)[one.row, one.column] for one in context.held(weight, expert)]
            original = [scalar.clone() for scalar in held]
            z = search(method, weight, expert, held) if method.z == "search" else method.z
            chosen[label(weight, expert)] = z
            _clip_and_round(method, z, weight, expert, journal)
            for scalar, value in zip(held, original, strict=True):
                scalar.copy_(value)
        stored_aside = side_table_bits(len(context.known.get(weight.name, ())), width=context.width)
        parts.append({**size_parts(method, weight), "super_weights": stored_aside})
    z_figure = {name: _json(z) for name, z in chosen.items()} if method.z == "search" else _json(method.z)
    figures = {"z": z_figure, "restored": len(set(context.super_weights))}
    return Outcome(size=measure(context.loaded.model, context.weights, parts, width=context.width), figures=figures)


def _json(z: float) -> float | str:
    """JSON has no infinity."""
    return z if math.isfinite(z) else "inf"


def search(method: ClipRestore, weight: LinearWeight, expert: int | None, held: Sequence[torch.Tensor] = ()) -> float:
    """The z of `Z_GRID` with the least squared reconstruction error of one matrix, super weights left out.

    Squared error knows how large a weight is and not how much it matters. In rows and groups it clips little; in blocks
    of thousands of elements and 4 bits it prefers clips that cut outliers the model needs: give z there.

    Uses the weights alone, and reads each of them five times whatever the size of the grid: for the least and largest,
    for mean and deviation, and for all errors at once.

    Args:
        method: bits and granularity.
        weight: the weight.
        expert: which matrix of a mixture.
        held: 0-dim views of the super weights in that matrix: restored afterwards, so their error does not count.
    """
    errors = torch.zeros(len(Z_GRID), dtype=torch.float64, device=weight.parameter.device)
    limit = piece_elements(weight.parameter.device)
    views = weight_views(weight, expert, method.granularity, size_of(method))
    for view, counts in zip(views, _counting(weight, expert, held, method) or views, strict=True):
        for part, part_counts in zip(whole_blocks(view, limit), whole_blocks(counts, limit), strict=True):
            ends, moments = extremes(part), magnitude_moments(part)
            grids = torch.stack(
                [torch.cat(clipped(ends, moments, z), -1).view(-1, 2) for z in Z_GRID]
            )  # (z, blocks, 2)
            for piece, piece_counts in zip(pieces(part, limit), pieces(part_counts, limit), strict=True):
                n = piece.shape[-1]
                mask = piece_counts.reshape(-1, n) if held else None
                errors += _errors(piece.float().reshape(-1, n), grids, method.bits, mask)
    return Z_GRID[int(errors.argmin())]


def _errors(x: torch.Tensor, grids: torch.Tensor, bits: int, mask: torch.Tensor | None) -> torch.Tensor:
    """Squared error of rounding the blocks `(blocks, n)` to each grid: float64 `(z,)`.

    The last grid does not clip; blocks that another grid does not clip either have the same error, and are not
    computed again.
    """

    def error(blocks: torch.Tensor, low_high: torch.Tensor) -> torch.Tensor:
        kept = x[blocks]
        difference = round_to_nearest(kept, Range(low_high[blocks, :1], low_high[blocks, 1:]), bits).sub_(kept)
        if mask is not None:
            difference *= mask[blocks]
        return difference.square_().sum(-1, dtype=torch.float64)

    everywhere = torch.ones(len(x), dtype=torch.bool, device=x.device)
    unclipped = error(everywhere, grids[-1])
    errors = [unclipped.sum()]
    for low_high in grids[:-1].flip(0):
        clips = (low_high != grids[-1]).any(-1)
        errors.append(unclipped[~clips].sum() + error(clips, low_high).sum())
    return torch.stack(errors[::-1])


def _counting(
    weight: LinearWeight, expert: int | None, held: Sequence[torch.Tensor], method: ClipRestore
) -> list[torch.Tensor] | None:
    """The blocks of a matrix of ones with a zero at each super weight; None if there is none."""
    if not held:
        return None
    stored = weight.parameter.data if expert is None else weight.parameter.data[expert]
    counts = torch.ones_like(stored, dtype=torch.bool)
    start = stored.storage_offset()
    counts.view(-1)[[scalar.storage_offset() - start for scalar in held]] = False
    return block_views(counts, method.granularity, size_of(method), transposed=weight.transposed)


def _clip_and_round(method: ClipRestore, z: float, weight: LinearWeight, expert: int | None, journal: Journal) -> None:
    limit = piece_elements(weight.parameter.device)
    for view in weight_views(weight, expert, method.granularity, size_of(method)):
        for part in whole_blocks(view, limit):
            ends = extremes(part)
            if math.isfinite(z):
                ends = clipped(ends, magnitude_moments(part), z)
            for piece in pieces(part, limit):
                journal.write(weight, piece, round_to_nearest(piece.float(), ends, method.bits))
