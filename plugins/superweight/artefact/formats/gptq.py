"""GPTQ, version 1 and 2, and auto-round's format of the same layout: codes packed along the columns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, on_grid
from superweight.artefact.formats.packed_words import WORD, stored_code, words_for
from superweight.artefact.formats.packing_settings import PackingSettings, settings_of
from superweight.artefact.numbers import TORCH, rounded
from superweight.forward.runner import CannotTell

LABELS = ("gptq", "gptq_v2", "gptq_p")
"""Names of the format in `format` and `checkpoint_format`: zero points less one, as they are, and codes in planes."""

Version = Literal["v1", "v2"]

PACKINGS: Mapping[str, Version] = {
    "auto_round:auto_gptq": "v1",
    "auto_round:gptq": "v1",
    "auto": "v1",
    "auto_round": "v2",
    "auto_round:gptqmodel": "v2",
}
"""What auto-round calls layouts with GPTQ's words, in `packing_format`; one that says nothing means the first."""

_STRADDLING = 3  # bits of codes that `gptq_p` spreads over planes, where `gptq` lets them straddle words
_DEFAULT_GROUP = 128  # what transformers and gptqmodel take where nothing is said


@dataclass(frozen=True)
class GptqLayout:
    """How a module's matrix is stored.

    Attributes:
        version: v1 stores zero points less one, v2 as they are.
        bits: of a code.
        rows: output channels.
        columns: input channels.
        groups: of columns, each with a scale and a zero point a row.
        group_size: columns of a group.
        ordered: whether `g_idx` says which group a column is in; else they follow each other.
    """

    version: Version
    bits: int
    rows: int
    columns: int
    groups: int
    group_size: int
    ordered: bool


class Gptq:
    """`qweight` `(columns × bits / 32, rows)`, `qzeros` `(groups, rows × bits / 32)`, `scales` `(groups, rows)`.

    `g_idx` `(columns,)` says which group a column is in, if it is there. The value is the code less the zero point,
    times the scale, in the scale's dtype. Which version it is only a label says, and the label that counts is the one
    that transformers obeys: config.json's.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there are codes and scales, and nothing says or shows that they are AWQ's."""
        names = artefact.tensors
        return f"{module}.qweight" in names and f"{module}.scales" in names

    def describe(self, artefact: Artefact, module: str) -> str:
        """Version, bits, groups and symmetry."""
        found = gptq_layout(artefact, module)
        if isinstance(found, CannotTell):
            return "GPTQ of an unknown layout"
        sides = {True: ", symmetric", False: ", asymmetric", None: ""}[settings_of(artefact, module).symmetric]
        groups = "a scale a row" if found.groups == 1 else f"groups of {found.group_size}"
        return f"GPTQ {found.version}, {found.bits} bits, {groups}{sides}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code less the zero point, times the scale."""
        layout = gptq_layout(artefact, place.module)
        if isinstance(layout, CannotTell):
            return layout
        if place.row >= layout.rows or place.column >= layout.columns:
            shape = f"({layout.rows}, {layout.columns})"
            return CannotTell(f"[{place.row}, {place.column}] lies outside {place.module} of shape {shape}")
        group = _group(artefact, place, layout)
        if isinstance(group, CannotTell):
            return group
        zero = _zero_point(artefact, place, group, layout)
        if isinstance(zero, CannotTell):
            return zero
        codes, scales = f"{place.module}.qweight", f"{place.module}.scales"
        code = stored_code(artefact, codes, place.column, layout.bits, lambda word: (word, place.row))
        scale, dtype = artefact.number(scales, group, place.row), TORCH[artefact.tensors[scales].dtype]
        most = (1 << layout.bits) - 1
        words = f"{code} of 0 to {most}, zero {zero}"
        return on_grid(lambda one: rounded((one - zero) * scale + 0.0, dtype), code, 0, most, dtype, words)


def gptq_layout(artefact: Artefact, module: str) -> GptqLayout | CannotTell:
    """How a module is stored, by its settings; says why, where its tensors are not what those ask for."""
    settings = settings_of(artefact, module)
    version = gptq_version(artefact.settings)
    if isinstance(version, CannotTell):
        return version
    if settings.excluded:
        return CannotTell(f"the settings say that {module} is not quantised, and the file holds {module}.qweight")
    if settings.bits is None or settings.bits not in _bits(artefact.settings):
        return CannotTell(f"the settings do not say how many bits the codes of {module} have: {settings.bits}")
    if label(artefact.settings) == "gptq_p" and settings.bits == _STRADDLING:
        return CannotTell(f"{module}: planes of {settings.bits}-bit codes (gptq_p) are not read here")
    return _fitting(artefact, module, settings, version)


def gptq_version(settings: Mapping[str, Any]) -> Version | CannotTell:
    """Which version the settings say; where they say nothing, it is version 1 to every loader."""
    method = str(settings.get("quant_method") or "gptq")
    if method == "auto-round":
        packing = str(settings.get("packing_format") or "auto")
        return PACKINGS.get(packing) or CannotTell(f"packing_format {packing!r} is not known here")
    if method != "gptq":
        return CannotTell(f"quant_method {method!r} has tensors named like GPTQ's, whose layout is not known here")
    said = label(settings)
    if said not in LABELS:
        return CannotTell(f"format {said!r} is not known here; expected one of {', '.join(LABELS)}")
    return "v1" if said == "gptq" else "v2"


