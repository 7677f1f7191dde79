"""The matrix: which models meet which recipes, and what part each recipe plays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from superweight.cards.library import Library
from superweight.cards.model import ControlVerdict, ModelCard, Role
from superweight.cards.recipe import RecipeCard


@dataclass(frozen=True)
class Cell:
    """One model under one recipe: the unit that is measured, judged and scheduled."""

    model: ModelCard
    recipe: RecipeCard

    @property
    def id(self) -> str:
        """`model/recipe`, as in test ids and in links into the report."""
        return f"{self.model.id}/{self.recipe.id}"

    @property
    def role(self) -> Role:
        """The recipe's role on this model: the model card's word before the recipe card's."""
        override = self.model.recipes.get(self.recipe.id)
        return override.role if override else self.recipe.role

    @property
    def why(self) -> str:
        """Why the role is what it is, where a card says so."""
        override = self.model.recipes.get(self.recipe.id)
        return override.why if override else self.recipe.note

    @property
    def promises(self) -> bool:
        """Whether every super weight must keep its bits."""
        if self.recipe.promises_super_weights is None:
            return self.role == "candidate"
        return self.recipe.promises_super_weights

    @property
    def expects(self) -> ControlVerdict | None:
        """The verdict a control must get."""
        return self.recipe.expects if self.role == "control" else None


def baseline_recipe(library: Library) -> RecipeCard:
    """The one recipe that leaves the model as it is."""
    return next(card for card in library.recipes.values() if card.role == "baseline")


def cells(library: Library, models: Iterable[ModelCard], recipes: Iterable[RecipeCard]) -> Iterator[Cell]:
    """Every cell, model by model, each model's baseline first."""
    baseline = baseline_recipe(library)
    others = [recipe for recipe in recipes if recipe.id != baseline.id]
    for model in models:
        yield Cell(model, baseline)
        for recipe in others:
            yield Cell(model, recipe)


def select(ids: Iterable[str], shelf: dict[str, ModelCard] | dict[str, RecipeCard]) -> list[str]:
    """Expand `*` and keep the order of the cards."""
    wanted = list(ids)
    return list(shelf) if "*" in wanted else [name for name in wanted if name in shelf]
