"""Model cards: where a checkpoint comes from, its known super weights, and how it is measured."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from superweight.cards.base import Identifier, KnownSuperWeight, Strict
from superweight.cards.source import Source

DtypeName = Literal["float32", "float16", "bfloat16"]
Role = Literal["baseline", "candidate", "control", "reference"]
ControlVerdict = Literal["PASS", "REGRESSION"]


class RoleOverride(Strict):
    """A recipe's role on this one model, where it differs from the recipe card's."""

    role: Literal["candidate", "reference"]
    why: str = Field(min_length=10, description="the reason, shown in reports")


class ModelCard(Strict):
    """One checkpoint."""

    id: Identifier
    title: str = Field(min_length=1)
    source: Source
    note: str = Field(default="", description="what a reader of this model's figures must know")
    license: str = ""
    compute_dtype: DtypeName | None = Field(
        default=None, description="arithmetic of the forward pass; the checkpoint's own dtype if not given"
    )
    super_weights: tuple[KnownSuperWeight, ...] = Field(default=(), strict=False)
    known: bool = Field(
        default=True, description="false: the card makes no claim about super weights, detection alone decides"
    )
    recipes: dict[Identifier, RoleOverride] = Field(default_factory=dict, description="roles that differ on this model")

    @model_validator(mode="after")
    def _coordinates_are_unique(self) -> Self:
        keys = [weight.key for weight in self.super_weights]
        for weight in self.super_weights:
            if keys.count(weight.key) > 1:
                raise ValueError(f"{weight.coordinate} is listed twice")
        return self
