"""Recipe `clip-restore`: clip, round, and write the super weights back (arXiv:2411.07191, section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from superweight.cards.recipe import ClipRestore
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.blocks import block_views, gathered, piece_elements, weight_views, whole_blocks
from superweight.compress.context import Context, RecipeReport, UndoLog, experts, label
from superweight.compress.rtn import round_matrix, size_of, size_parts
from superweight.compress.size import measure, side_table_bits
from superweight.kernels.rounding import squared_errors

Z_GRID: tuple[float, ...] = (2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, math.inf)
"""What `z = "search"` chooses from: the range the paper reports for 4 bits on 7B models (9 and 11), the tighter clips
that suit small blocks, and not clipping at all."""

_SEARCH_PART = 1 << 20
"""Elements whose errors are added up at a time: as many compiled as not, so that the sums are the same."""


def apply(method: ClipRestore, context: Context, journal: UndoLog) -> RecipeReport:
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
            round_matrix(method, weight, expert, journal, z)
            for scalar, value in zip(held, original, strict=True):
                scalar.copy_(value)
        stored_aside = side_table_bits(len(context.known.get(weight.name, ())), width=context.width)
        parts.append({**size_parts(method, weight), "super_weights": stored_aside})
    z_figure = {name: _json(z) for name, z in chosen.items()} if method.z == "search" else _json(method.z)
    figures = {"z": z_figure, "restored": len(set(context.super_weights))}
    return RecipeReport(
        size=measure(context.loaded.model, context.weights, parts, width=context.width), figures=figures
    )


def _json(z: float) -> float | str:
    """JSON has no infinity."""
    return z if math.isfinite(z) else "inf"


def search(method: ClipRestore, weight: LinearWeight, expert: int | None, held: Sequence[torch.Tensor] = ()) -> float:
    """The z of `Z_GRID` with the least squared reconstruction error of one matrix, super weights left out.

    Squared error knows how large a weight is and not how much it matters. In rows and groups it clips little; in blocks
    of thousands of elements and 4 bits it prefers clips that cut outliers the model needs: give z there.

    Uses the weights alone, and reads each of them four times whatever the size of the grid: for the least and largest,
    for mean, for deviation, and for all errors at once.

    Args:
        method: bits and granularity.
        weight: the weight.
        expert: which matrix of a mixture.
        held: 0-dim views of the super weights in that matrix: restored afterwards, so their error does not count.
    """
    errors = torch.zeros(len(Z_GRID), dtype=torch.float64, device=weight.parameter.device)
    limit = max(_SEARCH_PART, piece_elements(weight.parameter.device))
    views = weight_views(weight, expert, method.granularity, size_of(method))
    for view, marks in zip(views, _marked(weight, expert, held, method) or views, strict=True):
        for part, marked in zip(whole_blocks(view, limit), whole_blocks(marks, limit), strict=True):
            spared = gathered(marked).view(-1).nonzero()[:, 0] if held else None
            errors += squared_errors(gathered(part), method.bits, Z_GRID, spared)
    return Z_GRID[int(errors.argmin())]


def _marked(
    weight: LinearWeight, expert: int | None, held: Sequence[torch.Tensor], method: ClipRestore
) -> list[torch.Tensor] | None:
    """The blocks of a boolean matrix that is true at each super weight; None if there is none."""
    if not held:
        return None
    stored = weight.stored(expert)
    marks = torch.zeros_like(stored, dtype=torch.bool)
    start = stored.storage_offset()
    marks.view(-1)[[scalar.storage_offset() - start for scalar in held]] = True
    return block_views(marks, method.granularity, size_of(method), transposed=weight.transposed)
