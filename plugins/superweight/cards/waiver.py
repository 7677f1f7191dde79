"""Waiver cards: a failure that somebody answers for, on one gate of few cells, until a date."""

from __future__ import annotations

import datetime
from fnmatch import fnmatchcase
from typing import Self

from pydantic import Field, model_validator

from superweight.cards.base import Day, Identifier, Strict
from superweight.cards.gate import is_pattern


class WaiverCard(Strict):
    """A gate that may fail for a while, with who knows about it and why."""

    id: Identifier
    model: str = Field(min_length=1, description="model id, wildcards allowed")
    recipe: str = Field(min_length=1, description="recipe id, wildcards allowed; not of everything if the model is")
    gate: str = Field(min_length=1, description="'zero-shot:piqa', 'super-weights', …; wildcards allowed")
    ticket: str = Field(pattern=r"\S", description="where the failure is being dealt with")
    why: str = Field(min_length=20, description="why it may ship all the same")
    date: Day = Field(description="when it was waived")
    expires: Day = Field(description="the last day on which the waiver holds")

    def covers(self, model: str, recipe: str, gate: str) -> bool:
        """Whether the waiver is about this gate of this cell, whatever the day."""
        pairs = ((model, self.model), (recipe, self.recipe), (gate, self.gate))
        return all(fnmatchcase(name, pattern) for name, pattern in pairs)

    def valid_on(self, day: datetime.date) -> bool:
        """Whether the waiver holds: from the day it was given through the day it expires."""
        return datetime.date.fromisoformat(self.date) <= day <= datetime.date.fromisoformat(self.expires)

    @model_validator(mode="after")
    def _is_narrow(self) -> Self:
        if _vague(self.model) and _vague(self.recipe):
            raise ValueError("model and recipe: a waiver of every cell leaves no gate; name a model or a recipe")
        if self.expires < self.date:
            raise ValueError(f"expires: {self.expires} is before date, {self.date}")
        return self


def _vague(name: str) -> bool:
    """Whether a pattern says next to nothing: fewer than two characters before its first wildcard."""
    return is_pattern(name) and any(is_pattern(name[:end]) for end in (1, 2))
