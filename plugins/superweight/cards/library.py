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
    path = Path(argument).expanduser()
    source: DirectorySource | GgufSource | HubSource
    if path.is_dir():
        source = DirectorySource(kind="directory", path=str(path.resolve()))
        name = path.resolve().name
    elif path.suffix == ".gguf":
        source = GgufSource(kind="gguf", path=str(path.resolve()))
        name = path.stem
    elif argument.count("/") == 1 and not argument.startswith((".", "/", "~")):
        repository, _, revision = argument.partition("@")
        source = HubSource(kind="hub", repository=repository, revision=revision or "main")
        name = repository
    else:
        raise CardError(
            f"model '{argument}' is neither a card id, a directory that exists, a .gguf file nor a hub id "
            f"(organisation/name or organisation/name@revision). Known ids: {', '.join(known)}"
        )
    return ModelCard(id=slug(name), title=argument, source=source, known=False)
