"""Tier cards: how much is measured when, and what must not be missing."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Self

from pydantic import Field, model_validator

from superweight.cards.base import Identifier, Strict
from superweight.cards.recipe import RecipeCard
from superweight.ids import CellId
from superweight.tiers import Tier


class TierPerplexity(Strict):
    """One perplexity measurement."""

    corpus: Identifier
    window: int = Field(ge=16, description="tokens a window")
    windows: int | None = Field(
        default=None, ge=2, description="so many windows, drawn from all over the text; all if not given"
    )


class TierTask(Strict):
    """One zero-shot measurement."""

    task: Identifier
    limit: int | None = Field(default=None, ge=2, description="the first so many items; all if not given")


class TierCard(Strict):
    """What is measured, on which models, with which recipes."""

    id: Tier
    title: str = Field(min_length=1)
    models: tuple[str, ...] = Field(strict=False, min_length=1, description="model ids; '*' for every card")
    recipes: tuple[str, ...] = Field(
        strict=False, min_length=1, description="recipe ids; '*' for every card that runs wherever the gate does"
    )
    perplexity: tuple[TierPerplexity, ...] = Field(strict=False)
    tasks: tuple[TierTask, ...] = Field(strict=False)
    inconclusive_is_red: bool = False
    sequential: bool = Field(default=True, description="stop a measurement as soon as its verdict is valid")
    required: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="cells without which the run is red: 'model/recipe', or a recipe id, of every model measured",
    )

    def measures(self, recipe: RecipeCard) -> bool:
        """Whether a recipe is one of the tier's: by name, or as one of everything that runs wherever the gate does."""
        return recipe.id in self.recipes or ("*" in self.recipes and recipe.method.everywhere)

    def missing(self, cells: Collection[str]) -> list[str]:
        """Required cells that are not among those measured.

        Args:
            cells: ids of measured cells, `model/recipe`.

        Returns:
            ids of cells; of a run that measured nothing, entries of `required` as they stand.

        """
        models = dict.fromkeys(CellId.parse(cell).model for cell in cells)
        return [cell for cell in self.required_of(models) if cell not in cells]

    def required_of(self, models: Iterable[str]) -> list[str]:
        """Ids of required cells in a run of these models; of a run of none, entries of `required` as they stand."""
        asked: list[str] = []
        known = list(models)
        for entry in self.required:
            everywhere = "/" not in entry and known
            asked += [str(CellId(model, entry)) for model in known] if everywhere else [entry]
        return list(dict.fromkeys(asked))

    @model_validator(mode="after")
    def _measures_something_once(self) -> Self:
        if not self.perplexity and not self.tasks:
            raise ValueError("a tier without perplexity and without tasks measures nothing")
        for names in ([entry.corpus for entry in self.perplexity], [entry.task for entry in self.tasks]):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"'{name}' is listed twice; figures are kept by this id")
        return self
