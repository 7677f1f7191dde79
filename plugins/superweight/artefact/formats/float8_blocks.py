"""float8 with a scale for each block of rows and columns, `quant_method: fp8`, as DeepSeek and Qwen ship it."""

from __future__ import annotations

import math

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, decoded_to, on_floats
from superweight.artefact.numbers import TORCH, rounded
from superweight.forward.runner import CannotTell

_SCALE = "weight_scale_inv"
_FLOATS = ("F32", "BF16", "F16")
_EXPONENTS = ("U8", "F8_E8M0")


class Float8Blocks:
    """`weight` in float8 times `weight_scale_inv`, in float32, rounded to the scale's dtype, else to bfloat16."""

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there is such a scale, and the settings say fp8."""
        return artefact.method == "fp8" and _SCALE in artefact.leaves.get(module, {})

    def describe(self, artefact: Artefact, module: str) -> str:
        """The blocks."""
        block = _block(artefact, module)
        return "float8" if isinstance(block, CannotTell) else f"float8, blocks of {block[0]} × {block[1]}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code times the scale of its block."""
        block = _block(artefact, place.module)
        if isinstance(block, CannotTell):
            return block
        weight = artefact.leaves[place.module]["weight"]
        if place.row >= weight.shape[0] or place.column >= weight.shape[1]:
            return CannotTell(f"[{place.row}, {place.column}] lies outside {place.module} of shape {weight.shape}")
        scale, dtype = _scale(artefact, place, block)
        code = artefact.number(f"{place.module}.weight", place.row, place.column)
        exact = on_floats(lambda other: other * scale, code, TORCH[weight.dtype], dtype)
        return decoded_to(exact, rounded(rounded(exact.value, "float32"), dtype))


def _block(artefact: Artefact, module: str) -> tuple[int, int] | CannotTell:
    """Rows and columns that share a scale: as the settings say, which the grid of scales has to bear out."""
    here = artefact.leaves[module]
    codes, scales = here.get("weight"), here[_SCALE]
    if set(here) - {"weight", "bias", _SCALE} or codes is None or codes.dtype not in ("F8_E4M3", "F8_E5M2"):
        return CannotTell(f"{module} holds {', '.join(sorted(here))}, which is no float8 in blocks")
    if scales.dtype not in (*_FLOATS, *_EXPONENTS) or len(codes.shape) != 2:
        return CannotTell(f"{module} of shape {codes.shape} has scales in {scales.dtype}")
    if math.prod(scales.shape) == 1:
        return codes.shape[0], codes.shape[1]
    said = artefact.settings.get("weight_block_size")
    if not isinstance(said, list) or len(said) != 2 or not all(type(side) is int and side > 0 for side in said):
        return CannotTell(f"config.json does not say how large the blocks of {module} are (weight_block_size)")
    expected = tuple(-(-size // side) for size, side in zip(codes.shape, said, strict=True))
    if scales.shape != expected:
        return CannotTell(f"expected scales of shape {expected} for {module} of {codes.shape}, found {scales.shape}")
    return said[0], said[1]


def _scale(artefact: Artefact, place: Place, block: tuple[int, int]) -> tuple[float, str]:
    """The scale of a place, and the dtype of what it yields."""
    name = f"{place.module}.{_SCALE}"
    info = artefact.tensors[name]
    at = (place.row // block[0], place.column // block[1])
    index = at if math.prod(info.shape) > 1 else (0,) * len(info.shape)
    if info.dtype in _EXPONENTS:
        return 2.0 ** (artefact.integer(name, *index) - 127), "bfloat16"
    return artefact.number(name, *index), TORCH[info.dtype]
