"""Which cells a run is about: the tier's, and those that the command line names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import pytest

from pytest_superweight.options import Settings
from superweight.cards import Cell, Library, ModelCard, RecipeCard, TierCard, cells
from superweight.errors import CardError

Card = TypeVar("Card", ModelCard, RecipeCard)


def selected_cells(settings: Settings, library: Library, arguments: Sequence[str]) -> list[Cell]:
    """The matrix of this run.

    `--superweight-model` and `--superweight-recipe` replace the tier's lists. Otherwise the tier's models are joined by
    every model that `-k` or a test id on the command line names and the tier does not have, so that
    `-k mistral` selects Mistral in any tier, and `-k smollm2` keeps to the embedded model in the smoke tier.

    Raises:
        CardError: a model or recipe that does not exist, or two gate cards that compete for one gate of this run.

    """
    tier = library.tiers[settings.tier]
    models = _distinct(_models(settings, library, tier, arguments))
    recipes = _distinct(_recipes(settings, library, tier))
    library.book.check(
        [card.id for card in models],
        [card.id for card in recipes],
        [entry.corpus for entry in tier.perplexity],
        [entry.task for entry in tier.tasks],
    )
    return list(cells(library, models, recipes))


def _distinct(cards: Sequence[Card]) -> list[Card]:
    """The cards without repetition; figures are kept by id, so two cards of one id would be taken for each other."""
    found: dict[str, Card] = {}
    for card in cards:
        if found.setdefault(card.id, card) != card:
            raise CardError(
                f"two different cards have the id '{card.id}' ({found[card.id].title} and {card.title}). "
                "Rename a directory or file, or write cards with ids of their own."
            )
    return list(found.values())


def _models(settings: Settings, library: Library, tier: TierCard, arguments: Sequence[str]) -> list[ModelCard]:
    if settings.models:
        return [library.model(argument) for argument in settings.models]
    chosen = [name for name in library.models if "*" in tier.models or name in tier.models]
    others = [name for name in library.models if name not in chosen]
    named = _named(settings.expression, chosen, others)
    named |= {name for name in others if any(f"[{name}/" in argument for argument in arguments)}
    return [library.models[name] for name in [*chosen, *(name for name in others if name in named)]]


def _named(expression: str, chosen: Sequence[str], others: Sequence[str]) -> set[str]:
    """Models outside the tier that a word of `-k` names, unless the word already names one inside it."""
    words = {word.lower() for word in re.findall(r"[\w.+\-/\[\]:]+", expression)} - {"and", "or", "not"}
    fresh = [word for word in words if not any(word in name for name in chosen)]
    return {
        name for name in others if any(word.split("/")[0].strip("[]") in name for word in fresh if word.strip("[]/"))
    }


def _recipes(settings: Settings, library: Library, tier: TierCard) -> list[RecipeCard]:
    if settings.recipes:
        return [library.recipe(argument) for argument in settings.recipes]
    return tier_recipes(library, tier)


def tier_recipes(library: Library, tier: TierCard) -> list[RecipeCard]:
    """The recipes of a tier."""
    return [card for name, card in library.recipes.items() if "*" in tier.recipes or name in tier.recipes]


def parametrize(metafunc: pytest.Metafunc, matrix: Sequence[Cell], tier: TierCard) -> None:
    """Parametrise a test over the cells, and over the tier's corpora or tasks if it asks for one."""
    names = metafunc.fixturenames
    if "superweight_cell" not in names:
        return
    chosen = [cell for cell in matrix if _wanted(metafunc, cell)]
    if "superweight_corpus" in names:
        pairs = [(cell, entry) for cell in chosen for entry in tier.perplexity]
        ids = [f"{cell.id}/{entry.corpus}" for cell, entry in pairs]
        metafunc.parametrize(("superweight_cell", "superweight_corpus"), pairs, ids=ids, indirect=True)
    elif "superweight_task" in names:
        asked = [(cell, entry) for cell in chosen for entry in tier.tasks]
        ids = [f"{cell.id}/{entry.task}" for cell, entry in asked]
        metafunc.parametrize(("superweight_cell", "superweight_task"), asked, ids=ids, indirect=True)
    else:
        metafunc.parametrize("superweight_cell", chosen, ids=[cell.id for cell in chosen], indirect=True)


def _wanted(metafunc: pytest.Metafunc, cell: Cell) -> bool:
    marker = metafunc.definition.get_closest_marker("superweight_roles")
    return marker is None or cell.role in marker.args
