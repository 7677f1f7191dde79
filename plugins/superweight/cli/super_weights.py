"""Which super weights a command is about: those of the model's card, of a file, or of detection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from superweight.cli.common import say
from superweight.errors import InfraError

if TYPE_CHECKING:
    from superweight.cards import ModelCard
    from superweight.cards.base import Coordinate


class KnownSuperWeights(NamedTuple):
    """Super weights → status, their values where the list has them, and who names them."""

    found: dict[Coordinate, str]
    values: dict[Coordinate, float]
    named_by: str


def known_super_weights(asked: str | None, card: ModelCard, *, detect_by_default: bool = True) -> KnownSuperWeights:
    """The super weights of a model.

    Args:
        asked: `card`, `detect` or the path of a JSON file; None takes the card's and, if it has none, detection's.
        card: the uncompressed model's.
        detect_by_default: whether detection runs without being asked for.

    Returns:
        none only where the card has none and detection is neither asked for nor the default.

    Raises:
        InfraError: the card names none, or detection finds none (`not-applicable`); the file cannot be used.
    """
    from superweight.artefact.super_weight_list import of_card, of_file, values_of, values_of_file

    if asked is None and not of_card(card) and not detect_by_default:
        return KnownSuperWeights({}, {}, "nobody")
    asked = asked or ("card" if of_card(card) else "detect")
    if asked == "card":
        if not of_card(card):
            raise InfraError(
                f"the card of {card.id} names no super weights. Give --super-weights detect, or a file.",
                reason="not-applicable",
            )
        return KnownSuperWeights(of_card(card), values_of(card), "card")
    if asked != "detect":
        return KnownSuperWeights(of_file(Path(asked)), values_of_file(Path(asked)), asked)
    return KnownSuperWeights(_detected(card), {}, "detection")


def _detected(card: ModelCard) -> dict[Coordinate, str]:
    from superweight.checkpoint import Cache, load_model, resolve
    from superweight.detect import detect

    loaded = load_model(resolve(card.source, Cache()), compute_dtype=card.compute_dtype)
    found = detect(loaded, known=card.super_weights, progress=say).found
    if not found:
        raise InfraError(f"detection finds no super weight in {card.id}: nothing to check", reason="not-applicable")
    return {weight.coordinate: weight.status for weight in found}
