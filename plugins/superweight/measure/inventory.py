"""What a compressed checkpoint keeps as codes and what as plain numbers, in how many bytes, and which numbers differ.

Looks at files alone: tensors that are plain numbers in both checkpoints are compared bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.numbers import as_floats
from superweight.evidence.measured import Sanity, Size
from superweight.forward.runner import CannotTell

_WIDTH = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
_BESIDE = (
    *("bias", "input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point"),
    *("k_scale", "v_scale", "q_scale", "kv_scale"),
)
"""Tensors of a module that say nothing of its weight."""
_ROWS = 2**22  # elements compared at a time

Outcome = Literal["same", "cast", "differs"]


class Held(NamedTuple):
    """What a checkpoint keeps of one parameter of the uncompressed model.

    Attributes:
        bytes: of its numbers or codes, scales included.
        outcome: whether the numbers are the uncompressed model's, or were but rounded to a narrower dtype; None of
            codes whose numbers were not looked at.
        coded: whether it is kept as codes.
    """

    bytes: int
    outcome: Outcome | None
    coded: bool = False


@dataclass
class Inventory:
    """A compressed checkpoint beside the uncompressed one.

    Attributes:
        held: by parameter of the uncompressed model.
        elements: weights of each parameter of the uncompressed model.
        bytes: of all tensors.
    """

    held: dict[str, Held] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    @property
    def coded(self) -> list[str]:
        """Parameters that are kept as codes."""
        return sorted(name for name, one in self.held.items() if one.coded)

    def _plain(self, outcome: Outcome) -> list[str]:
        return sorted(name for name, one in self.held.items() if one.outcome == outcome and not one.coded)

    def sanity(self, also_changes: tuple[str, ...], hooks: list[str], non_finite: list[str]) -> Sanity | CannotTell:
        """What differs from the uncompressed model, and what the file or the card says of it.

        Args:
            also_changes: patterns of parameters that are meant to differ.
            hooks: modules whose activations are rounded.
            non_finite: parameters that hold NaN or infinity.
        """
        if not self.held:
            return CannotTell("no tensor of the file is named like a parameter of its reference")
        differing = self._plain("differs")
        meant = [name for name in differing if any(fnmatchcase(name, pattern) for pattern in also_changes)]
        rewritten = sorted({*self._rewritten(), *self._plain("cast")})
        return Sanity(
            declared=sorted({*rewritten, *meant}),
            changed=sorted({*rewritten, *differing}),
            undeclared=sorted(set(differing) - set(meant)),
            unchanged=[],
            hooks=hooks,
            non_finite=non_finite,
        )

    def _rewritten(self) -> list[str]:
        """Parameters that are kept as codes, but for those whose codes give the very numbers of the reference."""
        return [name for name in self.coded if self.held[name].outcome != "same"]

    def size(self) -> Size | CannotTell:
        """Bits a weight by the bytes of the file, over what it compresses and over all parameters."""
        compressed = self.coded or self._plain("cast") or sorted(self.held)
        weights = sum(self.elements[name] for name in compressed)
        if not weights:
            return CannotTell("no tensor of the file is named like a parameter of its reference")
        figures = {
            "compressed_bits_per_weight": 8 * sum(self.held[name].bytes for name in compressed) / weights,
            "model_bits_per_weight": 8 * self.bytes / sum(self.elements.values()),
            "parameters": sum(self.elements.values()),
            "tensor_bytes": self.bytes,
        }
        return Size.model_validate(figures)


def of_safetensors(artefact: Artefact, reference: Artefact, tied: dict[str, str]) -> Inventory:
    """The inventory of a directory of safetensors.

    Args:
        artefact: the compressed model.
        reference: the uncompressed one.
        tied: parameters that the uncompressed model keeps under another's name, by theirs.
    """
    found = Inventory(bytes=sum(info.stop - info.start for info in artefact.tensors.values()))
    found.elements = {name: math.prod(info.shape) for name, info in reference.tensors.items()}
    names = {name: name for name in reference.tensors} | tied
    for name, own in _by_parameter(artefact, names).items():
        kept = names[name]
        found.elements.setdefault(name, found.elements[kept])
        size = sum(artefact.tensors[tensor].stop - artefact.tensors[tensor].start for tensor in own)
        outcome = _outcome(artefact, reference, name, kept, own)
        found.held[name] = Held(size, outcome, coded=outcome is None)
    return _counted_once(found, tied)


def of_gguf(file: Path, converted: Artefact, reference: Artefact, tied: Mapping[str, str], layers: int) -> Inventory:
    """The inventory of a GGUF file.

    Args:
        file: the file.
        converted: its tensors, decoded to float32 and named as the uncompressed model's.
        reference: the uncompressed model.
        tied: as in `of_safetensors`.
        layers: how many decoder layers there are.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    field_of = reader.get_field("general.architecture")
    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(known[field_of.contents() if field_of else ""], layers)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    found = Inventory(bytes=sum(int(tensor.n_bytes) for tensor in reader.tensors))
    found.elements = {name: math.prod(info.shape) for name, info in reference.tensors.items()}
    for name, kept in [*((one, one) for one in reference.tensors), *tied.items()]:
        tensor = tensors.get(names.get_name(name, try_suffixes=(".weight", ".bias")) or "")
        if tensor is None or name not in converted.tensors:
            continue
        found.elements.setdefault(name, found.elements[kept])
        plain = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F64": "F64"}.get(tensor.tensor_type.name)
        same = _compared(_raw(converted, name), _raw(reference, kept), stored=plain or "F32")
        found.held[name] = Held(int(tensor.n_bytes), same, coded=plain is None)
    return _counted_once(found, tied)


