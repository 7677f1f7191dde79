"""The experts of a layer in floats of 4 bits, `quant_method: mxfp4`, as gpt-oss is shipped."""

from __future__ import annotations

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, decoded_to, on_grid
from superweight.artefact.formats.compressed_tensors.codes import float_of_code, floats
from superweight.artefact.numbers import rounded
from superweight.forward.runner import CannotTell

_WIDTH = 32  # columns that share a scale, two a byte


class Mxfp4Experts:
    """`down_proj_blocks`, bytes `(experts, rows, groups, 16)`; `down_proj_scales`, exponents `(experts, rows, groups)`.

    The first of two codes lies in the low half of a byte; a code times a power of two is a bfloat16.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there are both, and the settings say mxfp4."""
        parts = f"{module}_blocks", f"{module}_scales"
        return artefact.method == "mxfp4" and all(name in artefact.tensors for name in parts)

    def describe(self, artefact: Artefact, module: str) -> str:
        """The format."""
        return f"MXFP4, groups of {_WIDTH}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code times its power of two."""
        shape = _scales_shape(artefact, place.module)
        if isinstance(shape, CannotTell):
            return shape
        group, within = divmod(place.column, _WIDTH)
        at = (-1 if place.expert is None else place.expert, place.row, group)
        if not all(0 <= one < size for one, size in zip(at, shape, strict=True)):
            return CannotTell(f"[{place.row}, {place.column}] of expert {place.expert} lies outside {place.module}")
        code = artefact.integer(f"{place.module}_blocks", *at, within // 2) >> 4 * (within % 2) & 15
        power = 2.0 ** (artefact.integer(f"{place.module}_scales", *at) - 127)
        number, every = float_of_code(code, 4), floats(4)
        words, end = f"{number:g} as float4", len(every) - 1
        exact = on_grid(lambda other: every[other] * power, every.index(number), 0, end, "bfloat16", words)
        return decoded_to(exact, rounded(exact.value, "bfloat16"))


def _scales_shape(artefact: Artefact, module: str) -> tuple[int, ...] | CannotTell:
    """`(experts, rows, groups)`, if codes and scales belong together."""
    blocks, scales = (artefact.tensors[f"{module}_{part}"] for part in ("blocks", "scales"))
    if blocks.dtype == scales.dtype == "U8" and len(scales.shape) == 3 and blocks.shape == (*scales.shape, _WIDTH // 2):
        return scales.shape
    found = f"blocks {blocks.dtype} {blocks.shape}, scales {scales.dtype} {scales.shape}"
    return CannotTell(f"{module} has {found}, which do not belong together")
