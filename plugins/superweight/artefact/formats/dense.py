"""Matrices that are stored as plain numbers."""

from __future__ import annotations

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place
from superweight.artefact.numbers import TORCH, gaps
from superweight.forward.runner import CannotTell

_PLAIN = ("F64", "F32", "F16", "BF16")
_INPUT_MAJOR = {
    "matrix": ("gpt2", "imagegpt", "openai-gpt", "decision_transformer"),  # transformers' Conv1D
    "experts": ("gpt_oss", "llama4", "llama4_text"),
}
"""Model types that store `(in, out)`; asked only where the shape does not say."""


class Dense:
    """`module.weight` in a floating-point dtype, `(out, in)` or `(in, out)`; or the experts of a layer one by one."""

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there is such a tensor of floats, and nothing beside it but a bias."""
        info = artefact.tensors.get(_name(artefact, module))
        return info is not None and info.dtype in _PLAIN and not _accompanied(artefact, module)

    def describe(self, artefact: Artefact, module: str) -> str:
        """The dtype."""
        return TORCH[artefact.tensors[_name(artefact, module)].dtype]

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The number itself."""
        name = _name(artefact, place.module)
        info = artefact.tensors[name]
        lead = () if place.expert is None else (place.expert,)
        if len(info.shape) != 2 + len(lead):
            return CannotTell(
                f"{name} is {'no matrix' if not lead else 'no stack of matrices'}: its shape is {info.shape}"
            )
        input_major = _input_major(artefact, name, info.shape[-2:], stacked=bool(lead))
        if isinstance(input_major, CannotTell):
            return input_major
        index = (*lead, *((place.column, place.row) if input_major else (place.row, place.column)))
        if any(at >= size for at, size in zip(index, info.shape, strict=True)):
            return CannotTell(f"[{place.row}, {place.column}] lies outside {name} of shape {info.shape}")
        value, dtype = artefact.number(name, *index), TORCH[info.dtype]
        lower, upper = gaps(value, dtype)
        return Decoded(value, dtype, min(lower, upper), "", lower, upper)


def plain_shape(artefact: Artefact, module: str, *, stacked: bool = False) -> tuple[int, int] | None:
    """Rows and columns of a plain matrix, however it is stored; None if that cannot be told."""
    info = artefact.tensors.get(_name(artefact, module))
    if info is None or info.dtype not in _PLAIN or len(info.shape) != 2 + stacked:
        return None
    input_major = _input_major(artefact, _name(artefact, module), info.shape[-2:], stacked=stacked)
    if isinstance(input_major, CannotTell):
        return None
    a, b = info.shape[-2:]
    return (b, a) if input_major else (a, b)


def _name(artefact: Artefact, module: str) -> str:
    return f"{module}.weight" if f"{module}.weight" in artefact.tensors else module


def _accompanied(artefact: Artefact, module: str) -> bool:
    """Whether something else belongs to the module, which may change what its weights are."""
    here = set(artefact.leaves.get(module, ())) - {"weight", "bias"}
    parent, _, leaf = module.rpartition(".")
    beside = [
        name for name in artefact.leaves.get(parent, ()) if name.startswith(f"{leaf}_") and name != f"{leaf}_bias"
    ]
    return bool(here or beside) or artefact.nests(module)


def _input_major(artefact: Artefact, name: str, shape: tuple[int, ...], *, stacked: bool) -> bool | CannotTell:
    """Whether a down projection is stored `(in, out)`: its output is as wide as the residual stream."""
    hidden, kind = artefact.hidden_size, artefact.text_config.get("model_type")
    by_type = kind in _INPUT_MAJOR["experts" if stacked else "matrix"]
    if hidden is None:
        if stacked or name.endswith("c_proj.weight"):
            return CannotTell(
                f"config.json does not say how wide the model is, so {name} may be stored either way round"
            )
        return by_type
    if hidden not in shape:
        return CannotTell(f"{name} is {shape}; a down projection of this model has {hidden} rows")
    if shape[0] != shape[1]:
        return shape[1] == hidden
    if stacked and not by_type:
        return CannotTell(f"the experts of {name} are square, so they may be stored either way round")
    return by_type
