"""The plan of a run: its cells, and the gates that are asked of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from superweight.cards import (
    Cell,
    Library,
    ModelCard,
    RecipeCard,
    TierCard,
    TierPerplexity,
    TierTask,
    cells,
    recipe_from_argument,
    recipes_of_artefacts,
)
from superweight.cards.gate_kinds import kinds_from, kinds_of
from superweight.errors import CardError
from superweight.ids import CellId, GateId
from superweight.tiers import LADDER

if TYPE_CHECKING:
    from superweight.gate.settings import Settings

Card = TypeVar("Card", ModelCard, RecipeCard)
Entry = TierPerplexity | TierTask


class RequestedGate(NamedTuple):
    """A gate that is asked of a cell."""

    cell: str
    """`model/recipe`."""
    gate: str = ""
    """`perplexity:wiki`, `zero-shot:piqa`; empty for the cell itself."""


def gate_name(entry: Entry) -> str:
    """The gate of one measurement of a tier: `perplexity:wiki`, `zero-shot:piqa`."""
    if isinstance(entry, TierPerplexity):
        return str(GateId("perplexity", entry.corpus))
    return str(GateId("zero-shot", entry.task))


@dataclass(frozen=True)
class Plan:
    """What one run is about.

    Attributes:
        library: all cards.
        tier: what is measured.
        cells: every cell that may be asked for, model by model, each model's baseline first.
        requested_gates: what is asked for; a gate that is asked for and not measured makes the run INFRA.
    """

    library: Library
    tier: TierCard
    cells: tuple[Cell, ...]
    requested_gates: frozenset[RequestedGate] = frozenset()

    @classmethod
    def of(
        cls, library: Library, settings: Settings, *, words: Collection[str] = (), model_ids: Collection[str] = ()
    ) -> Plan:
        """The plan that asks everything that the tier measures, of every cell.

        Args:
            library: all cards.
            settings: the tier, and the models and recipes that replace the tier's.
            words: parts of cell ids or of test ids, in lower case; models outside the tier that one of them names join
                the tier's, unless the word names one inside it.
            model_ids: models that join the tier's.

        Raises:
            CardError: a tier, model or recipe that does not exist, or two gate cards that compete for one gate.

        """
        if settings.tier not in library.tiers:
            raise CardError(f"there is no tier '{settings.tier}': expected one of {', '.join(library.tiers)}")
        tier = library.tiers[settings.tier]
        models = _distinct(_models(settings, library, tier, words, model_ids))
        recipes = _distinct(_recipes(settings, library, tier))
        library.book.check(
            [card.id for card in models],
            [card.id for card in recipes],
            [entry.corpus for entry in tier.perplexity],
            [entry.task for entry in tier.tasks],
        )
        plan = cls(library, tier, tuple(cells(library, models, recipes)))
        gates = ["", *map(gate_name, plan.entries)]
        return plan.asking(RequestedGate(cell.id, gate) for cell in plan.cells for gate in gates)

    def asking(self, gates: Iterable[RequestedGate]) -> Plan:
        """The same cells, asked for these gates alone."""
        return replace(self, requested_gates=frozenset(gates))

    def asking_also(self, gates: Iterable[RequestedGate]) -> Plan:
        """The same cells, asked for these gates too."""
        return self.asking(self.requested_gates.union(gates))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every measurement of the tier."""
        return (*self.tier.perplexity, *self.tier.tasks)

    @cached_property
    def cell_by_id(self) -> Mapping[str, Cell]:
        """Every cell by `model/recipe`, in order."""
        return {cell.id: cell for cell in self.cells}

    @cached_property
    def requested_models(self) -> frozenset[str]:
        """Ids of the models that something is asked of."""
        return frozenset(CellId.parse(requested.cell).model for requested in self.requested_gates)

    @cached_property
    def requested_candidates(self) -> frozenset[str]:
        """Ids of the candidates that something is asked of."""
        return frozenset(cell for cell, _ in self.requested_gates if self.role(cell) == "candidate")

    def role(self, cell_id: str) -> str:
        """A cell's role, empty if it is not of this plan."""
        cell = self.cell_by_id.get(cell_id)
        return "" if cell is None else cell.role

    def planned_entries(self, model_id: str) -> list[Entry]:
        """The measurements that some cell of a model is asked for, and so its baseline as well."""
        gates = {gate for cell, gate in self.requested_gates if CellId.parse(cell).model == model_id}
        return [entry for entry in self.entries if gate_name(entry) in gates]

    @cached_property
    def quality_gates(self) -> Mapping[str, int]:
        """How many gates that can be wrong by chance each cell but a baseline is asked, by cell id."""
        counts: dict[str, int] = {}
        for cell, gate in self.requested_gates:
            counts[cell] = counts.get(cell, 0) + self._quality_cards(cell, gate)
        everything = len(self.entries)  # what a control is asked in one test
        return {
            cell: max(count, everything) if self.role(cell) == "control" else count
            for cell, count in counts.items()
            if self.role(cell) != "baseline"
        }

    def _quality_cards(self, cell_id: str, gate: str) -> int:
        stage, of = GateId.parse(gate)
        cards = [self.library.book.gate(kind.name, *CellId.parse(cell_id), of) for kind in kinds_from(stage)]
        return sum(card is not None for card in cards)


def tier_recipes(library: Library, tier: TierCard) -> list[RecipeCard]:
    """The recipes of a tier."""
    return [card for card in library.recipes.values() if tier.measures(card)]


def tier_sizes(tiers: Mapping[str, TierCard]) -> dict[str, dict[str, int | None]]:
    """Windows or items of each gate by tier, smaller tiers first; None for all there are."""
    sizes: dict[str, dict[str, int | None]] = {}
    for name in LADDER:
        for corpus in tiers[name].perplexity:
            for kind in kinds_of("corpus"):
                sizes.setdefault(str(GateId(kind.name, corpus.corpus)), {})[name] = corpus.windows
        for task in tiers[name].tasks:
            for kind in kinds_of("task"):
                sizes.setdefault(str(GateId(kind.name, task.task)), {})[name] = task.limit
    return sizes


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


def _models(
    settings: Settings, library: Library, tier: TierCard, words: Collection[str], model_ids: Collection[str]
) -> list[ModelCard]:
    if settings.models:
        return [library.model(argument) for argument in settings.models]
    chosen = [name for name in library.models if "*" in tier.models or name in tier.models]
    others = [name for name in library.models if name not in chosen]
    joining = _named(words, chosen, others).union(model_ids)
    return [library.models[name] for name in [*chosen, *(name for name in others if name in joining)]]


def _named(words: Iterable[str], chosen: Sequence[str], others: Sequence[str]) -> set[str]:
    """Models outside the tier that a word names, unless the word names one inside it."""
    fresh = [word for word in words if not any(word in name for name in chosen)]
    parts = [word.split("/")[0].strip("[]") for word in fresh if word.strip("[]/")]
    return {name for name in others if any(part in name for part in parts)}


def _recipes(settings: Settings, library: Library, tier: TierCard) -> list[RecipeCard]:
    chosen = [recipe_from_argument(library, argument) for argument in settings.recipes]
    if not settings.artefacts:
        return chosen or tier_recipes(library, tier)
    if len(settings.models) != 1:
        found = f"found {len(settings.models)}" if settings.models else "found none"
        raise CardError(
            f"artefact '{settings.artefacts[0]}' needs its reference, the uncompressed model that it was made from: "
            f"expected one --superweight-model REFERENCE, {found}."
        )
    return chosen + recipes_of_artefacts(settings.artefacts, [*library.recipes, *(card.id for card in chosen)])
