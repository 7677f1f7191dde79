"""Gate cards: how much loss is accepted, why, since when and until when, measured how, and where it holds."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import Field, model_validator

from superweight.cards.base import Day, Identifier, Strict
from superweight.cards.gate_kinds import GATE_KINDS, KindName, gate_kind

Pattern = Annotated[str, Field(min_length=1)]
Scope = tuple[Pattern, ...]

_EVERYTHING = ("*",)


class GateCard(Strict):
    """How much worse than the uncompressed model a compressed one may be, with the reason and its provenance."""

    id: Identifier
    title: str = Field(min_length=1)
    kind: KindName
    margin: float = Field(
        gt=0,
        description="; ".join(f"{name}: largest accepted {kind.margin}" for name, kind in GATE_KINDS.items()),
    )
    value: float | None = Field(
        default=None,
        description=f"{', '.join(name for name, kind in GATE_KINDS.items() if kind.bound)}: a bound on the figure "
        "itself beside the margin, at most where lower is better and at least where higher is; belongs to n, "
        "device_class, models and of",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="of the two-sided interval that is compared with the margin"
    )
    why: str = Field(min_length=20, description="where the margin comes from")
    date: Day = Field(description="when the margin was decided")
    ticket: str = Field(default="", description="where it was decided")
    expires: Day | None = Field(default=None, description="the last day on which the card holds")
    n: int | None = Field(default=None, ge=2, description="windows or items that the margin was decided for")
    device_class: str | None = Field(
        default=None,
        min_length=1,
        description="of the machine it was decided on, or how it begins: 'cuda NVIDIA H100', 'cpu x86_64 AVX512'",
    )
    versions: dict[str, str] = Field(
        default_factory=dict, description="packages it was decided with, and how their versions begin"
    )
    models: Scope = Field(default=_EVERYTHING, strict=False, min_length=1, description="model ids, wildcards allowed")
    recipes: Scope = Field(default=_EVERYTHING, strict=False, min_length=1, description="recipe ids, likewise")
    of: Scope = Field(default=_EVERYTHING, strict=False, min_length=1, description="corpus or task ids, likewise")

    @property
    def specificity(self) -> int:
        """How many of `models`, `recipes` and `of` are narrower than everything."""
        return sum(scope != _EVERYTHING for scope in (self.models, self.recipes, self.of))

    def applies(self, model: str, recipe: str, of: str) -> bool:
        """Whether the card is about this model, recipe, and corpus or task."""
        return _matches(self.models, model) and _matches(self.recipes, recipe) and _matches(self.of, of)

    def valid_on(self, day: datetime.date) -> bool:
        """Whether the card still holds; it does through the day it expires."""
        return self.expires is None or day <= datetime.date.fromisoformat(self.expires)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.expires is not None and self.expires < self.date:
            raise ValueError(f"expires: {self.expires} is before date, {self.date}")
        if gate_kind(self.kind).share and self.margin >= 1:
            raise ValueError(f"margin: {self.margin} is not a share; kind '{self.kind}' takes one below 1")
        if self.value is not None:
            self._bound_is_complete()
        return self

    def _bound_is_complete(self) -> None:
        """A figure without the n, the machine, the model and the text it was measured on bounds nothing."""
        if not gate_kind(self.kind).bound:
            bounded = " and ".join(name for name, kind in GATE_KINDS.items() if kind.bound)
            raise ValueError(f"value: only kinds {bounded} take one; '{self.kind}' has its margin")
        found = {
            "n": self.n is not None,
            "device_class": self.device_class is not None,
            "models": self.models != _EVERYTHING,
            "of": self.of != _EVERYTHING,
        }
        missing = [name for name, given in found.items() if not given]
        if missing:
            raise ValueError(f"value: a bound on the figure itself needs {', '.join(missing)} too")


def is_pattern(name: str) -> bool:
    """Whether a name has wildcards, as in `fnmatch`."""
    return any(character in name for character in "*?[")


def _matches(scope: Sequence[str], name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in scope)