def of_openvino(model: Any, reference: Artefact, tied: Mapping[str, str]) -> Inventory:
    """The inventory of an OpenVINO model, by the names that its constants have from the model it was converted from."""
    kinds = {"f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16"}
    constants = {
        op.friendly_name.removeprefix("self."): op for op in model.get_ops() if op.get_type_name() == "Constant"
    }
    found = Inventory(bytes=sum(op.get_byte_size() for op in constants.values()))
    found.elements = {name: math.prod(info.shape) for name, info in reference.tensors.items()}
    for name, kept in [*((one, one) for one in reference.tensors), *tied.items()]:
        op = constants.get(name)
        if op is None:
            continue
        found.elements.setdefault(name, found.elements[kept])
        beside = [one for label, one in constants.items() if label.startswith(f"{name}/")]
        size = op.get_byte_size() + sum(one.get_byte_size() for one in beside)
        kind = kinds.get(op.get_element_type().get_type_name())
        if kind is None or beside:
            found.held[name] = Held(size, None, coded=True)
            continue
        values = op.data if kind != "BF16" else op.get_data(dtype=np.float32)
        own = _Raw(np.asarray(values), kind if kind != "BF16" else "F32")
        found.held[name] = Held(size, _compared(own, _raw(reference, kept), stored=kind))
    return _counted_once(found, tied)


def _counted_once(found: Inventory, tied: Mapping[str, str]) -> Inventory:
    """A tied parameter has weights of its own only where the file keeps it apart."""
    for name in tied:
        if name not in found.held:
            found.elements.pop(name, None)
    return found


class _Raw(NamedTuple):
    """Numbers as they are stored, and safetensors' name of their dtype."""

    array: np.ndarray[Any, Any]
    dtype: str


def _raw(artefact: Artefact, name: str) -> _Raw:
    return _Raw(artefact.raw(name), artefact.tensors[name].dtype)


def _by_parameter(artefact: Artefact, names: Mapping[str, str]) -> dict[str, list[str]]:
    """The tensors of the file that belong to each parameter: of its module, those that say what its weight is."""
    modules = {name.removesuffix(".weight"): name for name in names}
    found: dict[str, list[str]] = {}
    for tensor in artefact.tensors:
        if tensor in names and not tensor.endswith(".weight"):
            found.setdefault(tensor, []).append(tensor)
            continue
        owner = next((modules[prefix] for prefix in _prefixes(tensor) if prefix in modules), None)
        if owner is not None and tensor.rpartition(".")[2] not in _BESIDE:
            found.setdefault(owner, []).append(tensor)
    return found


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        yield ".".join(parts[:count])
    for leaf in ("_blocks", "_scales"):  # of experts in one tensor
        if name.endswith(leaf):
            yield name.removesuffix(leaf)


def _outcome(artefact: Artefact, reference: Artefact, name: str, kept: str, own: list[str]) -> Outcome | None:
    if own != [name] or artefact.tensors[name].dtype not in _WIDTH:
        return None
    return _compared(_raw(artefact, name), _raw(reference, kept), stored=artefact.tensors[name].dtype)


def _compared(own: _Raw, reference: _Raw, *, stored: str) -> Outcome:
    """Plain numbers beside the uncompressed model's, perhaps in another dtype.

    Args:
        own: the compressed model's.
        reference: the uncompressed model's.
        stored: the dtype that they have, or had, in the compressed file.
    """
    if own.array.shape != reference.array.shape:
        return "differs"
    mine, other = own.array.reshape(-1), reference.array.reshape(-1)
    narrowed = False
    for start in range(0, max(1, mine.size), _ROWS):
        part = slice(start, start + _ROWS)
        if own.dtype == reference.dtype == stored:
            if not np.array_equal(_bits(mine[part]), _bits(other[part])):
                return "differs"
            continue
        exact = as_floats(np.asarray(other[part]), reference.dtype)
        rounded = _rounded(exact, stored)
        if not np.array_equal(as_floats(np.asarray(mine[part]), own.dtype), rounded, equal_nan=True):
            return "differs"
        narrowed = narrowed or not np.array_equal(exact, rounded, equal_nan=True)
    return "cast" if narrowed else "same"


def _bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array).view(np.uint8)


def _rounded(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Float64 numbers, rounded to nearest, ties to even, to a dtype and back."""
    if dtype in ("F16", "F32"):
        with np.errstate(over="ignore"):
            return values.astype(np.float16 if dtype == "F16" else np.float32).astype(np.float64)
    if dtype == "BF16":
        word = values.astype(np.float32).view(np.uint32).astype(np.uint64)
        kept = ((word + 0x7FFF + ((word >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
        return np.where(np.isnan(values), np.nan, kept.astype(np.float64))
    return values
