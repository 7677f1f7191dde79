"""Lists of super weights: from a card, from a file, as coordinate → status."""

from __future__ import annotations

import math
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


def values_of(card: ModelCard) -> dict[Coordinate, float]:
    """What a card says their values are, where it does."""
    return {weight.coordinate: weight.value for weight in card.super_weights if weight.value is not None}


def of_file(path: Path) -> dict[Coordinate, str]:
    """Those of a JSON file: `{"super_weights": [{"layer": 2, "row": 507, "column": 90}, …]}`.

    `superweight detect --json` writes such a file; weights with the status `inert` are left out.

    Raises:
        InfraError: it cannot be read (`not-found`, `corrupt`), or lists nothing (`corrupt`, `not-applicable`).
    """
    found = listed_weights(_entries(path), str(path))
    if not found:
        raise InfraError(f"{path} lists only inert weights: there is nothing to check.", reason="not-applicable")
    return found


def values_of_file(path: Path) -> dict[Coordinate, float]:
    """What such a file says their values are, where it does; errors as `of_file`."""
    entries = [entry for entry in _entries(path) if isinstance(entry, Mapping)]
    said = [(entry, entry.get("value")) for entry in entries]
    return {
        _coordinate(entry, str(path)): float(value)
        for entry, value in said
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _entries(path: Path) -> list[Any]:
    if not path.is_file():
        raise InfraError(f"{path} does not exist. Correct the path.", reason="not-found")
    listed = read_json(path).get("super_weights")
    if not isinstance(listed, list) or not listed:
        raise InfraError(
            f"{path} should list super weights under 'super_weights', as superweight detect --json does.",
            reason="corrupt",
        )
    return listed


def listed_weights(listed: list[Any], where: str) -> dict[Coordinate, str]:
    """Those of a list of plain data; errors as `of_file`."""
    found: dict[Coordinate, str] = {}
    for entry in listed:
        coordinate = _coordinate(entry, where)
        status = str(entry.get("status", "listed"))
        if status != "inert":
            found[coordinate] = status
    return found


def _coordinate(entry: Any, where: str) -> Coordinate:
    try:
        return Coordinate.model_validate({name: entry.get(name) for name in _FIELDS})
    except (AttributeError, ValueError) as error:
        raise InfraError(
            f"{where}: an entry is no object with layer, row, column and perhaps expert, whole numbers from 0: {entry}",
            reason="corrupt",
        ) from error
