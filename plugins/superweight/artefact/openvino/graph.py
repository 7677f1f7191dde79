"""The graph of an OpenVINO IR, as far as weights go: operations, what feeds them, and where constants lie."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from superweight.errors import InfraError

BITS = {
    **{"f64": 64, "f32": 32, "f16": 16, "bf16": 16, "i64": 64, "u64": 64, "i32": 32, "u32": 32, "i16": 16, "u16": 16},
    **{"i8": 8, "u8": 8, "boolean": 8, "f8e4m3": 8, "f8e5m2": 8, "f8e8m0": 8},
    **{"i4": 4, "u4": 4, "nf4": 4, "f4e2m1": 4, "u2": 2, "u1": 1, "u3": 3, "u6": 6},
}
"""Element types, and how many bits an element takes."""

_MOST = 1 << 30  # bytes of XML that are read


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        number: its id.
        name: `__module.model.layers.2.mlp.down_proj/aten::linear/MatMul`.
        kind: `MatMul`, `Const`, ….
        settings: its attributes.
        shape: of its first output; −1 where it is open.
        dtype: of its first output, `FP16`.
        inputs: ids of the operations that feed it, by port.
    """

    number: str
    name: str
    kind: str
    settings: Mapping[str, str]
    shape: tuple[int, ...]
    dtype: str = ""
    inputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Constant:
    """Where a constant lies in the file of weights.

    Attributes:
        dtype: element type, `i4`.
        shape: as the operation has it.
        start: its first byte.
        size: its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


@dataclass(frozen=True)
class Graph:
    """A model.

    Attributes:
        path: the XML.
        weights: the file of constants.
        operations: id → operation.
        about: what the tools that made it say of it, as `nncf/weight_compression/mode` → `int4_sym`.
    """

    path: Path
    weights: Path
    operations: Mapping[str, Operation]
    about: Mapping[str, str] = field(default_factory=dict)

    def constant(self, operation: Operation) -> Constant:
        """Where the elements of a Const lie.

        Raises:
            InfraError: what it says cannot be, or does not lie within the file (`corrupt`); a type that is not known
                (`unsupported`).
        """
        said = operation.settings
        dtype = said.get("element_type", "")
        if dtype not in BITS:
            raise InfraError(f"{self.path}: {operation.name} is {dtype or 'untyped'}", reason="unsupported")
        shape = tuple(_whole(self.path, operation.name, one) for one in said.get("shape", "").split(",") if one.strip())
        start, size = (_whole(self.path, operation.name, said.get(key, "")) for key in ("offset", "size"))
        expected = -(-math.prod(shape) * BITS[dtype] // 8)
        if size != expected or start + size > self.weights.stat().st_size:
            raise InfraError(
                f"{self.path}: {operation.name} of shape {list(shape)} in {dtype} should take {expected} bytes within "
                f"{self.weights.name} ({self.weights.stat().st_size} bytes), found {size} from byte {start} on. "
                "Get both files again.",
                reason="corrupt",
            )
        return Constant(dtype, shape, start, size)


def read_graph(path: Path) -> Graph:
    """Read an IR's XML; of the constants, nothing.

    Raises:
        InfraError: it is no IR, or is damaged (`corrupt`); its weights are not beside it (`missing-tensor`); it is too
            large or declares entities, which no IR does (`unsupported`).
    """
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise InfraError(f"{weights}, which holds the weights of {path.name}, is not there", reason="missing-tensor")
    root = _parsed(path)
    layers, edges = root.find("layers"), root.find("edges")
    if root.tag != "net" or layers is None or edges is None:
        raise InfraError(f"{path} is no OpenVINO IR: it has no <net> with layers and edges", reason="corrupt")
    feeding: dict[str, dict[int, str]] = {}
    for edge in edges:
        port = _whole(path, "an edge", edge.get("to-port", ""))
        feeding.setdefault(edge.get("to-layer", ""), {})[port] = edge.get("from-layer", "")
    found = (_operation(path, layer, feeding) for layer in layers)
    return Graph(path, weights, {one.number: one for one in found}, _about(root.find("rt_info")))


def _parsed(path: Path) -> ElementTree.Element:
    if path.stat().st_size > _MOST:
        raise InfraError(f"{path} has more than {_MOST >> 20} MB, which no IR has", reason="unsupported")
    text = path.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text or b"\0" in text:  # another encoding could hide them
        raise InfraError(f"{path} declares entities, which no OpenVINO IR does", reason="unsupported")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InfraError(f"{path} is not whole XML ({error}). Get the file again.", reason="corrupt") from error


def _operation(path: Path, layer: ElementTree.Element, feeding: Mapping[str, Mapping[int, str]]) -> Operation:
    number, data = layer.get("id", ""), layer.find("data")
    port = layer.find("output/port")
    sizes = [] if port is None else [one.text or "" for one in port.findall("dim")]
    ports = feeding.get(number, {})
    return Operation(
        number,
        layer.get("name", ""),
        layer.get("type", ""),
        {} if data is None else dict(data.attrib),
        tuple(_whole(path, layer.get("name", ""), size, least=-1) for size in sizes),
        "" if port is None else port.get("precision", ""),
        tuple(ports[at] for at in sorted(ports)),
    )


def _about(info: ElementTree.Element | None, before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for one in info if info is not None else ():
        if (value := one.get("value")) is not None:
            found[f"{before}{one.tag}"] = value
        found |= _about(one, f"{before}{one.tag}/")
    return found


def _whole(path: Path, name: str, text: str, least: int = 0) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise InfraError(f"{path}: {name} has {text!r} where a number belongs. Get the file again.", reason="corrupt")
    return number
