"""The matrix: which models meet which recipes, and what part each recipe plays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from superweight.cards.library import Library
from superweight.cards.model import ControlVerdict, ModelCard, Role
from superweight.cards.recipe import RecipeCard
from superweight.ids import CellId


@dataclass(frozen=True)
class Cell:
    """One model under one recipe: the unit that is measured, judged and scheduled."""

    model: ModelCard
    recipe: RecipeCard

    @property
    def id(self) -> str:
        """`model/recipe`, as in test ids and in links into the report."""
        return str(CellId(self.model.id, self.recipe.id))

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
        """Whether every super weight must be kept, as `RecipeCard.kept_means` says."""
        if self.recipe.promises_super_weights is None:
            return self.role == "candidate" or self.recipe.promise is not None
        return self.recipe.promises_super_weights

    @property
    def expects(self) -> ControlVerdict | None:
        """The verdict a control must get."""
        return self.recipe.expects if self.role == "control" else None


def baseline_recipe(library: Library) -> RecipeCard:
    """The one recipe that leaves the model as it is."""
    return next(card for card in library.recipes.values() if card.role == "baseline")


def cells(library: Library, models: Iterable[ModelCard], recipes: Iterable[RecipeCard]) -> Iterator[Cell]:
    """Every cell, model by model, each model's baseline first; recipes of one model alone meet no other."""
    baseline = baseline_recipe(library)
    others = _side_by_side([recipe for recipe in recipes if recipe.id != baseline.id])
    for model in models:
        yield Cell(model, baseline)
        for recipe in others:
            if recipe.method.only_model in (None, model.id):
                yield Cell(model, recipe)


def _side_by_side(recipes: list[RecipeCard]) -> list[RecipeCard]:
    """Controls first, since they vouch for the rest; then each candidate with the references shown beside it."""
    position = {recipe.id: index for index, recipe in enumerate(recipes)}
    rank = {"control": 0, "candidate": 1, "reference": 2}

    def place(recipe: RecipeCard) -> tuple[int, int, int]:
        anchor = recipe.beside if recipe.beside in position else recipe.id
        beside = anchor != recipe.id
        return (1 if beside else rank[recipe.role], position[anchor], 1 + position[recipe.id] if beside else 0)

    return sorted(recipes, key=place)
