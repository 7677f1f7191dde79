"""Recipe `rtn`: round every linear weight of the decoder layers to nearest."""

from __future__ import annotations

import math

import torch

from superweight.cards.recipe import RoundToNearest
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress.blocks import count_blocks, gathered, weight_views, whole_blocks
from superweight.compress.context import Context, RecipeReport, UndoLog, experts
from superweight.compress.size import SCALE_BITS, measure
from superweight.kernels.rounding import part_elements, round_


def apply(method: RoundToNearest, context: Context, journal: UndoLog) -> RecipeReport:
    """Asymmetric round-to-nearest at the card's granularity; mixtures expert by expert."""
    parts = []
    for weight in context.weights:
        journal.keep(weight)
        for expert in experts(weight):
            round_matrix(method, weight, expert, journal)
        parts.append(size_parts(method, weight))
    return RecipeReport(size=measure(context.loaded.model, context.weights, parts, width=context.width))


def size_of(method: RoundToNearest) -> int | None:
    """Elements of a group or block, where the granularity has them."""
    return method.group_size or method.block_size


def size_parts(method: RoundToNearest, weight: LinearWeight) -> dict[str, int]:
    """Bits of a rounded weight: its codes, and a scale and a minimum for each block."""
    blocks = sum(
        count_blocks(weight_views(weight, expert, method.granularity, size_of(method))) for expert in experts(weight)
    )
    return {
        "codes": weight.parameter.numel() * method.bits,
        "scales": blocks * SCALE_BITS,
        "minima": blocks * SCALE_BITS,
    }


def round_matrix(
    method: RoundToNearest, weight: LinearWeight, expert: int | None, journal: UndoLog, z: float = math.inf
) -> None:
    """Round one matrix in place, clipped at z standard deviations if that is finite."""

    def change(part: torch.Tensor) -> None:
        blocks = gathered(part)
        round_(blocks, method.bits, z, journal.dtype)
        if blocks.data_ptr() != part.data_ptr():
            part.copy_(blocks.view(part.shape))

    limit = part_elements(weight.parameter.device)
    for view in weight_views(weight, expert, method.granularity, size_of(method)):
        for part in whole_blocks(view, limit):
            journal.rewrite(weight, part, change)
