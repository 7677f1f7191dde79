"""GGUF files: which files make a model, their blocks, and single scalars."""

from __future__ import annotations

from superweight.artefact.gguf.model_files import GgufModel, models_in, open_model
from superweight.artefact.gguf.reader import GgufReader

__all__ = ["GgufModel", "GgufReader", "models_in", "open_model"]