def label(settings: Mapping[str, Any]) -> str:
    """The name of the format, as transformers reads config.json: `checkpoint_format` before `format`."""
    return str(settings.get("checkpoint_format") or settings.get("format") or "gptq").lower()


def _bits(settings: Mapping[str, Any]) -> tuple[int, ...]:
    return (2, 3, 4, 5, 6, 7, 8) if settings.get("quant_method") == "auto-round" else (2, 3, 4, 8)


def _fitting(artefact: Artefact, module: str, settings: PackingSettings, version: Version) -> GptqLayout | CannotTell:
    """The layout that the settings ask for, if every tensor has its shape and dtype."""
    layout = asked_layout(artefact, module, settings, version)
    wrong = next(misfits(artefact, module, layout), None)
    if wrong is not None:
        return CannotTell(wrong)
    if settings.ordered and not layout.ordered and layout.groups > 1:
        return CannotTell(
            f"desc_act says that the columns of {module} were grouped in another order; no g_idx says which"
        )
    return layout


def asked_layout(artefact: Artefact, module: str, settings: PackingSettings, version: Version) -> GptqLayout:
    """The layout that the settings ask for, whether or not the tensors fit."""
    bits, order = settings.bits or 1, artefact.tensors.get(f"{module}.g_idx")
    words, rows = (*artefact.tensors[f"{module}.qweight"].shape, 0, 0)[:2]
    columns = words * WORD // bits if order is None else math.prod(order.shape)
    asked = _DEFAULT_GROUP if settings.group_size is None else settings.group_size
    size = asked if asked > 0 else max(columns, 1)
    return GptqLayout(version, bits, rows, columns, -(-columns // size), size, order is not None)


def misfits(artefact: Artefact, module: str, layout: GptqLayout) -> Iterator[str]:
    """What of a module's tensors is missing or not as the layout asks."""
    expected = {
        "qweight": (("I32",), (words_for(layout.columns, layout.bits), layout.rows)),
        "qzeros": (("I32",), (layout.groups, words_for(layout.rows, layout.bits))),
        "scales": (("F16", "BF16", "F32"), (layout.groups, layout.rows)),
        **({"g_idx": (("I32", "I64"), (layout.columns,))} if layout.ordered else {}),
    }
    if not layout.columns or not layout.rows:
        yield f"{module} holds no codes"
    for leaf, (dtypes, shape) in expected.items():
        yield from misfit(artefact, f"{module}.{leaf}", dtypes, shape, f"{layout.bits} bits")


def misfit(artefact: Artefact, name: str, dtypes: tuple[str, ...], shape: tuple[int, ...], why: str) -> Iterator[str]:
    """Why a tensor cannot be what its format asks for; nothing if it can."""
    info = artefact.tensors.get(name)
    if info is None:
        yield f"{name} is missing"
    elif tuple(info.shape) != shape or info.dtype not in dtypes:
        yield f"{name} should be {' or '.join(dtypes)} of shape {shape} for {why}, found {info.dtype} of {info.shape}"


def _group(artefact: Artefact, place: Place, layout: GptqLayout) -> int | CannotTell:
    if not layout.ordered:
        return place.column // layout.group_size
    name = f"{place.module}.g_idx"
    group = artefact.integer(name, place.column)
    if 0 <= group < layout.groups:
        return group
    return CannotTell(f"{name}[{place.column}] is {group}, and there are groups 0 to {layout.groups - 1}")


def _zero_point(artefact: Artefact, place: Place, group: int, layout: GptqLayout) -> int | CannotTell:
    """The zero point. Version 1 stores it less one; where a field overflows when it comes back, loaders differ.

    gptqmodel adds one to all fields of a word at once, so that the largest becomes zero and carries into the next;
    where fields straddle words it drops the carry; auto-round's kernels make it 2^bits.
    """
    name, bits = f"{place.module}.qzeros", layout.bits
    stored = stored_code(artefact, name, place.row, bits, lambda word: (group, word))
    if layout.version == "v2":
        return stored
    zero = stored + 1
    if zero >> bits or (WORD % bits == 0 and _carried(artefact, name, place.row, group, bits) != zero):
        return CannotTell(
            f"{name}[{group}] stores {(1 << bits) - 1} beside or at row {place.row}, which version 1 cannot hold: "
            "some loaders read zero and carry one into the next row, others do not"
        )
    return zero


def _carried(artefact: Artefact, name: str, row: int, group: int, bits: int) -> int:
    """The field after one was added to every field of its word at once."""
    word, shift = divmod(row * bits, WORD)
    ones = sum(1 << at for at in range(0, WORD, bits))
    return (((artefact.integer(name, group, word) & 0xFFFFFFFF) + ones) >> shift) & ((1 << bits) - 1)
