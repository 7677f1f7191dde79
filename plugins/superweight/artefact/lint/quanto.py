"""Rules on optimum-quanto, whose loader leaves uninitialised memory where the map and the tensors do not meet."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.formats.quanto import BITS, MAP, STORED, map_of, type_in
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.errors import InfraError

_MOST = 64  # empty rows of a matrix that are looked into
_AGAIN = "Save again by QuantizedModelForCausalLM.save_pretrained, map and tensors together."
_PLAIN, _PACKED = ".weight._data", ".weight._data._data"


def _map(subject: Subject) -> Iterator[Fault]:
    for artefact, _ in list(_modules(subject))[:1]:
        try:
            map_of(artefact)
        except InfraError as error:
            yield Fault(f"{artefact.path.name}: {MAP}", str(error), _AGAIN)


def _not_named(subject: Subject) -> Iterator[Fault]:
    for artefact, module, kind in _mapped(subject):
        if not kind:
            found = f"{MAP} does not name {module}: its weights are not loaded, and memory is taken as it comes"
            yield Fault(_where(artefact, module), found, _AGAIN)


def _absent(subject: Subject) -> Iterator[Fault]:
    for artefact, module, kind in _promised(subject):
        if not any(f"{module}{leaf}" in artefact.tensors for leaf in (_PLAIN, _PACKED, ".weight")):
            found = f"{MAP} says that {module} is {kind}; no tensor holds its weights"
            yield Fault(f"{artefact.path.name}: {MAP}", found, _AGAIN)


def _missing(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _modules(subject):
        leaves = ["_scale", *(["_shift"] if f"{module}{_PACKED}" in artefact.tensors else [])]
        for leaf in leaves:
            if f"{module}.weight.{leaf}" not in artefact.tensors:
                found = f"expected {module}.weight.{leaf}, found none: nothing of the weight is loaded then"
                yield Fault(_where(artefact, module), found, _AGAIN)


def _kind(subject: Subject) -> Iterator[Fault]:
    for artefact, module, kind in _mapped(subject):
        info = artefact.tensors[_codes(artefact, module)]
        packed = f"{module}{_PACKED}" in artefact.tensors
        if kind in STORED and (info.dtype != STORED[kind] or packed != (kind in BITS)):
            found = f"{MAP} says {kind}, which is stored as {STORED[kind]}; found {info.dtype}"
            yield Fault(_where(artefact, module), found, _AGAIN)


def _shape(subject: Subject) -> Iterator[Fault]:
    for artefact, module, kind in _mapped(subject):
        scale, shift = (artefact.tensors.get(f"{module}.weight.{leaf}") for leaf in ("_scale", "_shift"))
        if scale is None or kind not in STORED:
            continue
        codes, bits = artefact.tensors[_codes(artefact, module)].shape, BITS.get(kind, 8)
        if not _belong(codes, scale.shape, bits) or (shift is not None and shift.shape != scale.shape):
            shifts = f" and shifts of {shift.shape}" if shift is not None else ""
            found = f"scales of {scale.shape}{shifts} do not belong to {bits}-bit codes of {codes}"
            yield Fault(_where(artefact, module), found, _AGAIN)


def _belong(codes: tuple[int, ...], scales: tuple[int, ...], bits: int) -> bool:
    """Whether scales of a shape are those of packed codes of a shape: `bits / 8` bytes for each along the groups."""
    if scales == ():
        return codes[:1] == (1,)
    return len(codes) >= 2 and scales[1:] == (1,) * (len(scales) - 1) and codes[0] == -(-scales[0] * bits // 8)


def _unfrozen(subject: Subject) -> Iterator[Fault]:
    for artefact, module, kind in _promised(subject):
        if f"{module}.weight" in artefact.tensors:
            found = f"{MAP} says that {module} is {kind}; its weights are stored as they were, and rounded at each pass"
            yield Fault(f"{artefact.path.name}: {MAP}", found, "Freeze the model before it is saved.")


def _zero_scales(subject: Subject) -> Iterator[Fault]:
    whole = {
        f"{module}.weight._scale": module for artefact, module, _ in _mapped(subject)
        if f"{module}{_PLAIN}" in artefact.tensors and f"{module}.weight._scale" in artefact.tensors
    }  # fmt: skip
    for name in subject.some(whole):
        artefact = subject.artefact
        if artefact is not None and (row := _over_something(artefact, name, f"{whole[name]}{_PLAIN}")) is not None:
            found = f"the scale of row {row} is zero over codes of other numbers, or NaN: it is erased, or NaN"
            yield Fault(_where(artefact, whole[name]), found, "Leave the module out, or quantise it to integers.")


def _over_something(artefact: Artefact, scales: str, codes: str) -> int | None:
    """The first row with a scale of zero and codes of other numbers, or of NaN."""
    empty, shape = np.flatnonzero(artefact.numbers(scales).reshape(-1) == 0)[:_MOST], artefact.tensors[codes].shape
    rows = [int(row) for row in empty if len(shape) == 2 and row < shape[0]]
    return next((row for row in rows if (artefact.line(codes, row, slice(None)) != 0).any()), None)


def _modules(subject: Subject) -> Iterator[tuple[Artefact, str]]:
    """Modules with quanto's codes."""
    artefact = subject.artefact
    if artefact is None:
        return
    for name in artefact.tensors:
        for ending in (_PACKED, _PLAIN):
            if name.endswith(ending) and not name.removesuffix(ending).endswith(_PLAIN):
                yield artefact, name.removesuffix(ending)
                break


def _mapped(subject: Subject) -> Iterator[tuple[Artefact, str, str]]:
    """The same and their types, if there is a map that can be read; else that is `quanto-map`'s."""
    found = list(_modules(subject))
    try:
        known = map_of(found[0][0]) if found else {}
    except InfraError:
        return
    for artefact, module in found:
        yield artefact, module, type_in(known, module)


def _promised(subject: Subject) -> Iterator[tuple[Artefact, str, str]]:
    """Modules that the map names, and their types."""
    artefact = subject.artefact
    if artefact is None or not (artefact.path / MAP).is_file():
        return
    known = map_of(artefact)
    for module in known:
        if kind := type_in(known, module):
            yield artefact, module, kind


def _codes(artefact: Artefact, module: str) -> str:
    return f"{module}{_PACKED}" if f"{module}{_PACKED}" in artefact.tensors else f"{module}{_PLAIN}"


def _where(artefact: Artefact, module: str) -> str:
    name = _codes(artefact, module)
    return f"{artefact.tensors[name].file.name}: {name}"


RULES = (
    Rule("quanto-map", "Without its map quanto does not know what is quantised.", "error", _map),
    Rule("quanto-not-named", "Weights of a module that the map does not name are not loaded.", "error", _not_named),
    Rule("quanto-absent", "Weights that the map promises and no file holds stay uninitialised.", "error", _absent),
    Rule("quanto-missing", "Without every part of its weight a module stays uninitialised.", "error", _missing),
    Rule("quanto-type", "Codes of another type than the map's are read as what they are not.", "error", _kind),
    Rule("quanto-shape", "Scales of another grid scale other weights.", "error", _shape),
    Rule("quanto-unfrozen", "Weights that are rounded at each pass are not what the file holds.", "warning", _unfrozen),
    Rule("quanto-scale-zero", "A scale of zero erases what it scales; of float8, it gives NaN.", "error", _zero_scales),
)
