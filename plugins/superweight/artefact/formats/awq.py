"""AWQ: codes packed along the rows in an interleaved order (GEMM), or along the columns in plain order (GEMV)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, on_grid
from superweight.artefact.formats.gptq import misfit
from superweight.artefact.formats.packed_words import WORD, stored_code, words_for
from superweight.artefact.formats.packing_settings import PackingSettings, settings_of
from superweight.artefact.numbers import TORCH, rounded
from superweight.forward.runner import CannotTell

Packing = Literal["gemm", "gemv"]
KNOWN: Mapping[str, Packing] = {"gemm": "gemm", "gemv": "gemv"}
"""Packings that are read here, by their label."""

PACKINGS = ("auto_round:auto_awq", "auto_round:awq")
"""What auto-round calls the GEMM layout, in `packing_format`."""

ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where each of eight consecutive rows is among eight codes of the GEMM layout."""

_GEMV_WORDS = {64: 2, 128: 1}  # group size → words of zero points that a row's count is a multiple of, in its kernel
_DEFAULT_GROUP = 128


@dataclass(frozen=True)
class AwqLayout:
    """How a module's matrix is stored.

    Attributes:
        packing: `gemm` or `gemv`.
        bits: of a code.
        rows: output channels.
        columns: input channels.
        groups: of columns, each with a scale and a zero point a row.
        group_size: columns of a group.
    """

    packing: Packing
    bits: int
    rows: int
    columns: int
    groups: int
    group_size: int


class Awq:
    """`qweight`, `qzeros` and `scales`; the value is the code less the zero point, times the scale, in its dtype.

    GEMM: `(columns, rows × bits / 32)`, `(groups, rows × bits / 32)`, `(groups, rows)`, eight rows interleaved.
    GEMV: `(rows, columns / 8)`, `(rows, words)`, `(rows, words × 8)`, in plain order, padded to whole words.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there are codes and scales which the settings, or else the shapes, say to be AWQ's."""
        codes, scales = artefact.tensors.get(f"{module}.qweight"), artefact.tensors.get(f"{module}.scales")
        if codes is None or scales is None:
            return False
        if artefact.method:
            return named_awq(artefact.settings)
        return len(codes.shape) == 2 == len(scales.shape) and codes.shape[1] * 8 == scales.shape[1]

    def describe(self, artefact: Artefact, module: str) -> str:
        """Packing, bits, groups and symmetry."""
        found = awq_layout(artefact, module)
        if isinstance(found, CannotTell):
            return "AWQ of an unknown layout"
        sides = {True: ", symmetric", False: ", asymmetric", None: ""}[settings_of(artefact, module).symmetric]
        groups = "a scale a row" if found.groups == 1 else f"groups of {found.group_size}"
        return f"AWQ {found.packing.upper()}, {found.bits} bits, {groups}{sides}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code less the zero point, times the scale."""
        layout = awq_layout(artefact, place.module)
        if isinstance(layout, CannotTell):
            return layout
        if place.row >= layout.rows or place.column >= layout.columns:
            shape = f"({layout.rows}, {layout.columns})"
            return CannotTell(f"[{place.row}, {place.column}] lies outside {place.module} of shape {shape}")
        group, scales = place.column // layout.group_size, f"{place.module}.scales"
        code, zero = (_gemm if layout.packing == "gemm" else _gemv)(artefact, place, group, layout.bits)
        at = (group, place.row) if layout.packing == "gemm" else (place.row, group)
        scale, dtype = artefact.number(scales, *at), TORCH[artefact.tensors[scales].dtype]
        most = (1 << layout.bits) - 1
        words = f"{code} of 0 to {most}, zero {zero}"
        return on_grid(lambda one: rounded((one - zero) * scale + 0.0, dtype), code, 0, most, dtype, words)


def _gemm(artefact: Artefact, place: Place, group: int, bits: int) -> tuple[int, int]:
    """Code and zero point, both along the rows."""
    at = place.row // 8 * 8 + ORDER[place.row % 8]
    code = stored_code(artefact, f"{place.module}.qweight", at, bits, lambda word: (place.column, word))
    return code, stored_code(artefact, f"{place.module}.qzeros", at, bits, lambda word: (group, word))


def _gemv(artefact: Artefact, place: Place, group: int, bits: int) -> tuple[int, int]:
    """Code along the columns, zero point along the groups."""
    code = stored_code(artefact, f"{place.module}.qweight", place.column, bits, lambda word: (place.row, word))
    return code, stored_code(artefact, f"{place.module}.qzeros", group, bits, lambda word: (place.row, word))


