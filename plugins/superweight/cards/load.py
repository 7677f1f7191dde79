"""Reading cards: one file, or all cards at hand, the built-in ones and a user's own, checked against each other."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from superweight.cards.base import Strict
from superweight.cards.corpus import CorpusCard, TextFile
from superweight.cards.cross_checks import check_references
from superweight.cards.foreign_kinds import load_foreign_kinds
from superweight.cards.gate import GateCard
from superweight.cards.library import Library
from superweight.cards.methods import Method, kind_named
from superweight.cards.model import ModelCard
from superweight.cards.recipe import RecipeCard
from superweight.cards.shelves import cards_in, check_directory
from superweight.cards.source import DirectorySource, GgufSource
from superweight.cards.task import TaskCard
from superweight.cards.tier import TierCard
from superweight.cards.toml import read_toml
from superweight.cards.waiver import WaiverCard
from superweight.errors import CardError

Card = TypeVar("Card", bound=Strict)

_FOLDERS: dict[str, type[Strict]] = {
    "models": ModelCard,
    "recipes": RecipeCard,
    "corpora": CorpusCard,
    "tasks": TaskCard,
    "gates": GateCard,
    "tiers": TierCard,
    "waivers": WaiverCard,
}
_SOURCES = {"hub", "directory", "gguf", "wheel", "file"}
"""Kinds of sources, which pydantic puts among the keys that lead to a fault."""


def builtin_cards() -> Path:
    """The directory of the cards that ship: `fixtures/` in a checkout, package data in a wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "fixtures"
    return checkout if checkout.is_dir() else package / "fixtures"


def read_card(path: Path, kind: type[Card]) -> Card:
    """Read and validate one card.

    Raises:
        CardError: the file cannot be read, is not TOML, holds what nobody can see, or does not fit the card; names the
            file, each key path, what was found and what is allowed.

    """
    raw = read_toml(path, kind.__name__)
    try:
        card = kind.model_validate(raw)
    except ValidationError as error:
        raise CardError(_explain(path, kind, raw, error)) from error
    return _with_absolute_paths(card, path.parent)


def _explain(path: Path, kind: type[Strict], raw: Mapping[str, Any], error: ValidationError) -> str:
    lines = [f"{path}: not a valid {kind.__name__}"]
    for problem in error.errors(include_url=False):
        keys = [str(part) for part in problem["loc"] if not (part in _SOURCES and len(problem["loc"]) > 1)]
        found = problem.get("input")
        shown = "" if problem["type"] == "missing" or isinstance(found, dict) else f" (found: {_short(repr(found))})"
        allowed = _allowed_keys(kind, raw, problem["loc"]) if problem["type"] == "extra_forbidden" else ""
        lines.append(f"  {_short('.'.join(keys)) or '(card)'}: {_short(problem['msg'], 600)}{shown}{allowed}")
    return "\n".join(lines)


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _allowed_keys(kind: type[Strict], raw: Mapping[str, Any], location: tuple[int | str, ...]) -> str:
    """What may stand beside a key that may not: in a card, in a recipe's method, or in a table of that."""
    table: type[Strict] | None = kind if len(location) == 1 else None
    if kind is RecipeCard and len(location) > 1:
        method = raw[str(location[0])]
        table = of_kind = kind_named(method["kind"])
        if len(location) > 2:
            table = of_kind.table(str(location[1]), method) if of_kind else None
    return f"; allowed keys: {', '.join(table.model_fields)}" if table else ""


def _with_absolute_paths(card: Card, folder: Path) -> Card:
    """Paths inside a card are relative to the card."""
    if isinstance(card, RecipeCard):
        return card.model_copy(update={"method": _method_with_absolute_path(card.method, folder)})
    source = getattr(card, "source", None)
    if isinstance(source, DirectorySource | GgufSource | TextFile):
        return card.model_copy(update={"source": source.model_copy(update={"path": _absolute(folder, source.path)})})
    if isinstance(card, TaskCard) and card.task.endswith((".yaml", ".yml")):
        return card.model_copy(update={"task": _absolute(folder, card.task)})
    return card


def _method_with_absolute_path(method: Method, folder: Path) -> Method:
    source = getattr(method, "source", None)
    if not isinstance(source, DirectorySource | GgufSource):
        return method
    return method.model_copy(update={"source": source.model_copy(update={"path": _absolute(folder, source.path)})})


def _absolute(folder: Path, path: str) -> str:
    return os.path.realpath(folder / path)  # unlike `Path.resolve`, of a link to itself too


def recipe_from_argument(library: Library, argument: str) -> RecipeCard:
    """A recipe by card id or by the path of a card.

    Raises:
        CardError: neither a known id nor a file, or a card that does not fit the others.

    """
    if argument in library.recipes:
        return library.recipes[argument]
    path = Path(argument)
    if path.suffix == ".toml" or path.exists():
        card = read_card(path, RecipeCard)
        if card.id in library.recipes and card != library.recipes[card.id]:
            raise CardError(f"{path}: id: '{card.id}' is another recipe's; give yours an id of its own")
        check_references(replace(library, recipes={**library.recipes, card.id: card}))
        return card
    raise CardError(
        f"recipe '{argument}' is neither a card id nor a TOML file. Known ids: {', '.join(library.recipes)}"
    )


def load_library(extra: Sequence[Path] = ()) -> Library:
    """Read the built-in cards and those of `extra` directories, which may replace built-in ones of the same id.

    Each directory holds `models/ recipes/ corpora/ tasks/ gates/ tiers/ waivers/`, any of which may be missing.

    Raises:
        CardError: a directory does not exist or holds cards where nobody looks for them, a card is bad, two cards of
            one directory share an id, a card names another that does not exist, or a package adds kinds that cannot
            be imported.

    """
    load_foreign_kinds()
    shelves: dict[str, dict[str, Any]] = {name: {} for name in _FOLDERS}
    for directory in (builtin_cards(), *extra):
        check_directory(directory, _FOLDERS)
        for name, kind in _FOLDERS.items():
            shelves[name].update(_read_shelf(directory / name, kind))
    library = Library(**shelves)
    check_references(library)
    return library


def _read_shelf(folder: Path, kind: type[Strict]) -> dict[str, Strict]:
    cards: dict[str, Strict] = {}
    where: dict[str, Path] = {}
    for path in cards_in(folder):
        card = read_card(path, kind)
        identifier = str(card.id)  # type: ignore[attr-defined]
        if identifier in cards:
            raise CardError(f"{path}: id: '{identifier}' is taken by {where[identifier]}")
        cards[identifier], where[identifier] = card, path
    return cards
