"""Rules on bitsandbytes in 4 bits: states, scales and tables that do not fit their codes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.formats.bitsandbytes_state import PARTS, TABLES, QuantState, is_table, state_of
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.errors import InfraError

_AGAIN = "Quantise again and save before the first forward pass; then check the file."
_MOST = 1024  # empty blocks of a matrix that are looked into
_FORWARD = (
    "bitsandbytes repacks scales at the first forward pass on some CPUs and saves them so: quantise again and save "
    "before any forward pass."
)


def _state(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _modules(subject):
        try:
            state = state_of(artefact, module)
        except InfraError as error:
            yield Fault(_where(artefact, f"{module}.weight"), str(error), _AGAIN)
            continue
        if state.label != state.quant_type:
            name = f"{module}.weight.quant_state.bitsandbytes__{state.label}"
            yield Fault(
                _where(artefact, name), f"its name says {state.label}, its JSON says {state.quant_type}", _AGAIN
            )


def _size(subject: Subject) -> Iterator[Fault]:
    for artefact, module, state in _states(subject):
        info = artefact.tensors.get(f"{module}.weight")
        if info is None:
            continue
        size = info.stop - info.start
        unit = size // max(math.prod(info.shape), 1) or 1
        needed = -(-state.numel // (2 * unit)) * unit
        if size != needed:
            found = f"{needed} bytes hold the 4-bit codes of {state.shape}, found {size} ({info.dtype} {info.shape})"
            yield Fault(_where(artefact, f"{module}.weight"), found, _AGAIN)


def _absmax_shape(subject: Subject) -> Iterator[Fault]:
    for artefact, module, state in _states(subject):
        info = artefact.tensors.get(f"{module}.weight.absmax")
        if info is not None and info.shape != (state.blocks,):
            found = (
                f"expected ({state.blocks},), a scale for {state.blocksize} elements of {state.shape}, row by row; "
                f"found {info.shape}"
            )
            yield Fault(_where(artefact, f"{module}.weight.absmax"), found, _FORWARD)


def _absmax_dtype(subject: Subject) -> Iterator[Fault]:
    for artefact, module, state in _states(subject):
        info, nested = artefact.tensors.get(f"{module}.weight.absmax"), _nested(artefact, module, state)
        wanted = "U8" if nested else "F32"
        if info is not None and info.dtype != wanted:
            why = "scales are nested" if nested else "scales are not nested"
            found = f"expected {wanted}, as {why}; found {info.dtype}"
            yield Fault(_where(artefact, f"{module}.weight.absmax"), found, _FORWARD)


def _nested_parts(subject: Subject) -> Iterator[Fault]:
    for artefact, module, state in _states(subject):
        scales = artefact.tensors.get(f"{module}.weight.absmax")
        if not _nested(artefact, module, state) and (scales is None or scales.dtype != "U8"):
            continue
        for found in _nested_faults(artefact, module, state):
            yield Fault(_where(artefact, f"{module}.weight.absmax"), found, _AGAIN)


def _nested_faults(artefact: Artefact, module: str, state: QuantState) -> Iterator[str]:
    if not state.nested_blocksize or not state.nested_dtype or not math.isfinite(state.nested_offset):
        yield "scales are nested, and the state lacks nested_blocksize, nested_dtype or a finite nested_offset"
        return
    shapes = {"nested_absmax": (-(-state.blocks // state.nested_blocksize),), "nested_quant_map": (256,)}
    for part, wanted in shapes.items():
        info = artefact.tensors.get(f"{module}.weight.{part}")
        if info is None:
            yield f"scales are nested, and {part} is missing: some loaders take the codes of scales for scales"
        elif info.shape != wanted or info.dtype != "F32":
            yield f"expected {part} of F32 {wanted}, found {info.dtype} {info.shape}"
        elif part == "nested_quant_map" and not _rises(artefact, f"{module}.weight.{part}"):
            yield f"{part} should rise from -1 to 1, so that its 256 codes stand for something; it does not"


def _rises(artefact: Artefact, name: str) -> bool:
    values = artefact.numbers(name)
    return bool((np.diff(values) > 0).all() and abs(values).max() <= 1)


def _quant_map(subject: Subject) -> Iterator[Fault]:
    for artefact, module, state in _states(subject):
        name = f"{module}.weight.quant_map"
        if name in artefact.tensors and not is_table(artefact, name, state.quant_type):
            found = f"expected the 16 values of {state.quant_type}; found others, which some kernels use"
            yield Fault(_where(artefact, name), found, _AGAIN)


def _missing(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _modules(subject):
        for part in ("", ".absmax", ".quant_map"):
            if f"{module}.weight{part}" not in artefact.tensors:
                found = f"other parts of a 4-bit matrix are there; expected {module}.weight{part}, found none"
                yield Fault(f"{artefact.path.name}: {module}", found, _AGAIN)


def _config(subject: Subject) -> Iterator[Fault]:
    for artefact, module in list(_modules(subject))[:1]:
        if not artefact.settings.get("load_in_4bit"):
            found = f"{module} is stored in 4 bits; config.json does not say load_in_4bit"
            yield Fault("config.json: quantization_config", found, "Write the settings of the tool that saved it.")


def _quant_type(subject: Subject) -> Iterator[Fault]:
    for artefact, module, state in _states(subject):
        said = artefact.settings.get("bnb_4bit_quant_type")
        if isinstance(said, str) and said != state.quant_type:
            found = f"config.json says bnb_4bit_quant_type {said}, {module} is stored as {state.quant_type}"
            yield Fault("config.json: quantization_config", found, "Correct config.json: some engines believe it.")


def _zero_scales(subject: Subject) -> Iterator[Fault]:
    known = {module: state for _, module, state in _states(subject)}
    artefact = subject.artefact
    for name in subject.some(f"{module}.weight.absmax" for module in known):
        module = name.removesuffix(".weight.absmax")
        if artefact is not None and (block := _over_something(artefact, module, known[module])) is not None:
            found = f"the scale of block {block} is zero over codes that stand for something: its weights are erased"
            yield Fault(_where(artefact, name), found, _AGAIN)


def _over_something(artefact: Artefact, module: str, state: QuantState) -> int | None:
    """The first block with a scale of zero and codes of other numbers; a block of zeros has codes of zero."""
    scales, codes = artefact.tensors.get(f"{module}.weight.absmax"), f"{module}.weight"
    if scales is None or codes not in artefact.tensors or scales.dtype == "U8" or scales.shape != (state.blocks,):
        return None
    empty = np.flatnonzero(artefact.numbers(f"{module}.weight.absmax") == 0)[:_MOST]
    nothing = [code * 17 for code, share in enumerate(TABLES[state.quant_type]) if share == 0]
    packed, each = artefact.raw(codes).reshape(-1).view(np.uint8), state.blocksize // 2
    artefact.read += len(empty) * each
    blocks = (int(block) for block in empty)
    return next((at for at in blocks if not np.isin(packed[at * each : (at + 1) * each], nothing).all()), None)


def _modules(subject: Subject) -> Iterator[tuple[Artefact, str]]:
    """Modules of which some part of a 4-bit state is there."""
    artefact = subject.artefact
    if artefact is None:
        return
    endings = tuple(f".weight.{part}" for part in PARTS)
    found = {name.rpartition(".weight.")[0]: None for name in artefact.tensors if name.endswith(endings)}
    for module in found:
        yield artefact, module


def _states(subject: Subject) -> Iterator[tuple[Artefact, str, QuantState]]:
    """Modules with a state that can be read; the others are `bnb-state`'s."""
    for artefact, module in _modules(subject):
        try:
            yield artefact, module, state_of(artefact, module)
        except InfraError:
            continue