def named_awq(settings: Mapping[str, Any]) -> bool:
    """Whether the settings say that it is AWQ, or auto-round in AWQ's layout."""
    if settings.get("quant_method") == "auto-round":
        return settings.get("packing_format") in PACKINGS
    return settings.get("quant_method") == "awq"


def awq_label(settings: Mapping[str, Any]) -> str:
    """The name of the packing, as transformers reads config.json: `version` before `format`."""
    if settings.get("quant_method") == "auto-round":
        return "gemm"
    if settings.get("backend") == "llm-awq":
        return "llm-awq"
    return str(settings.get("version") or settings.get("format") or "gemm").lower()


def awq_layout(artefact: Artefact, module: str) -> AwqLayout | CannotTell:
    """How a module is stored, by its settings; says why, where its tensors are not what those ask for."""
    settings, label = settings_of(artefact, module), awq_label(artefact.settings)
    packing = KNOWN.get(label)
    if settings.excluded:
        return CannotTell(f"the settings say that {module} is not quantised, and the file holds {module}.qweight")
    if packing is None:
        return CannotTell(f"{module}: AWQ's packing {label!r} is not known here; expected gemm or gemv")
    if settings.bits not in ((4, 5, 6, 7) if artefact.method == "auto-round" else (4,)):
        return CannotTell(f"{module}: AWQ packs 4 bits, and the settings say {settings.bits}")
    layout = asked_awq_layout(artefact, module, settings, packing)
    wrong = next(awq_misfits(artefact, module, layout), None)
    return layout if wrong is None else CannotTell(wrong)


def asked_awq_layout(artefact: Artefact, module: str, settings: PackingSettings, packing: Packing) -> AwqLayout:
    """The layout that the settings ask for, whether or not the tensors fit."""
    first, second = (*artefact.tensors[f"{module}.qweight"].shape, 0, 0)[:2]
    bits = settings.bits or 4
    columns, rows = (first, second * WORD // bits) if packing == "gemm" else (second * WORD // bits, first)
    asked = _DEFAULT_GROUP if settings.group_size is None else settings.group_size
    size = asked if asked > 0 else max(columns, 1)
    return AwqLayout(packing, bits, rows, columns, math.ceil(columns / size), size)


def awq_misfits(artefact: Artefact, module: str, layout: AwqLayout) -> Iterator[str]:
    """What of a module's tensors is missing or not as the layout asks."""
    if not layout.columns or not layout.rows:
        yield f"{module} holds no codes"
    if layout.columns % layout.group_size:
        yield f"groups of {layout.group_size} do not divide the {layout.columns} columns of {module}"
    if layout.packing == "gemv" and layout.group_size not in _GEMV_WORDS:
        yield f"{module}: GEMV has groups of 64 or 128, and the settings say {layout.group_size}"
    for leaf, (dtypes, shape) in _expected(layout).items():
        why = f"AWQ {layout.packing.upper()} of {layout.bits} bits"
        yield from misfit(artefact, f"{module}.{leaf}", dtypes, shape, why)


def _expected(layout: AwqLayout) -> dict[str, tuple[tuple[str, ...], tuple[int, ...]]]:
    floats = ("F16", "BF16", "F32")
    if layout.packing == "gemm":
        words = words_for(layout.rows, layout.bits)
        return {
            "qweight": (("I32",), (layout.columns, words)),
            "qzeros": (("I32",), (layout.groups, words)),
            "scales": (floats, (layout.groups, layout.rows)),
        }
    multiple = _GEMV_WORDS.get(layout.group_size, 1)
    words = math.ceil(words_for(layout.groups, layout.bits) / multiple) * multiple
    return {
        "qweight": (("I32",), (layout.rows, words_for(layout.columns, layout.bits))),
        "qzeros": (("I32",), (layout.rows, words)),
        "scales": (floats, (layout.rows, words * WORD // layout.bits)),
    }


def unpadded(artefact: Artefact, name: str, scales: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Scales without the zeros with which GEMV fills a row of words; those of other formats as they are."""
    module, _, leaf = name.rpartition(".")
    if leaf != "scales" or not Awq().holds(artefact, module):
        return scales
    layout = awq_layout(artefact, module)
    return scales[:, : layout.groups] if isinstance(layout, AwqLayout) and layout.packing == "gemv" else scales
