"""Write a checkpoint as one GGUF file of a type that the gguf package can write, super weights in a finer one."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from superweight.artefact.gguf.blocks import PLAIN, decode
from superweight.artefact.writing.gguf_source import GgufSource, Held, original_in_cache, source_of_gguf
from superweight.artefact.writing.gguf_types import EMBEDDINGS, is_layer_matrix, kind_that_fits, known_kind
from superweight.cards.base import Coordinate
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.problems import disk_full, missing_package
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.gguf_header import read_gguf_header
from superweight.errors import InfraError

_AT_ONCE = 1 << 22  # weights that are rounded at once
_TOOLS = ("pytest-superweight", "gguf", "numpy", "torch", "transformers")
_NOT_COPIED = ("GGUF.", "split.", "quantize.", "superweight.")
_OWN = ("general.architecture", "general.file_type", "general.quantization_version", "general.alignment")


@dataclass(frozen=True)
class Planned:
    """How one tensor is stored, and why it is not as was asked; empty if it is."""

    kind: str
    why: str = ""


@dataclass(frozen=True)
class WrittenGguf:
    """What was written.

    Attributes:
        path: the file.
        bytes: its size.
        kinds: tensor → type.
        notes: what was stored otherwise than asked, a sentence each.
    """

    path: Path
    bytes: int
    kinds: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())


def write_gguf(
    checkpoint: Checkpoint,
    types: str,
    target: Path,
    *,
    keep: Mapping[str, str] | None = None,
    super_weights: Mapping[Coordinate, str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    original: Path | None = None,
    progress: Callable[[str], object] | None = None,
) -> WrittenGguf:
    """Write a checkpoint's weights in one of GGUF's types; the file is there whole or not at all.

    Matrices of layers get the type; embeddings and the head get Q8_0 where it is coarser; what else there is stays as
    it is. A tensor that the type cannot hold gets one that can, which is noted.

    Args:
        checkpoint: converted from a GGUF file, whose metadata, tokenizer and further tensors are taken over; or a Llama
            in Hugging Face layout.
        types: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, TQ1_0, TQ2_0 or MXFP4.
        target: `NAME.gguf`, which must not be there.
        keep: tensors that get another type, by name or pattern: `{"blk.2.ffn_down.weight": "F32"}`; see
            `keeping_super_weights`.
        super_weights: coordinate → status, for the metadata.
        recipe: what asked for it, JSON-ready, for the metadata.
        original: the GGUF file that the checkpoint was converted from; else looked for in the cache.
        progress: is told what was done, a line each.

    Raises:
        InfraError: unsupported (type, architecture, name of the file, a pattern of `keep` that fits no tensor),
            not-found (no original), non-finite (a weight is too large for a type), disk-full, missing-package.
    """
    _check_target(target)
    main = known_kind(types)
    source = _source(checkpoint, original)
    plan = {held.name: _planned(held, main, keep or {}) for held in source.tensors}
    _check_keep(keep or {}, source.tensors)
    notes = _notes(plan)
    about = _about(checkpoint, main, plan, keep or {}, super_weights or {}, recipe)
    _require(target, sum(_size(held, plan[held.name].kind) for held in source.tensors))
    with Cache(target.parent).publish_file(target) as temporary:
        _write(temporary, source, main, plan, about, progress)
        _check_written(temporary, source, plan)
    for note in notes:
        (progress or _silent)(note)
    return WrittenGguf(target, target.stat().st_size, {name: one.kind for name, one in plan.items()}, notes)


def keeping_super_weights(super_weights: Iterable[Coordinate], kind: str = "F32") -> dict[str, str]:
    """The down projections that super weights lie in, as `keep` of `write_gguf`: F32 keeps them bit for bit."""
    return {
        f"blk.{where.layer}.ffn_down{'' if where.expert is None else '_exps'}.weight": known_kind(kind)
        for where in super_weights
    }


def _source(checkpoint: Checkpoint, original: Path | None) -> GgufSource:
    if checkpoint.provenance.get("format") == "gguf":
        sha256 = str(checkpoint.provenance.get("sha256"))
        return source_of_gguf(original or original_in_cache(checkpoint), sha256)
    from superweight.artefact.writing.gguf_llama import source_of_llama

    return source_of_llama(checkpoint)


def _planned(held: Held, main: str, keep: Mapping[str, str]) -> Planned:
    """How a tensor is stored."""
    kept = [kind for pattern, kind in keep.items() if fnmatchcase(held.name, pattern)]
    if kept:
        return _fitting(held, known_kind(kept[-1]))
    if held.name in EMBEDDINGS:
        return _fitting(held, main if main in (*PLAIN, "Q8_0") else "Q8_0")
    if is_layer_matrix(held.name, held.shape):
        return _fitting(held, main)
    return Planned(held.kind)


def _fitting(held: Held, kind: str) -> Planned:
    fits = kind_that_fits(kind, held.shape)
    why = f"rows of {held.shape[-1]} weights are no whole blocks of {kind}" if fits != kind else ""
    return Planned(fits, why)


def _notes(plan: Mapping[str, Planned]) -> tuple[str, ...]:
    told: dict[tuple[str, str], list[str]] = {}
    for name, one in plan.items():
        if one.why:
            told.setdefault((one.kind, one.why), []).append(name)
    return tuple(
        f"{len(names)} tensors are {kind} ({names[0]}{', …' if len(names) > 1 else ''}): {why}"
        for (kind, why), names in told.items()
    )


def _write(
    path: Path,
    source: GgufSource,
    main: str,
    plan: Mapping[str, Planned],
    about: Mapping[str, str],
    progress: Callable[[str], object] | None,
) -> None:
    try:
        from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
    except ImportError as error:
        raise missing_package("gguf", "Writing a GGUF file") from error
    writer = GGUFWriter(path, source.architecture)
    for key in source.keys:
        if key.name not in _OWN and not key.name.startswith(_NOT_COPIED):
            writer.add_key_value(key.name, key.value, key.kind, key.element)
    writer.add_file_type(LlamaFileType[_FILE_TYPES.get(main, f"MOSTLY_{main}")])
    writer.add_quantization_version(2)
    for name, text in about.items():
        writer.add_string(name, text)
    for held in source.tensors:
        kind = plan[held.name].kind
        raw = np.dtype(_DTYPES.get(kind, "u1"))
        shape = held.shape if kind in _DTYPES else _in_bytes(held.shape, kind)
        writer.add_tensor_info(held.name, shape, raw, _size(held, kind), raw_dtype=GGMLQuantizationType[kind])
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for held in source.tensors:
            (progress or _silent)(f"{held.name}: {plan[held.name].kind}")
            writer.write_tensor_data(_bytes_of(held, plan[held.name].kind))
    finally:
        writer.close()


def _bytes_of(held: Held, kind: str) -> np.ndarray[Any, Any]:
    """A tensor in a type: as it is where it has it, else rounded some rows at a time, and read again.

    Raises:
        InfraError: a weight is no number, or becomes none (`non-finite`).
    """
    if kind == held.kind:
        return held.raw()
    from gguf import GGMLQuantizationType, quantize

    values = held.values().reshape(-1, held.shape[-1])
    rows = max(1, _AT_ONCE // held.shape[-1])
    found = []
    for first in range(0, len(values), rows):
        some = np.ascontiguousarray(values[first : first + rows], np.float32)
        with np.errstate(all="ignore"):
            raw = np.asarray(quantize(some, GGMLQuantizationType[kind])).view(np.uint8).reshape(len(some), -1)
        if not np.isfinite(decode(raw, kind)).all():
            raise InfraError(
                f"{held.name}: a weight of the rows from {first} on is no number as {kind}; the largest is "
                f"{np.abs(some).max():g}. Keep the tensor in F32 or BF16.",
                reason="non-finite",
            )
        found.append(raw)
    return np.concatenate(found) if found else np.empty(0, np.uint8)


def _check_written(path: Path, source: GgufSource, plan: Mapping[str, Planned]) -> None:
    """Read the header again: every tensor is there, in its type and shape, within the file."""
    found = read_gguf_header(path).held
    for held in source.tensors:
        there = found.get(held.name)
        if there is None or (there.kind, there.shape) != (plan[held.name].kind, held.shape):
            raise InfraError(f"{path}: {held.name} was not written as it should be, found {there}", reason="corrupt")


def _about(
    checkpoint: Checkpoint,
    main: str,
    plan: Mapping[str, Planned],
    keep: Mapping[str, str],
    super_weights: Mapping[Coordinate, str],
    recipe: Mapping[str, Any] | None,
) -> dict[str, str]:
    """What the file says of how it was made."""
    listed = [
        {**where.coordinate.model_dump(), "status": status, "stored_as": plan[name].kind if name in plan else ""}
        for where, status in super_weights.items()
        for name in keeping_super_weights([where])
    ]
    fallbacks = {name: one.kind for name, one in plan.items() if one.why}
    found: dict[str, Any] = {"keep": dict(keep), "fallbacks": fallbacks, "super_weights": listed, "tools": _tools()}
    if recipe is not None:
        found["recipe"] = recipe
    texts = {f"superweight.{name}": json.dumps(value, sort_keys=True) for name, value in found.items()}
    made_of = str(checkpoint.provenance.get("sha256", "")) or checkpoint.content_hash
    return {"superweight.type": main, "superweight.source_sha256": made_of, **texts}


def _tools() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _check_target(target: Path) -> None:
    if target.suffix != ".gguf":
        raise InfraError(f"{target} should end in .gguf. Correct the name.", reason="unsupported")
    if target.exists():
        raise InfraError(f"{target} is there already. Remove it, or give another name.", reason="unsupported")


def _check_keep(keep: Mapping[str, str], tensors: Iterable[Held]) -> None:
    names = [held.name for held in tensors]
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InfraError(
                f"no tensor is named {pattern!r}, which was to be kept. The names are like {', '.join(names[:3])}, ….",
                reason="unsupported",
            )


def _require(target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(target.parent).free < size:
        raise disk_full(target.parent, f"writing {target.name}, which takes {size / 1e6:,.0f} MB")


def _in_bytes(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape

    return tuple(quant_shape_to_byte_shape(shape, GGMLQuantizationType[kind]))


def _size(held: Held, kind: str) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return int(math.prod(held.shape) // block * size)


def _silent(_: str) -> None:
    """Nobody listens."""


_DTYPES = {"F32": "<f4", "F16": "<f2"}
_FILE_TYPES = {"F32": "ALL_F32", "MXFP4": "MOSTLY_MXFP4_MOE"}
