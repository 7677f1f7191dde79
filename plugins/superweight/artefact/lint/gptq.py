"""Rules on GPTQ and AWQ: labels that disagree, zero points that belong to another version, the order of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.formats.awq import AwqLayout, awq_label, awq_layout, named_awq
from superweight.artefact.formats.gptq import GptqLayout, gptq_layout
from superweight.artefact.formats.packed_words import WORD, unpacked, words_of
from superweight.artefact.formats.packing_settings import settings_of
from superweight.artefact.lint.packed import some
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.checkpoint.shards import read_json
from superweight.forward.runner import CannotTell

_BESIDE = ("quantize_config.json", "quant_config.json")
"""Files that gptqmodel reads before config.json, and transformers never."""

_COPIES = ("quantization_config.json",)
"""Files that no loader of these formats reads while config.json has the settings."""

Array = np.ndarray[Any, Any]


def _versions(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None or artefact.method != "gptq":
        return
    said = dict(_labels(artefact))
    if len(set(said.values())) > 1:
        told = ", ".join(f"{where} {found}" for where, found in said.items())
        yield Fault(
            f"{artefact.path.name}: format",
            f"expected one label; found {told}. transformers obeys config.json, gptqmodel quantize_config.json",
            "Find out by the zero points which one is right, and correct the other; until then loaders disagree.",
        )


def _labels(artefact: Artefact) -> Iterator[tuple[str, str]]:
    """Every label: where it is, and what it says; a file of settings without one says `gptq`."""
    for name, settings in _settings(artefact).items():
        keys = [key for key in ("checkpoint_format", "format") if settings.get(key)]
        for key in keys:
            yield f"{name} ({key})", str(settings[key]).lower()
        if not keys and name not in _COPIES:
            yield f"{name} (says nothing)", "gptq"


def _settings(artefact: Artefact) -> dict[str, Mapping[str, Any]]:
    """The settings in each file that has some, config.json first."""
    found = {name: read_json(artefact.path / name) for name in _BESIDE + _COPIES if (artefact.path / name).is_file()}
    own = artefact.config.get("quantization_config")
    return {**({"config.json": own} if isinstance(own, dict) else {}), **found}


def _zero_points(subject: Subject) -> Iterator[Fault]:
    """Symmetric codes have their zero point in the middle; another one that all share is another version's."""
    off: dict[str, list[str]] = {}
    for artefact, name in some(subject, "qzeros"):
        module = name.removesuffix(".qzeros")
        settings = settings_of(artefact, module)
        values = _true_zeros(artefact, module)
        if settings.symmetric and values is not None and (values != settings.middle).any():
            off.setdefault(_told(values, settings.middle), []).append(name)
    for found, names in off.items():
        more = f", and {len(names) - 1} more of those that were looked at" if len(names) > 1 else ""
        yield Fault(
            f"{names[0]}{more}",
            found,
            "Correct the label, or write the file again; kernels that take the middle for granted hide the fault.",
        )


def _told(values: Array, middle: int) -> str:
    expected = f"expected the zero point {middle} everywhere, as the settings say symmetric; found"
    if (values != values.flat[0]).any():
        return f"{expected} {int((values != middle).sum())} of {values.size} elsewhere"
    off = int(values.flat[0]) - middle
    other = {-1: ": version 1's under the label of version 2", 1: ": version 2's under the label of version 1"}
    return f"{expected} {middle + off}, which moves every weight by {abs(off)} times its scale{other.get(off, '')}"


def _true_zeros(artefact: Artefact, module: str) -> Array | None:
    """Zero points as the label makes them, `(groups, rows)`; None where the layout is not known."""
    stored, layout = _stored_zeros(artefact, module)
    if stored is None:
        return None
    return stored + 1 if isinstance(layout, GptqLayout) and layout.version == "v1" else stored


def _stored_zeros(artefact: Artefact, module: str) -> tuple[Array | None, GptqLayout | AwqLayout | CannotTell]:
    awq = named_awq(artefact.settings)
    layout = awq_layout(artefact, module) if awq else gptq_layout(artefact, module)
    if isinstance(layout, CannotTell):
        return None, layout
    words = words_of(artefact, f"{module}.qzeros")
    if awq and awq_label(artefact.settings) == "gemv":
        return unpacked(words, layout.bits, layout.groups).T, layout
    return unpacked(words, layout.bits, layout.rows), layout  # of GEMM, eight rows are interleaved


