"""Recipe `rtn`: round every linear weight of the decoder layers to nearest."""

from __future__ import annotations

import math

import torch

from superweight.cards.methods import Rounding, RoundToNearest
from superweight.compress.blocks import block_views, count_blocks, gathered, whole_blocks
from superweight.compress.matrix import Matrix
from superweight.compress.recipe import Recipe
from superweight.compress.size import SCALE_BITS
from superweight.kernels.rounding import part_elements, round_


class RoundToNearestRecipe(Recipe[RoundToNearest]):
    """Asymmetric round-to-nearest at the card's granularity; mixtures expert by expert."""

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Round one matrix."""
        round_matrix(self.method, matrix)
        return rounded_bits(self.method, matrix)


def blocks_of(method: Rounding, matrix: Matrix) -> list[torch.Tensor]:
    """The matrix as views whose last axis runs along what shares a scale."""
    return block_views(matrix.stored, method.granularity, method.size, transposed=matrix.transposed)


def rounded_bits(method: Rounding, matrix: Matrix) -> dict[str, int]:
    """Bits of a rounded matrix: its codes, and a scale and a minimum for each block."""
    blocks = count_blocks(blocks_of(method, matrix))
    return {
        "codes": matrix.stored.numel() * method.bits,
        "scales": blocks * SCALE_BITS,
        "minima": blocks * SCALE_BITS,
    }


def round_matrix(method: Rounding, matrix: Matrix, z: float = math.inf) -> None:
    """Round one matrix in place, clipped at z standard deviations if that is finite."""

    def change(part: torch.Tensor) -> None:
        blocks = gathered(part)
        round_(blocks, method.bits, z, matrix.dtype)
        if blocks.data_ptr() != part.data_ptr():
            part.copy_(blocks.view(part.shape))

    limit = part_elements(matrix.stored.device)
    for view in blocks_of(method, matrix):
        for part in whole_blocks(view, limit):
            matrix.rewrite(part, change)
