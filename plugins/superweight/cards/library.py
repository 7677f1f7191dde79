"""All cards at hand, each by its id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from superweight.cards.base import slug
from superweight.cards.corpus import CorpusCard
from superweight.cards.gate import GateCard
from superweight.cards.gate_book import GateBook
from superweight.cards.methods import Artefact
from superweight.cards.model import ModelCard
from superweight.cards.recipe import RecipeCard
from superweight.cards.source import DirectorySource, GgufSource, HubSource
from superweight.cards.task import TaskCard
from superweight.cards.tier import TierCard
from superweight.cards.waiver import WaiverCard
from superweight.errors import CardError


@dataclass(frozen=True)
class Library:
    """Every card by id."""

    models: Mapping[str, ModelCard] = field(default_factory=dict)
    recipes: Mapping[str, RecipeCard] = field(default_factory=dict)
    corpora: Mapping[str, CorpusCard] = field(default_factory=dict)
    tasks: Mapping[str, TaskCard] = field(default_factory=dict)
    gates: Mapping[str, GateCard] = field(default_factory=dict)
    tiers: Mapping[str, TierCard] = field(default_factory=dict)
    waivers: Mapping[str, WaiverCard] = field(default_factory=dict)

    @property
    def book(self) -> GateBook:
        """The gate cards and waivers, looked up by what they apply to."""
        return GateBook.of(self.gates.values(), self.waivers.values())

    def model(self, argument: str) -> ModelCard:
        """A model by card id, or an ad-hoc card for a directory, a `.gguf` file or a hub id (`name[@revision]`)."""
        if argument in self.models:
            return self.models[argument]
        card = model_from_argument(argument, self.models)
        if card.id in self.models:  # a directory that happens to be called like a card
            digest = hashlib.sha256(str(card.source).encode()).hexdigest()[:8]
            card = card.model_copy(update={"id": f"{card.id}-{digest}"})
        return card


def model_from_argument(argument: str, known: Iterable[str] = ()) -> ModelCard:
    """A model card made from a path or a hub id, with nothing claimed about its super weights.

    Raises:
        CardError: the argument is no directory, no `.gguf` file and no hub id.

    """
    found = source_from_argument(argument)
    if found is None:
        raise CardError(
            f"model '{argument}' is neither a card id, a directory that exists, a .gguf file nor a hub id "
            f"(organisation/name or organisation/name@revision). Known ids: {', '.join(known)}"
        )
    source, name = found
    return ModelCard(id=slug(name), title=argument, source=source, known=False)


def recipes_of_artefacts(arguments: Iterable[str], known: Iterable[str] = ()) -> list[RecipeCard]:
    """Candidates made from paths or hub ids of compressed checkpoints; each has an id of its own.

    Args:
        arguments: directories, `.gguf` files, hub ids (`name[@revision]`).
        known: ids that are taken.

    Raises:
        CardError: an argument is none of these.

    """
    made: dict[str, RecipeCard] = {}
    for argument in dict.fromkeys(arguments):
        card = _recipe_of_artefact(argument)
        if card.id in {*made, *known}:
            digest = hashlib.sha256(str(card.method).encode()).hexdigest()[:8]
            card = card.model_copy(update={"id": f"{card.id[:71]}-{digest}"})
        made[card.id] = card
    return list(made.values())


def _recipe_of_artefact(argument: str) -> RecipeCard:
    found = source_from_argument(argument)
    if found is None:
        raise CardError(
            f"artefact '{argument}' is neither a directory that exists, a .gguf file nor a hub id (organisation/name "
            "or organisation/name@revision)."
        )
    source, name = found
    method = Artefact(kind="artefact", source=source)
    return RecipeCard(id=slug(name), title=argument, role="candidate", method=method)


def source_from_argument(argument: str) -> tuple[DirectorySource | GgufSource | HubSource, str] | None:
    """Where a checkpoint lies, and what to call it; None for what is no directory, no `.gguf` file and no hub id."""
    path = Path(argument).expanduser()
    if path.is_dir():
        return DirectorySource(kind="directory", path=str(path.resolve())), path.resolve().name
    if path.suffix == ".gguf":
        return GgufSource(kind="gguf", path=str(path.resolve())), path.stem
    if argument.count("/") == 1 and not argument.startswith((".", "/", "~")):
        repository, _, revision = argument.partition("@")
        return HubSource(kind="hub", repository=repository, revision=revision or "main"), repository
    return None
