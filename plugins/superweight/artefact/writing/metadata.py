"""What an artefact says of itself: the recipe, what it was made from, its super weights, and the tools that made it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from superweight.cards.base import Coordinate
from superweight.cards.recipe import RecipeCard
from superweight.checkpoint.files import Checkpoint

FILE = "superweight.json"
SCHEMA = 1
_TOOLS = ("pytest-superweight", "torch", "transformers", "safetensors", "compressed-tensors", "gguf", "numpy")


def tools() -> dict[str, str]:
    """Versions of everything that had a hand in it."""
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def public_origin(checkpoint: Checkpoint) -> str:
    """Where a checkpoint came from, without the paths of the machine that it lies on."""
    if checkpoint.origin.startswith("directory "):
        return f"directory {checkpoint.directory.name}"
    kind, _, rest = checkpoint.origin.partition(" ")
    return f"gguf {rest.rpartition('/')[2]}" if kind == "gguf" else checkpoint.origin


def recipe_facts(card: RecipeCard) -> dict[str, Any]:
    """The recipe with its parameters, JSON-ready."""
    parameters = {name: _plain(value) for name, value in card.method.model_dump(mode="python").items()}
    return {"id": card.id, "title": card.title, "method": parameters}


def identity(checkpoint: Checkpoint, recipe: Mapping[str, Any], super_weights: Sequence[Coordinate], plan: Any) -> str:
    """sha256 over all that decides what is written: other inputs are another artefact."""
    decisive = {
        "source": checkpoint.content_hash,
        "recipe": recipe["method"],
        "super_weights": sorted(list(one.key) for one in set(super_weights)),
        "plan": plan,
        "tools": tools(),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def header_metadata(checkpoint: Checkpoint, recipe: Mapping[str, Any], identity: str) -> dict[str, str]:
    """`__metadata__` of every file; `format` is what transformers looks for."""
    about = {"recipe": recipe, "source": checkpoint.content_hash, "identity": identity, "tools": tools()}
    return {"format": "pt", "superweight": json.dumps(about, sort_keys=True)}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value