def _nested(artefact: Artefact, module: str, state: QuantState) -> bool:
    return bool(state.nested_blocksize) or f"{module}.weight.nested_absmax" in artefact.tensors


def _where(artefact: Artefact, name: str) -> str:
    info = artefact.tensors.get(name)
    return f"{artefact.path.name if info is None else info.file.name}: {name}"


RULES = (
    Rule("bnb-state", "4-bit codes cannot be read without a state that says what they are.", "error", _state),
    Rule("bnb-packed-size", "Codes of another number than the matrix has elements are another's.", "error", _size),
    Rule("bnb-absmax-shape", "Scales that lie in another order scale other weights.", "error", _absmax_shape),
    Rule("bnb-absmax-dtype", "Kernels read scales as float32, or as uint8 if nested.", "error", _absmax_dtype),
    Rule("bnb-nested", "Nested scales are nothing without their own scales and table.", "error", _nested_parts),
    Rule("bnb-quant-map", "Kernels differ in whether they use the file's table of codes.", "error", _quant_map),
    Rule("bnb-missing", "A part of a 4-bit matrix is not there.", "error", _missing),
    Rule("bnb-config-4bit", "A loader makes modules by config.json, which must say 4 bits.", "error", _config),
    Rule("bnb-quant-type", "config.json and the file name two types of 4-bit codes.", "warning", _quant_type),
    Rule("bnb-scale-zero", "A scale of zero over other codes than zero erases weights.", "error", _zero_scales),
)
