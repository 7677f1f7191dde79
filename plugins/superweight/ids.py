"""Ids as they are published: `model/recipe` of a cell, `kind:of` of a gate."""

from __future__ import annotations

from typing import NamedTuple


class CellId(NamedTuple):
    """The id of one model under one recipe, `llama-7b/rtn-int4-g64`.

    Attributes:
        model: model id, which holds no slash.
        recipe: recipe id; empty if the text that was parsed names none.

    """

    model: str
    recipe: str

    @classmethod
    def parse(cls, text: str) -> CellId:
        """The id in its published form."""
        model, _, recipe = text.partition("/")
        return cls(model, recipe)

    def __str__(self) -> str:
        return f"{self.model}/{self.recipe}"


class GateId(NamedTuple):
    """The id of one question asked of a cell, `perplexity:wiki`, or of a stage of its measurement.

    Attributes:
        kind: what is asked: `perplexity`, `zero-shot`, `super-weights`, …
        of: corpus or task; empty where the question is about neither.

    """

    kind: str
    of: str = ""

    @classmethod
    def parse(cls, text: str) -> GateId:
        """The id in its published form; whatever follows the first colon is what it is of."""
        kind, _, of = text.partition(":")
        return cls(kind, of)

    def __str__(self) -> str:
        return f"{self.kind}:{self.of}" if self.of else self.kind
