"""What a loaded model really multiplies with: its runtime's own decoding of a scalar, or a unit vector sent through."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from superweight.artefact.numbers import spacing
from superweight.checkpoint.architecture import LinearWeight
from superweight.checkpoint.loading import LoadedModel
from superweight.forward.language_model import is_plain_matrix
from superweight.forward.runner import CannotTell, Scalar
from superweight.measure.reference import as_scalar
from superweight.plain_text import briefly


class Effective(NamedTuple):
    """A scalar as the runtime uses it.

    Attributes:
        scalar: the number.
        how: how it was found out.
        rounding: how much of it may be rounding on the way, absolute.
    """

    scalar: Scalar
    how: str
    rounding: float


def effective(
    loaded: LoadedModel, weight: LinearWeight, row: int, column: int, expert: int | None, *, rounds: bool
) -> Effective | CannotTell:
    """One scalar of a matrix of a loaded compressed model.

    Args:
        loaded: the compressed model.
        weight: the same matrix of the uncompressed model, which says how it is called and laid out.
        row: output channel.
        column: input channel.
        expert: of a mixture.
        rounds: whether activations are rounded, so that what goes through the module is not what was sent.
    """
    module_name, _, leaf = weight.name.rpartition(".")
    try:
        module = loaded.model.get_submodule(module_name)
    except AttributeError:
        return CannotTell(f"the loaded model has no module {module_name}")
    own = getattr(module, leaf, None)
    if own is not None and _is_plain(module, own, weight):
        scalar = replace(weight, parameter=own, module=module).matrix(expert)[row, column]
        return _found(scalar, f"{weight.name}, plain numbers")
    if expert is not None:
        return CannotTell(f"{module_name} is a {type(module).__name__}, whose experts cannot be looked at one by one")
    if rounds:
        return _decoded(own, weight, row, column) or _probed(module, loaded, weight, row, column, rounds=True)
    return _probed(module, loaded, weight, row, column, rounds=False)


def _is_plain(module: nn.Module, own: Any, weight: LinearWeight) -> bool:
    """Whether the parameter is the matrix itself, and is all that the module multiplies with."""
    if not isinstance(own, torch.Tensor) or own.shape != weight.parameter.shape:
        return False
    plain = type(own) in (torch.Tensor, nn.Parameter) and own.is_floating_point() and own.element_size() > 1
    untouched = "forward" not in vars(module) and not module._forward_hooks and not module._forward_pre_hooks
    return plain and untouched and type(module) is type(weight.module)


def _decoded(own: Any, weight: LinearWeight, row: int, column: int) -> Effective | None:
    """By the weight's own decoding: numbers that were decoded already, or a class that decodes itself."""
    if not isinstance(own, torch.Tensor) or own.shape != weight.parameter.shape:
        return None
    matrix = own if is_plain_matrix(own) else _dequantised(own)
    if matrix is None or matrix.shape != own.shape:
        return None
    scalar = (matrix.T if weight.transposed else matrix)[row, column]
    return _found(scalar, f"{weight.name}, decoded by {type(own).__name__}, since activations are rounded")


def _dequantised(own: torch.Tensor) -> torch.Tensor | None:
    """The decoding that a class of a quantiser's own has; torch's would hand back codes as if they were numbers."""
    if type(own).dequantize is torch.Tensor.dequantize:
        return None
    try:
        with torch.no_grad():
            found: Any = own.dequantize()
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return None
    return found if type(found) is torch.Tensor and found.is_floating_point() else None


def _probed(
    module: nn.Module, loaded: LoadedModel, weight: LinearWeight, row: int, column: int, *, rounds: bool
) -> Effective | CannotTell:
    """By a vector that is one in the column and zero elsewhere, less what the module gives for zeros."""
    unit = torch.zeros(1, 1, weight.shape[1], dtype=loaded.compute_dtype, device=loaded.device)
    unit[..., column] = 1
    try:
        with torch.no_grad():
            answer = module(unit)
            bias = module(torch.zeros_like(unit)) if getattr(module, "bias", None) is not None else None
    except Exception as error:
        return CannotTell(f"{type(module).__name__} does not take a vector by itself ({briefly(error)})")
    if not isinstance(answer, torch.Tensor) or answer.shape[-1] != weight.shape[0]:
        return CannotTell(f"{type(module).__name__} gives no vector of {weight.shape[0]} channels")
    scalar, largest = answer.flatten()[row], answer.flatten()[row].abs()
    if bias is not None:
        scalar, largest = scalar - bias.flatten()[row], torch.maximum(largest, bias.flatten()[row].abs())
    how = f"a unit vector through {weight.name.rpartition('.')[0]} ({type(module).__name__})"
    return _found(scalar, f"{how}, whose activations are rounded" if rounds else how, largest)


def _found(scalar: torch.Tensor, how: str, largest: torch.Tensor | None = None) -> Effective:
    plain = as_scalar(scalar.detach())
    magnitude = abs(plain.value) if largest is None else max(abs(plain.value), float(largest))
    return Effective(plain, how, spacing(magnitude, plain.dtype) if math.isfinite(magnitude) else 0.0)
