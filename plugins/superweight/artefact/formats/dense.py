"""Matrices that are stored as plain numbers."""

from __future__ import annotations

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place
from superweight.artefact.numbers import TORCH, gaps
from superweight.forward.runner import CannotTell

_PLAIN = ("F64", "F32", "F16", "BF16")
_INPUT_MAJOR = ("gpt2", "gptj_conv1d", "imagegpt", "openai-gpt", "decision_transformer")
"""Model types whose linear layers are transformers' Conv1D, stored `(in, out)`."""


class Dense:
    """`module.weight` in a floating-point dtype, `(out, in)`, or as the model type stores it."""

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there is such a tensor of floats, and nothing that scales it."""
        info = artefact.tensors.get(_name(artefact, module))
        return info is not None and info.dtype in _PLAIN and not _scaled(artefact, module)

    def describe(self, artefact: Artefact, module: str) -> str:
        """The dtype."""
        return TORCH[artefact.tensors[_name(artefact, module)].dtype]

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The number itself."""
        name = _name(artefact, place.module)
        info = artefact.tensors[name]
        if place.expert is not None:
            return CannotTell(f"{name} holds the experts of a layer in one tensor, whose layout its name does not say")
        if len(info.shape) != 2:
            return CannotTell(f"{name} is no matrix: its shape is {info.shape}")
        input_major = artefact.config.get("model_type") in _INPUT_MAJOR
        index = (place.column, place.row) if input_major else (place.row, place.column)
        if any(at >= size for at, size in zip(index, info.shape, strict=True)):
            return CannotTell(f"[{place.row}, {place.column}] lies outside {name} of shape {info.shape}")
        value, dtype = artefact.number(name, *index), TORCH[info.dtype]
        lower, upper = gaps(value, dtype)
        return Decoded(value, dtype, min(lower, upper), "", lower, upper)


def _name(artefact: Artefact, module: str) -> str:
    return f"{module}.weight" if f"{module}.weight" in artefact.tensors else module


def _scaled(artefact: Artefact, module: str) -> bool:
    return any(f"{module}.{leaf}" in artefact.tensors for leaf in ("weight_scale", "weight_scale_inv", "SCB"))
