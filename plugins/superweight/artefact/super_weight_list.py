"""Lists of super weights: from a card, from a file, as coordinate → status."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from superweight.cards.base import Coordinate
from superweight.cards.model import ModelCard
from superweight.checkpoint.shards import read_json
from superweight.errors import InfraError

_FIELDS = ("layer", "expert", "row", "column")


def of_card(card: ModelCard) -> dict[Coordinate, str]:
    """Those that a model card names, but for those that it calls inert."""
    return {weight.coordinate: weight.status for weight in card.super_weights if weight.status != "inert"}


def of_file(path: Path) -> dict[Coordinate, str]:
    """Those of a JSON file: `{"super_weights": [{"layer": 2, "row": 507, "column": 90}, …]}`.

    `superweight detect --json` writes such a file; weights with the status `inert` are left out.

    Raises:
        InfraError: it cannot be read (`not-found`, `corrupt`), or lists nothing (`corrupt`).
    """
    if not path.is_file():
        raise InfraError(f"{path} does not exist. Correct the path.", reason="not-found")
    listed = read_json(path).get("super_weights")
    if not isinstance(listed, list) or not listed:
        raise InfraError(
            f"{path} should list super weights under 'super_weights', as superweight detect --json does.",
            reason="corrupt",
        )
    return listed_weights(listed, str(path))


def listed_weights(listed: list[Any], where: str) -> dict[Coordinate, str]:
    """Those of a list of plain data; errors as `of_file`."""
    found: dict[Coordinate, str] = {}
    for number, entry in enumerate(listed):
        if not isinstance(entry, Mapping):
            raise InfraError(f"{where}: entry {number} is no object with layer, row and column", reason="corrupt")
        try:
            coordinate = Coordinate.model_validate({name: entry.get(name) for name in _FIELDS})
        except ValueError as error:
            raise InfraError(
                f"{where}: entry {number} is no coordinate (layer, row, column and perhaps expert, whole numbers from "
                f"0): {entry}",
                reason="corrupt",
            ) from error
        status = str(entry.get("status", "listed"))
        if status != "inert":
            found[coordinate] = status
    return found
