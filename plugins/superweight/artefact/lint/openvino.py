"""Rules on OpenVINO's IR: constants within their file, scales, and what NNCF says that it did."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.openvino import IrReader
from superweight.artefact.openvino.elements import elements, readable
from superweight.artefact.openvino.graph import Operation
from superweight.errors import InfraError

_AGAIN = "Get both files of the IR again, of one export."
_FLOATS = ("f64", "f32", "f16", "bf16", "f8e4m3", "f8e5m2", "f8e8m0")
_TYPES = {"int4_sym": "i4", "int4_asym": "u4", "int8_sym": "i8", "int8_asym": "u8", "nf4": "nf4", "fp4": "f4e2m1"}
"""Modes of NNCF's weight compression, and the element type that each writes."""


def _cut_short(subject: Subject) -> Iterator[Fault]:
    reader = subject.reader
    if not isinstance(reader, IrReader):
        return
    for operation in reader.graph.operations.values():
        if operation.kind == "Const":
            try:
                reader.graph.constant(operation)
            except InfraError as error:
                if error.reason == "corrupt":
                    yield Fault(f"{reader.graph.weights.name}: {operation.name}", str(error), _AGAIN)


def _left_over(subject: Subject) -> Iterator[Fault]:
    reader = subject.reader
    if not isinstance(reader, IrReader):
        return
    ends = [_end(one) for one in reader.graph.operations.values() if one.kind == "Const"]
    size = reader.graph.weights.stat().st_size
    if ends and size > max(ends):
        found = f"expected {max(ends)} bytes, where the last constant ends; found {size - max(ends)} bytes more"
        yield Fault(reader.graph.weights.name, found, _AGAIN)


def _end(operation: Operation) -> int:
    offset, size = (operation.settings.get(key, "0") for key in ("offset", "size"))
    return int(offset) + int(size) if offset.isdigit() and size.isdigit() else 0


def _scales(subject: Subject) -> Iterator[Fault]:
    """Scales of down projections: every float constant beside a larger one."""
    reader = subject.reader
    if not isinstance(reader, IrReader):
        return
    constants = reader.constants()
    for module in subject.some(constants):
        known = [reader.graph.constant(one) for one in constants[module]]
        beside = sorted(known, key=lambda one: one.size)[:-1]
        for scale in (one for one in beside if one.dtype in _FLOATS and readable(one.dtype)):
            values = elements(reader.graph, scale)
            for bad, what in ((~np.isfinite(values), "NaN or infinite"), (values == 0, "zero")):
                if count := int(bad.sum()):
                    found = f"expected numbers that are not zero; {count} of {values.size} scales are {what}"
                    yield Fault(f"{reader.graph.path.name}: {module}", found, "Compress the model again.")


def _mode(subject: Subject) -> Iterator[Fault]:
    reader = subject.reader
    if not isinstance(reader, IrReader):
        return
    mode = reader.graph.about.get("nncf/weight_compression/mode", "")
    expected = _TYPES.get(mode)
    held = {one.settings.get("element_type", "") for found in reader.constants().values() for one in found}
    if expected is not None and held and expected not in held:
        found = f"expected down projections of {expected}, as {mode} says; found {', '.join(sorted(held))}"
        yield Fault(f"{reader.graph.path.name}: nncf", found, "Judge it by its constants; ratio and scope can say so.")


RULES = (
    Rule(
        "ir-cut-short",
        "A constant that does not lie within its file is read as another, or not at all.",
        "error",
        _cut_short,
    ),
    Rule("ir-left-over", "Bytes after the last constant are those of another export.", "warning", _left_over),
    Rule("ir-scale", "A scale of zero, NaN or infinity ruins every weight under it.", "error", _scales),
    Rule("ir-mode", "An IR that says of itself what it is not is judged by a wrong name.", "warning", _mode),
)
