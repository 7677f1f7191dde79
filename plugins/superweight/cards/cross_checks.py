"""Cards against each other: whatever one card names is there, and no two claim the same place."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from superweight.cards.gate import is_pattern
from superweight.cards.gate_kinds import GATE_KINDS, INTEGRITY_KINDS, GateKind, gate_kind
from superweight.cards.library import Library
from superweight.cards.tier import TierCard
from superweight.errors import CardError
from superweight.ids import CellId, GateId


def check_references(library: Library) -> None:
    """Check every card against the others.

    Raises:
        CardError: a card names another that does not exist; there is not one baseline; the gate of some place is
            missing or claimed twice.

    """

    def check(owner: str, key: str, name: str, shelf: Mapping[str, Any]) -> None:
        if name != "*" and name not in shelf:
            raise CardError(f"{owner}: {key}: '{name}' is not a known id. Known: {', '.join(shelf)}")

    _one_of_each("recipes", "role = 'baseline'", [c.id for c in library.recipes.values() if c.role == "baseline"])
    for model in library.models.values():
        for recipe in model.recipes:
            check(f"model card '{model.id}'", "recipes", recipe, library.recipes)
    for card in library.recipes.values():
        if card.method.only_model:
            check(f"recipe card '{card.id}'", "method.model", card.method.only_model, library.models)
        if card.beside:
            check(f"recipe card '{card.id}'", "beside", card.beside, library.recipes)
        for key, method in (("method", card.method), ("stand_in", card.stand_in)):
            if method is not None and method.calibration is not None:
                corpus = method.calibration.corpus
                check(f"recipe card '{card.id}'", f"{key}: corpus of calibration", corpus, library.corpora)
    for tier in library.tiers.values():
        owner = f"tier card '{tier.id}'"
        for key, names, shelf in (
            ("models", tier.models, library.models),
            ("recipes", tier.recipes, library.recipes),
            ("perplexity.corpus", [entry.corpus for entry in tier.perplexity], library.corpora),
            ("tasks.task", [entry.task for entry in tier.tasks], library.tasks),
        ):
            for name in names:
                check(owner, key, name, shelf)
        _check_required(library, tier)
    _check_gates(library)
    _check_waivers(library)


def _check_required(library: Library, tier: TierCard) -> None:
    """A required cell that the tier never measures would make every run red."""
    for cell in tier.required:
        models = library.models if "*" in tier.models else tier.models
        recipes = [name for name, card in library.recipes.items() if tier.measures(card)]
        model, recipe = CellId.parse(cell) if "/" in cell else (None, cell)
        for key, name, measured in (("models", model, models), ("recipes", recipe, recipes)):
            if name is not None and name not in measured:
                raise CardError(
                    f"tier card '{tier.id}': required: '{cell}': '{name}' is not one of the tier's {key}. "
                    f"Known: {', '.join(measured)}"
                )


def _check_gates(library: Library) -> None:
    for name, kind in GATE_KINDS.items():
        everywhere = [card.id for card in library.gates.values() if card.kind == name and not card.specificity]
        what = f"kind = '{name}' and neither models, recipes nor of"
        _one_of_each("gates", what, everywhere, optional=not kind.required)
    for card in library.gates.values():
        data = _data(library, gate_kind(card.kind))
        for key, scope, shelf in (
            ("models", card.models, library.models),
            ("recipes", card.recipes, library.recipes),
            ("of", card.of, data),
        ):
            for name in scope:
                _check_pattern(f"gate card '{card.id}'", key, name, shelf, free=key != "of")
    library.book.check(library.models, library.recipes, library.corpora, library.tasks)


def _data(library: Library, kind: GateKind) -> Mapping[str, Any]:
    """What a kind of gate is asked of."""
    return library.corpora if kind.of == "corpus" else library.tasks


def _check_waivers(library: Library) -> None:
    gates = [kind for kind in INTEGRITY_KINDS if kind != "measurement"]
    for name, kind in GATE_KINDS.items():
        gates += [str(GateId(name, of)) for of in _data(library, kind)]
    for card in library.waivers.values():
        owner = f"waiver card '{card.id}'"
        _check_pattern(owner, "model", card.model, library.models, free=True)
        _check_pattern(owner, "recipe", card.recipe, library.recipes, free=True)
        _check_pattern(owner, "gate", card.gate, gates, free=False)


def _check_pattern(owner: str, key: str, name: str, known: Collection[str], *, free: bool) -> None:
    """A name must be known, or a typing error would quietly make its card apply to nothing.

    Args:
        owner: the card, for the message.
        key: its key, likewise.
        name: an id, or a pattern with wildcards.
        known: ids.
        free: a pattern need not match a known id; models and recipes may be named on the command line, without cards.

    """
    if is_pattern(name) and (free or any(fnmatchcase(one, name) for one in known)):
        return
    if name not in known:
        problem = "matches no known id" if is_pattern(name) else "is not a known id"
        raise CardError(f"{owner}: {key}: '{name}' {problem}. Known: {', '.join(known)}")


def _one_of_each(folder: str, what: str, found: Sequence[str], *, optional: bool = False) -> None:
    if len(found) > 1 or not (found or optional):
        listed = ", ".join(f"'{name}'" for name in found) or "none"
        raise CardError(
            f"{folder}: {'at most' if optional else 'exactly'} one card must have {what}, found {listed}. "
            "To replace the built-in one, give yours its id."
        )
