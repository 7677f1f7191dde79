"""Kinds of recipes whose codes are what deployed formats store: integers with whole zero points, and 8-bit floats."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from superweight.cards.methods.base import WeightBlocks, WeightsAlone

SUPER_WEIGHT_MODULES = "super-weight-modules"
"""Of `exclude`: the modules that hold super weights, whichever they are in a model."""

ScaleDtype = Literal["checkpoint", "float32", "bfloat16", "float16"]
SYMMETRIC, ASYMMETRIC = "round to nearest, symmetric", "round to nearest, whole zero point"
"""Ways of choosing codes, as `WeightBlocks` names them."""

_REGEX = "re:"
_EXCLUDE = (
    "try exclude = ['super-weight-modules'], which leaves the modules that hold super weights as they are, or "
    "super_weights = 'restored', which brings them back by an adapter"
)


class Deployable(WeightsAlone):
    """A base of kinds whose codes, scales and zero points are in memory what they are in the file."""

    compresses = True
    changes_nothing = False
    of_super_weights = False

    scale_dtype: ScaleDtype = Field(
        default="checkpoint", description="in which scales are stored, and codes decoded; the checkpoint's own"
    )
    activations: Literal["none", "token"] = Field(
        default="none", description="whether inputs are quantised too, with a scale for each token"
    )
    super_weights: Literal["rounded", "restored"] = Field(
        default="rounded", description="restored: to the checkpoint's bits, by what is shipped beside the codes"
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="modules left as they are: full names, re: and a regular expression that matches from the "
        f"beginning, or {SUPER_WEIGHT_MODULES}",
    )

    @field_validator("exclude")
    @classmethod
    def _patterns_compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                re.compile(pattern.removeprefix(_REGEX) if pattern.startswith(_REGEX) else "")
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
            if not pattern.removeprefix(_REGEX):
                raise ValueError("an empty name excludes nothing")
        return patterns

    def excludes(self, module: str, *, holds_super_weights: bool) -> bool:
        """Whether a module is left as it is.

        Args:
            module: its name in the model, `model.layers.2.mlp.down_proj`; of experts, that of their parameter.
            holds_super_weights: whether a super weight is among its weights.
        """
        return any(
            holds_super_weights if pattern == SUPER_WEIGHT_MODULES else matches(pattern, module)
            for pattern in self.exclude
        )

    def idle(self, modules: Iterable[str]) -> list[str]:
        """Patterns of `exclude` that match none of a model's modules, and so are slips of the pen."""
        known = list(modules)
        named = [pattern for pattern in self.exclude if pattern != SUPER_WEIGHT_MODULES]
        return [pattern for pattern in named if not any(matches(pattern, module) for module in known)]

    def settings_that_keep_super_weights(self) -> list[str]:
        """Leave their modules alone, or bring them back."""
        if self.super_weights == "restored" or SUPER_WEIGHT_MODULES in self.exclude:
            return [
                "super weights are kept, so one that is lost was not known to the recipe or was changed afterwards: "
                "compare the list with the model card and with detection"
            ]
        return [_EXCLUDE]


class Integer(Deployable):
    """Weights as integers: (code − zero point) · scale, zero points whole numbers, or none where it is symmetric."""

    kind: Literal["integer"]
    implementation = "superweight.compress.integer:IntegerRecipe"

    bits: int = Field(ge=2, le=8)
    symmetric: bool = Field(description="no zero point; else the grid covers least to largest, zero always in it")
    full_range: bool = Field(
        default=False,
        description="symmetric alone: −2^(bits−1) is a code, and the scale is max|X|/(2^(bits−1) − ½), so that a "
        "positive extreme is cut; else codes run from −(2^(bits−1) − 1), and extremes are codes",
    )
    granularity: Literal["tensor", "channel", "group"]
    group_size: int | None = Field(default=None, ge=2, description="elements of one row that share a scale")
    z: Annotated[float, Field(gt=0, allow_inf_nan=True)] = Field(
        default=math.inf, description="clip at mean|X| + z·std|X| of what shares a scale; inf does not clip"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.group_size is not None) != (self.granularity == "group"):
            verb = "needs" if self.granularity == "group" else "does not take"
            raise ValueError(f"granularity '{self.granularity}' {verb} group_size")
        if math.isnan(self.z):
            raise ValueError("z should be a number above 0, or inf")
        if self.full_range and not self.symmetric:
            raise ValueError("full_range is about symmetric codes: asymmetric ones always use all of them")
        if self.activations != "none" and (self.bits != 8 or not self.symmetric or self.granularity == "group"):
            raise ValueError("activations 'token' are 8 bits, and need 8-bit symmetric weights per channel or tensor")
        return self

    @property
    def weight_blocks(self) -> WeightBlocks | None:
        """A group."""
        if self.group_size is None or self.activations != "none":
            return None
        return WeightBlocks(self.bits, self.group_size, SYMMETRIC if self.symmetric else ASYMMETRIC)

    def next_settings(self) -> list[str]:
        """A zero point, smaller groups, more bits."""
        found = []
        if self.activations != "none":
            found.append("massive activations are rounded with the rest: try activations = 'none'")
        if self.granularity != "group" and self.bits < 8:
            found.append(f"one scale for so many {self.bits}-bit codes is coarse: try group_size = 128")
        if self.bits < 8 and self.symmetric:
            found.append("try symmetric = false, whose grid covers each group from least to largest")
        if self.group_size is not None and self.group_size > 32 and self.bits < 8:
            found.append(f"try fewer elements to a scale than {self.group_size}, such as group_size = 32")
        if self.bits < 8:
            found.append(f"{self.bits} bits may be too few for this model: try bits = 8")
        if math.isfinite(self.z):
            found.append(f"z = {self.z:g} may clip too much: try a larger one")
        return found or ["8 bits a weight seldom cost so much: look at what the sanity gate says and at the baseline"]


class Float8(Deployable):
    """Weights as 8-bit floats with four bits of exponent (float8_e4m3fn), times a scale."""

    kind: Literal["float8"]
    implementation = "superweight.compress.integer:Float8Recipe"

    granularity: Literal["tensor", "channel"]

    def next_settings(self) -> list[str]:
        """Activations as they are, scales by channel, integers."""
        found = []
        if self.activations != "none":
            found.append("massive activations are rounded with the rest: try activations = 'none'")
        if self.granularity == "tensor":
            found.append("one scale for a whole matrix is coarse: try granularity = 'channel'")
        return [*found, "three bits of mantissa are coarser than eight-bit integers: try kind = 'integer', bits = 8"]


def matches(pattern: str, module: str) -> bool:
    """Whether a pattern names a module: its full name, or `re:` and an expression that matches from the beginning."""
    if pattern.startswith(_REGEX):
        return re.match(pattern.removeprefix(_REGEX), module) is not None
    return pattern == module
