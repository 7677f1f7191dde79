"""Kinds of recipes that round weights and leave activations alone."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from superweight.cards.methods.base import WeightBlocks, WeightsAlone

Granularity = Literal["tensor", "channel", "group", "block"]

TO_NEAREST, CLIPPED_AND_RESTORED = "round to nearest", "clip and restore"
"""Ways of choosing codes, as `WeightBlocks` names them."""

_DEPLOYED_GROUP = 128  # elements; the usual group of GPTQ and AWQ checkpoints
_SMALLEST_GROUP = 32  # elements; below that scales and minima cost a bit a weight


class Rounding(WeightsAlone):
    """A base of kinds that round blocks of weights asymmetrically (arXiv:2411.07191, section 4)."""

    compresses = True
    changes_nothing = False
    of_super_weights = False

    bits: int = Field(ge=2, le=8)
    granularity: Granularity
    group_size: int | None = Field(default=None, ge=2, description="elements of one row that share a scale")
    block_size: int | None = Field(default=None, ge=2, description="contiguous flattened elements that share a scale")

    @model_validator(mode="after")
    def _size_fits_granularity(self) -> Self:
        for granularity, field, size in (
            ("group", "group_size", self.group_size),
            ("block", "block_size", self.block_size),
        ):
            given = size is not None
            if given != (self.granularity == granularity):
                verb = "needs" if not given else "does not take"
                raise ValueError(f"granularity '{self.granularity}' {verb} {field}")
        return self

    @property
    def size(self) -> int | None:
        """Elements of a group or block, where the granularity has them."""
        return self.group_size or self.block_size

    def next_settings(self) -> list[str]:
        """Smaller blocks, then more bits."""
        few = self.bits < 8
        found = self._smaller_blocks() + (
            [f"{self.bits} bits may be too few for this model: try bits = 8"] if few else []
        )
        return found or [
            "8 bits a weight at this granularity seldom cost so much: look at what the sanity gate says and at what "
            "the baseline is"
        ]

    def _smaller_blocks(self) -> list[str]:
        """What shares a scale, made smaller; of 8 bits in a row or less of one, nothing is gained by that."""
        size, group = self.size, f"try granularity = 'group' with group_size = {_DEPLOYED_GROUP}"
        if self.granularity == "tensor":
            return ["one scale for a whole matrix is the coarsest there is: " + group]
        if size is not None and size > _DEPLOYED_GROUP:
            return [f"{size} elements to a scale are more than in deployed formats: {group}"]
        if self.bits >= 8:
            return []
        if self.granularity == "channel":
            return [f"one scale a row is coarse for {self.bits} bits: {group}"]
        if size is not None and size > _SMALLEST_GROUP:
            smaller = max(size // 2, _SMALLEST_GROUP)
            return [f"try fewer elements to a scale than {size}, such as {self.granularity}_size = {smaller}"]
        return []

    def _blocks(self, rounding: str) -> WeightBlocks | None:
        return WeightBlocks(self.bits, self.size, rounding) if self.size else None


class RoundToNearest(Rounding):
    """Asymmetric round-to-nearest (arXiv:2411.07191, section 4)."""

    kind: Literal["rtn"]
    implementation = "superweight.compress.rtn:RoundToNearestRecipe"

    @property
    def weight_blocks(self) -> WeightBlocks | None:
        """A group or a block."""
        return self._blocks(TO_NEAREST)

    def settings_that_keep_super_weights(self) -> list[str]:
        """The kind that writes them back."""
        return ["try kind = 'clip-restore' at the same bits and granularity: it writes super weights back bit for bit"]


class ClipRestore(Rounding):
    """Clip every block at mean|X| + z·std|X|, round, write the super weights back (arXiv:2411.07191, section 4.2)."""

    kind: Literal["clip-restore"]
    implementation = "superweight.compress.clip_restore:ClipRestoreRecipe"

    z: (
        Annotated[float, Field(gt=0, allow_inf_nan=True, description="`inf` restores without clipping")]
        | Literal["search"]
    ) = Field(description="clipping threshold in standard deviations, or 'search' on the weights alone")

    @property
    def weight_blocks(self) -> WeightBlocks | None:
        """A group or a block."""
        return self._blocks(CLIPPED_AND_RESTORED)

    def next_settings(self) -> list[str]:
        """Those of rounding, then another clip."""
        return super().next_settings() + self._other_clip()

    def _other_clip(self) -> list[str]:
        coarse = self.granularity in ("tensor", "block")
        if self.z == "search":
            advised = "z = 'search' weighs squared error, and in large blocks it cuts outliers that the model needs: "
            return [advised + "give z, 9 or more"] if coarse else []
        if math.isinf(self.z):
            return []
        return [f"z = {self.z:g} may clip too much: try a larger one" + ("" if coarse else ", or z = 'search'")]

    def settings_that_keep_super_weights(self) -> list[str]:
        """None: it keeps those that it knows."""
        return [KEEPS_THEM_ALREADY]


KEEPS_THEM_ALREADY = (
    "this recipe stores super weights exactly, so one that is lost was not known to it or was changed afterwards: "
    "compare the list with the model card and with detection"
)
