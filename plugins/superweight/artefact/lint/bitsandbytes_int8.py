"""Rules on bitsandbytes in 8 bits: LLM.int8() without its scales, or with another matrix's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.lint.rule import Fault, Rule, Subject

_MOST = 64  # empty rows of a matrix that are looked into
_AGAIN = "Quantise again, and save with save_pretrained of the quantised model."


def _missing(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _int8(subject):
        if f"{module}.SCB" not in artefact.tensors:
            found = f"int8 codes are there; expected their scales {module}.SCB, found none"
            yield Fault(_where(artefact, f"{module}.weight"), found, _AGAIN)


def _rows(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _int8(subject):
        scales, rows = artefact.tensors.get(f"{module}.SCB"), artefact.tensors[f"{module}.weight"].shape[:1]
        if scales is not None and (scales.shape != rows or scales.dtype != "F32"):
            found = f"expected F32 {rows}, a scale a row; found {scales.dtype} {scales.shape}"
            yield Fault(_where(artefact, f"{module}.SCB"), found, _AGAIN)
        form = f"{module}.weight_format"
        if form in artefact.tensors and artefact.numbers(form).any():
            found = "expected 0, codes row by row; found another, which loaders ignore"
            yield Fault(_where(artefact, form), found, "Save again with a bitsandbytes that writes rows.")


def _config(subject: Subject) -> Iterator[Fault]:
    for artefact, module in list(_int8(subject))[:1]:
        if not artefact.settings.get("load_in_8bit"):
            found = f"{module} is stored as int8 with SCB; config.json does not say load_in_8bit"
            yield Fault("config.json: quantization_config", found, "Write the settings of the tool that saved it.")


def _zero_rows(subject: Subject) -> Iterator[Fault]:
    scales = [f"{module}.SCB" for artefact, module in _int8(subject) if f"{module}.SCB" in artefact.tensors]
    for name in subject.some(scales):
        artefact, codes = subject.artefact, f"{name.removesuffix('.SCB')}.weight"
        if (
            artefact is None
            or name not in artefact.tensors
            or artefact.tensors[name].shape != artefact.raw(codes).shape[:1]
        ):
            continue
        empty = [int(row) for row in np.flatnonzero(artefact.numbers(name) == 0)[:_MOST]]
        row = next((row for row in empty if artefact.line(codes, row, slice(None)).any()), None)
        if row is not None:
            found = f"the scale of row {row} is zero over other codes than zero: its weights are erased"
            yield Fault(_where(artefact, name), found, _AGAIN)


def _int8(subject: Subject) -> Iterator[tuple[Artefact, str]]:
    """Modules of int8 that are bitsandbytes': by their scales, or by the settings."""
    artefact = subject.artefact
    if artefact is None:
        return
    for name in [name for name, info in artefact.tensors.items() if name.endswith(".weight") and info.dtype == "I8"]:
        module = name.removesuffix(".weight")
        if f"{module}.SCB" in artefact.tensors or artefact.settings.get("load_in_8bit"):
            yield artefact, module


def _where(artefact: Artefact, name: str) -> str:
    return f"{artefact.tensors[name].file.name}: {name}"


RULES = (
    Rule("bnb-scb-missing", "int8 codes without their scales are nothing.", "error", _missing),
    Rule("bnb-scb", "LLM.int8() has one float32 scale for each row, and codes row by row.", "error", _rows),
    Rule("bnb-config-8bit", "A loader makes modules by config.json, which must say 8 bits.", "error", _config),
    Rule("bnb-scb-zero", "A scale of zero over a row of other codes than zero erases it.", "error", _zero_rows),
)
