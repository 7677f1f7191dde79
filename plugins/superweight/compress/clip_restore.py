"""Recipe `clip-restore`: clip, round, and write the super weights back (arXiv:2411.07191, section 4.2)."""

from __future__ import annotations

import math
from typing import Any

import torch

from superweight.cards.methods import ClipRestore, Rounding
from superweight.compress.blocks import block_views, gathered, piece_elements, whole_blocks
from superweight.compress.context import Context
from superweight.compress.matrix import Matrix
from superweight.compress.recipe import Recipe
from superweight.compress.rtn import blocks_of, round_matrix, rounded_bits
from superweight.compress.size import side_table_bits
from superweight.kernels.rounding import squared_errors

Z_GRID: tuple[float, ...] = (2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, math.inf)
"""What `z = "search"` chooses from: the range the paper reports for 4 bits on 7B models (9 and 11), the tighter clips
that suit small blocks, and not clipping at all."""

_SEARCH_PART = 1 << 20
"""Elements whose errors are added up at a time: as many compiled as not, so that the sums are the same."""


class ClipRestoreRecipe(Recipe[ClipRestore]):
    """Clip at mean|X| + z·std|X| a block, round to nearest, restore the super weights' bits.

    Clipping is what helps: the super weight is usually its block's extreme, so that without it the block's other
    weights get a smaller step; restoring then undoes the damage to the super weight itself.
    """

    def __init__(self, method: ClipRestore) -> None:
        super().__init__(method)
        self._chosen: dict[str, float] = {}

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Clip and round one matrix, and write its super weights back."""
        original = [matrix.values[one.row, one.column].clone() for one in matrix.super_weights]
        z = search(self.method, matrix) if self.method.z == "search" else self.method.z
        self._chosen[matrix.label] = z
        round_matrix(self.method, matrix, z)
        for one, value in zip(matrix.super_weights, original, strict=True):
            matrix.values[one.row, one.column] = value
        stored_aside = side_table_bits(len(matrix.super_weights), width=matrix.width)
        return {**rounded_bits(self.method, matrix), "super_weights": stored_aside}

    def figures(self, context: Context) -> dict[str, Any]:
        """The z that was chosen for each matrix, and how many super weights were restored."""
        z = {name: _json(each) for name, each in self._chosen.items()}
        given = self.method.z
        return {"z": z if given == "search" else _json(given), "restored": len(set(context.super_weights))}


def _json(z: float) -> float | str:
    """JSON has no infinity."""
    return z if math.isfinite(z) else "inf"


def search(method: Rounding, matrix: Matrix) -> float:
    """The z of `Z_GRID` with the least squared reconstruction error of one matrix.

    Super weights are left out: they are restored afterwards, so their error does not count. Squared error knows how
    large a weight is and not how much it matters. In rows and groups it clips little; in blocks of thousands of
    elements and 4 bits it prefers clips that cut outliers the model needs: give z there.

    Uses the weights alone, and reads each of them four times whatever the size of the grid: for the least and largest,
    for mean, for deviation, and for all errors at once.
    """
    device = matrix.stored.device
    errors = torch.zeros(len(Z_GRID), dtype=torch.float64, device=device)
    limit = max(_SEARCH_PART, piece_elements(device))
    views = blocks_of(method, matrix)
    for view, marks in zip(views, _marked(method, matrix) or views, strict=True):
        for part, marked in zip(whole_blocks(view, limit), whole_blocks(marks, limit), strict=True):
            spared = gathered(marked).view(-1).nonzero()[:, 0] if matrix.super_weights else None
            errors += squared_errors(gathered(part), method.bits, Z_GRID, spared)
    return Z_GRID[int(errors.argmin())]


def _marked(method: Rounding, matrix: Matrix) -> list[torch.Tensor] | None:
    """The blocks of a boolean matrix that is true at each super weight; None if there is none."""
    if not matrix.super_weights:
        return None
    marks = torch.zeros_like(matrix.stored, dtype=torch.bool)
    marks.view(-1)[matrix.flat(matrix.super_weights)] = True
    return block_views(marks, method.granularity, method.size, transposed=matrix.transposed)
