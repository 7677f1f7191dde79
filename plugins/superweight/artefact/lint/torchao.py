"""Rules on torchao: metadata, classes and tensors that do not belong to each other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from superweight.artefact.container import Artefact, read_metadata
from superweight.artefact.formats.torchao import READ, Subclass, fits, ignores_zero_points, part, subclass_of
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.errors import InfraError

_CODES = re.compile(r"(?P<module>.+)\._(?P<parameter>\w+)_qdata")
_MADE = {
    "Int8WeightOnlyConfig": "Int8Tensor",
    "Int8DynamicActivationInt8WeightConfig": "Int8Tensor",
    "IntxWeightOnlyConfig": "IntxUnpackedToInt8Tensor",
    "Int8DynamicActivationIntxWeightConfig": "IntxUnpackedToInt8Tensor",
    "Float8WeightOnlyConfig": "Float8Tensor",
    "Float8DynamicActivationFloat8WeightConfig": "Float8Tensor",
}
"""Class that each configuration makes of weights."""
_AGAIN = "Quantise again, and save with save_pretrained of the quantised model."
_SAMPLE = 1 << 16


def _metadata(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None:
        return
    named = _named(artefact)
    for name in artefact.tensors:
        if (match := _CODES.fullmatch(name)) is None:
            continue
        parameter = f"{match['module']}.{match['parameter']}"
        if parameter not in artefact.metadata:
            yield Fault(
                _where(artefact, name), f"expected the class of {parameter} in the metadata, found none", _AGAIN
            )
        elif parameter not in named:
            found = f"the metadata lists in tensor_names what a loader puts together; {parameter} is not among it"
            yield Fault(_where(artefact, name), found, _AGAIN)


def _named(artefact: Artefact) -> set[str]:
    """`tensor_names` of all shards; each lists its own."""
    found: set[str] = set()
    for file in {info.file for info in artefact.tensors.values()}:
        listed = _read(read_metadata(file).get("tensor_names", ""))
        found |= {str(name) for name in listed} if isinstance(listed, list) else set()
    return found


def _missing(subject: Subject) -> Iterator[Fault]:
    for artefact, name, said in _said(subject):
        module, _, parameter = name.rpartition(".")
        parts = said.get("_tensor_data_names")
        for leaf in parts if isinstance(parts, list) else ():
            if f"{module}._{parameter}_{leaf}" not in artefact.tensors:
                found = f"the metadata says that {name} has a part {leaf}; there is no {module}._{parameter}_{leaf}"
                yield Fault(f"{artefact.path.name}: {name}", found, _AGAIN)


def _class(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _modules(subject):
        name = part(module, "qdata")
        try:
            known = subclass_of(artefact, module)
        except InfraError as error:
            if f"{module}.weight" in artefact.metadata:
                yield Fault(_where(artefact, name), str(error), _AGAIN)
            continue
        floating = artefact.tensors[name].dtype.startswith("F8")
        if known.name in READ and floating != (known.name == "Float8Tensor"):
            found = f"the metadata says {known.name}, the codes are {artefact.tensors[name].dtype}"
            yield Fault(_where(artefact, name), found, _AGAIN)


def _blocks(subject: Subject) -> Iterator[Fault]:
    for artefact, module, known in _known(subject):
        shape = artefact.tensors[part(module, "qdata")].shape
        for leaf in ("scale", "zero_point"):
            name = part(module, leaf)
            if name in artefact.tensors and not fits(shape, artefact.tensors[name].shape, known.block):
                found = f"blocks of {list(known.block)} in {shape} do not give {artefact.tensors[name].shape}"
                yield Fault(_where(artefact, name), found, _AGAIN)


def _range(subject: Subject) -> Iterator[Fault]:
    known = {part(module, "qdata"): one for _, module, one in _known(subject) if one.name == "IntxUnpackedToInt8Tensor"}
    artefact = subject.artefact
    for name in subject.some(known):
        if artefact is None or artefact.tensors[name].dtype != "I8":
            continue
        codes, least, most = artefact.numbers(name, None if subject.thorough else _SAMPLE), *known[name].range
        if bad := int(((codes < least) | (codes > most)).sum()):
            found = f"{bad} of {codes.size} codes lie outside {least} to {most}, all that {known[name].bits} bits have"
            yield Fault(_where(artefact, name), found, _AGAIN)


def _zero_points(subject: Subject) -> Iterator[Fault]:
    ignoring = [
        part(module, "zero_point") for artefact, module, known in _known(subject)
        if ignores_zero_points(artefact, module, known) and part(module, "zero_point") in artefact.tensors
    ]  # fmt: skip
    for name in subject.some(ignoring):
        if subject.artefact is not None and np.any(subject.artefact.numbers(name)):
            found = "expected zeros, as torchao multiplies rows of int8 without zero points; found others"
            yield Fault(_where(subject.artefact, name), found, "Quantise again, symmetrically.")


def _config(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None:
        return
    made = artefact.settings.get("quant_type")
    default = made.get("default") if isinstance(made, Mapping) else None
    kind = str(default.get("_type", "")) if isinstance(default, Mapping) else ""
    others = {known.name: module for _, module, known in _known(subject) if known.name != _MADE.get(kind, known.name)}
    for name, module in others.items():
        found = f"config.json says {kind}, which makes {_MADE[kind]}; {module} is a {name}"
        yield Fault("config.json: quantization_config", found, "Correct config.json, or take the weights it speaks of.")


def _modules(subject: Subject) -> Iterator[tuple[Artefact, str]]:
    artefact = subject.artefact
    if artefact is None:
        return
    ending = part("", "qdata")
    for name in artefact.tensors:
        if name.endswith(ending):
            yield artefact, name.removesuffix(ending)


def _known(subject: Subject) -> Iterator[tuple[Artefact, str, Subclass]]:
    """Modules whose metadata can be read, of classes that are known here."""
    for artefact, module in _modules(subject):
        try:
            known = subclass_of(artefact, module)
        except InfraError:
            continue
        if known.name in READ:
            yield artefact, module, known


def _said(subject: Subject) -> Iterator[tuple[Artefact, str, Mapping[str, Any]]]:
    """Every parameter that the metadata takes apart."""
    artefact = subject.artefact
    if artefact is None:
        return
    for name, text in artefact.metadata.items():
        said = _read(text) if "." in name else None
        if isinstance(said, Mapping) and said.get("_type") != "Tensor" and "_tensor_data_names" in said:
            yield artefact, name, said


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _where(artefact: Artefact, name: str) -> str:
    return f"{artefact.tensors[name].file.name}: {name}"


RULES = (
    Rule("ao-metadata", "Without its class in the metadata a tensor cannot be put together.", "error", _metadata),
    Rule("ao-missing", "A part that the metadata promises is not there.", "error", _missing),
    Rule("ao-class", "Codes of another kind than the class's are read as what they are not.", "error", _class),
    Rule("ao-blocks", "Scales of another grid than the metadata's scale other weights.", "error", _blocks),
    Rule("ao-range", "Codes that their bits cannot hold are no output of the quantiser.", "error", _range),
    Rule("ao-zero-point", "torchao multiplies rows of int8 as if zero points were 0.", "error", _zero_points),
    Rule("ao-config", "config.json and the metadata name two ways of quantising.", "warning", _config),
)