def _overflow(subject: Subject) -> Iterator[Fault]:
    for artefact, name in some(subject, "qzeros"):
        stored, layout = _stored_zeros(artefact, name.removesuffix(".qzeros"))
        if stored is None or not isinstance(layout, GptqLayout) or layout.version == "v2":
            continue
        most = (1 << layout.bits) - 1
        if bad := int((stored == most).sum()):
            carries = " and carries one into the next row" if WORD % layout.bits == 0 else ""
            yield Fault(
                f"{artefact.tensors[name].file.name}: {name}",
                f"expected zero points below {most}, as version 1 stores them less one; found {bad} of {stored.size} "
                f"at it, which gptqmodel reads as 0{carries}, and other loaders as {most + 1}",
                "Write the file as version 2 (gptq_v2), which has no such hole.",
            )


def _groups(subject: Subject) -> Iterator[Fault]:
    for artefact, name in some(subject, "g_idx"):
        layout = gptq_layout(artefact, name.removesuffix(".g_idx"))
        if isinstance(layout, CannotTell):
            continue
        groups = words_of(artefact, name)
        outside = int(((groups < 0) | (groups >= layout.groups)).sum())
        where = f"{artefact.tensors[name].file.name}: {name}"
        if outside:
            found = f"expected groups 0 to {layout.groups - 1}; found {outside} of {groups.size} columns outside"
            yield Fault(where, found, "Write the file again; a negative group counts from the end in some loaders.")
        elif not _even(groups, layout):
            found = f"expected {layout.group_size} columns in every group, found others"
            yield Fault(where, found, "Write the file again; the settings or g_idx are another file's.")


def _even(groups: Array, layout: GptqLayout) -> bool:
    """Whether every group has its columns, but for one that has what is left."""
    left = layout.columns - layout.group_size * (layout.groups - 1)
    expected = sorted([layout.group_size] * (layout.groups - 1) + [left])
    return sorted(np.bincount(groups, minlength=layout.groups).tolist()) == expected


def _order(subject: Subject) -> Iterator[Fault]:
    for artefact, name in some(subject, "g_idx"):
        module = name.removesuffix(".g_idx")
        layout = gptq_layout(artefact, module)
        if isinstance(layout, CannotTell) or settings_of(artefact, module).ordered:
            continue
        natural = np.arange(layout.columns) // layout.group_size
        if moved := int((words_of(artefact, name) != natural).sum()):
            yield Fault(
                f"{artefact.tensors[name].file.name}: {name}",
                f"expected columns in their own order, as desc_act is not set; found {moved} of {layout.columns} in "
                "other groups",
                "Set desc_act, or write the file again; kernels that trust the settings do not read g_idx.",
            )


def _exceptions(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None or artefact.method != "gptq" or not artefact.settings.get("dynamic"):
        return
    yield Fault(
        f"{artefact.path.name}: dynamic",
        "expected settings that every loader reads; found exceptions, which gptqmodel obeys and transformers does not: "
        "it packs those modules like all others, and leaves what it does not find unfilled",
        "Serve the file with a loader that reads dynamic.",
    )


RULES = (
    Rule(
        "gptq-version-disagrees",
        "Loaders read different files, and versions differ by one step of every weight.",
        "error",
        _versions,
    ),
    Rule(
        "gptq-zero-points",
        "Zero points of another version than the label move every weight by a step of its scale.",
        "error",
        _zero_points,
    ),
    Rule(
        "gptq-zero-overflow",
        "Version 1 cannot hold a zero point of zero: loaders read other weights, in the next row too.",
        "warning",
        _overflow,
    ),
    Rule("gptq-group-index", "A column in a group that is not there takes another group's scale.", "error", _groups),
    Rule(
        "gptq-order-unsaid",
        "Kernels that trust desc_act take every column's scale from the wrong group.",
        "error",
        _order,
    ),
    Rule(
        "gptq-dynamic",
        "Not every loader reads exceptions from dynamic; one that does not leaves those modules unfilled.",
        "warning",
        _exceptions,
    ),
)
