"""What compressed-tensors' settings say of a module and its tensors do not bear out, by names, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from superweight.artefact.container import Artefact
from superweight.artefact.formats.compressed_tensors.matrix import (
    matrix_shape,
    same_scales,
    scale_shape,
    unlike_settings,
)
from superweight.artefact.formats.compressed_tensors.scheme import LEAVES, Scheme, scheme_of
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell


class FormatFault(NamedTuple):
    """One thing that is wrong with a module.

    Attributes:
        rule: id of the rule of the format lint that it breaks.
        found: what was expected, and what was found.
    """

    rule: str
    found: str


def faults_of(artefact: Artefact, module: str) -> Iterator[FormatFault]:
    """Everything that is wrong with a module that has codes."""
    here = artefact.leaves[module]
    if not LEAVES & here.keys():
        return
    scheme = scheme_of(artefact, module)
    if scheme is None:
        yield FormatFault("metadata-disagrees", "config.json ignores it, or names it in no group, and it has codes")
    elif isinstance(scheme, CannotTell):
        yield FormatFault("metadata-disagrees", scheme.reason)
    elif gone := [leaf for leaf in _needed(artefact, module, scheme) if leaf not in here]:
        yield FormatFault("packed-tensor-missing", f"expected {', '.join(gone)}; found {', '.join(sorted(here))}")
    elif (reason := unlike_settings(artefact, module, scheme)) is not None:
        yield FormatFault("metadata-disagrees", reason)
    else:
        yield from _misshapen(artefact, module, scheme)


def _needed(artefact: Artefact, module: str, scheme: Scheme) -> list[str]:
    """Tensors that a module has to have."""
    packed = scheme.format.endswith("pack-quantized")
    codes = ["weight_packed"] if packed else ["weight"]
    shape = ["weight_shape"] if scheme.format == "pack-quantized" else []
    zeros = [] if scheme.symmetric else ["weight_zero_point"]
    whole = ["weight_global_scale"] if scheme.format.startswith("nvfp4") else []
    order = ["weight_g_idx"] if scheme.reordered else []
    return [*codes, "weight_scale", *shape, *zeros, *whole, *order]


def _misshapen(artefact: Artefact, module: str, scheme: Scheme) -> Iterator[FormatFault]:
    here = artefact.leaves[module]
    try:
        shape = matrix_shape(artefact, module, scheme)
    except InfraError as error:
        yield FormatFault("scale-shape", str(error))
        return
    expected = scale_shape(scheme, shape)
    if expected is None:
        yield FormatFault("metadata-disagrees", f"config.json does not say what shares a scale ({scheme.strategy})")
    elif not same_scales(here["weight_scale"].shape, expected):
        yield _scales_of_another(scheme, shape, expected, here["weight_scale"].shape)
    else:
        yield from _zeros(artefact, module, scheme)
    if "weight_g_idx" in here and not scheme.reordered:
        yield FormatFault("metadata-disagrees", "its columns are in another order, and config.json says no actorder")


def _scales_of_another(
    scheme: Scheme, shape: tuple[int, int], expected: tuple[int, int], found: tuple[int, ...]
) -> FormatFault:
    """Another grid than the settings say, where the scales fit the matrix; else of another matrix."""
    if len(found) == 2 and found[0] == expected[0] and found[1] and not shape[1] % found[1]:
        said = f"{scheme.strategy} {scheme.group_size}" if scheme.group_size else scheme.strategy
        return FormatFault("metadata-disagrees", f"config.json says {said}; a row has {found[1]} scales")
    return FormatFault("scale-shape", f"expected scales of shape {expected} for a matrix {shape}, found {found}")


def _zeros(artefact: Artefact, module: str, scheme: Scheme) -> Iterator[FormatFault]:
    here = artefact.leaves[module]
    zeros, scales = here.get("weight_zero_point"), here["weight_scale"].shape
    if zeros is None:
        return
    if scheme.symmetric:
        if artefact.numbers(f"{module}.weight_zero_point", 4096).any():
            yield FormatFault("metadata-disagrees", "config.json says that it is symmetric, and it has zero points")
        return
    packed = "weight_packed" in here and scheme.strategy in ("group", "channel")
    expected = (-(-scales[0] * scheme.bits // 32), *scales[1:]) if packed else scales
    if zeros.shape != expected:
        yield FormatFault("scale-shape", f"expected zero points of shape {expected}, found {zeros.shape}")
