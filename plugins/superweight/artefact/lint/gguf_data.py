"""Rules on the bytes of GGUF files: where tensors lie, holes, numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from superweight.artefact.gguf import GgufReader
from superweight.artefact.gguf.blocks import decodable, decode
from superweight.artefact.gguf.reader import DownProjection
from superweight.artefact.held import Held
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.cards.base import Coordinate
from superweight.checkpoint.gguf_header import GgufSummary, GgufTensor

_PAGE = 4096  # bytes; what downloads and file systems leave out is whole pages
_PAGES = 4  # looked at in a tensor, unless thorough
_AT_ONCE = 1 << 19  # weights that are decoded at once
_PROBES = 8  # weights of a block that are asked of the reference
_AGAIN = "Get the file again, and compare its hash with the one that was published."


def _misplaced(subject: Subject) -> Iterator[Fault]:
    """Tensors follow each other without gaps: llama.cpp refuses others, and some readers read across."""
    for path, summary in _files(subject):
        expected = summary.ends[0]
        for tensor in summary.held.values():
            if tensor.start != expected:
                found = f"expected its data to begin at byte {expected}, after those of the tensor before; found at"
                yield Fault(f"{path.name}: {tensor.name}", f"{found} byte {tensor.start}", "Convert the model again.")
                break
            expected = -(-(tensor.start + tensor.size) // summary.alignment) * summary.alignment


def _left_over(subject: Subject) -> Iterator[Fault]:
    for path, summary in _files(subject):
        end = -(-summary.ends[1] // summary.alignment) * summary.alignment
        if (size := path.stat().st_size) > end:
            found = f"expected {end} bytes, where its tensors end; found {size - end} bytes more"
            yield Fault(path.name, found, _AGAIN)


def _hole(subject: Subject) -> Iterator[Fault]:
    reader = subject.reader
    if not isinstance(reader, GgufReader):
        return
    for path, summary in reader.model.files.items():
        for tensor in filter(_is_matrix, summary.held.values()):
            for at in _pages(tensor, subject.thorough):
                size = min(_PAGE, tensor.size - at)
                if not any(reader.stored(path, tensor, at, size)):
                    found = f"expected numbers; found {size} zero bytes from byte {tensor.start + at} on"
                    yield Fault(f"{path.name}: {tensor.name}", found, _AGAIN)
                    break


def _pages(tensor: GgufTensor, thorough: bool) -> list[int]:
    """Where pages begin that are looked at, counted from the tensor's first byte."""
    starts = range(0, max(1, tensor.size - _PAGE + 1), _PAGE)
    if thorough or len(starts) <= _PAGES:
        return list(starts)
    return [starts[round(at)] for at in np.linspace(0, len(starts) - 1, _PAGES)]


def _is_matrix(tensor: GgufTensor) -> bool:
    """Whether a tensor holds weights of a layer: no embedding, of which tokens that nobody uses may be zero."""
    return tensor.name.startswith("blk.") and len(tensor.shape) > 1 and tensor.size > 0


def _not_finite(subject: Subject) -> Iterator[Fault]:
    looked_at = _everything(subject) if subject.thorough else _rows(subject)
    for _, file, tensor, row, raw in looked_at:
        values = decode(raw, tensor.kind)
        if bad := int((~np.isfinite(values)).sum()):
            found = f"expected numbers; {bad} of {values.size} weights from row {row} on are NaN or infinite"
            yield Fault(f"{file.name}: {tensor.name}", found, "Quantise the model again.")


def _zero_block(subject: Subject) -> Iterator[Fault]:
    """A block that decodes to zeros where the reference has weights: its scale was lost."""
    for down, file, tensor, row, raw in _rows(subject):
        if subject.reference is None or tensor.block == 1 or down.expert == -1:
            continue
        zero = np.flatnonzero((decode(raw, tensor.kind) == 0).all(axis=1))
        for column in (zero[:_PROBES] * tensor.block).tolist():
            if _reference_has_weights(subject, down, row, column):
                found = f"expected weights; row {row} from column {column} on is {tensor.block} zeros"
                yield Fault(f"{file.name}: {tensor.name}", found, "Quantise the model again.")


def _reference_has_weights(subject: Subject, down: DownProjection, row: int, column: int) -> bool:
    assert subject.reference is not None
    step = max(1, down.tensor.block // _PROBES)
    places = [
        Coordinate(layer=down.layer, expert=down.expert, row=row, column=at)
        for at in range(column, column + down.tensor.block, step)
    ]
    found = [subject.reference.scalar(where) for where in places]
    return any(isinstance(one, Held) and one.decoded.value != 0 for one in found)


class _Piece(NamedTuple):
    """Whole rows of a tensor, as blocks: the tensor, its first row, (blocks, bytes of one)."""

    down: DownProjection
    file: Path
    tensor: GgufTensor
    row: int
    raw: np.ndarray[Any, Any]


def _rows(subject: Subject) -> Iterator[_Piece]:
    """Rows of down projections: the first, the last, and those of super weights; all if thorough."""
    reader = subject.reader
    if not isinstance(reader, GgufReader):
        return
    downs = {down.tensor.name: down for down in reader.down.values() if _decodable(down.tensor)}
    for name in subject.some(downs):
        down, tensor = downs[name], downs[name].tensor
        rows, blocks = math.prod(tensor.shape[:-1]), tensor.shape[-1] // tensor.block
        super_rows = {weight.row for weight in subject.super_weights if weight.tensor == down.module}
        wanted = range(rows) if subject.thorough else sorted({0, rows - 1, *super_rows} & set(range(rows)))
        for row in wanted:
            yield _Piece(down, down.file, tensor, row, reader.raw(down, row * blocks, blocks))


def _everything(subject: Subject) -> Iterator[_Piece]:
    """All tensors, some rows at a time."""
    reader = subject.reader
    if not isinstance(reader, GgufReader):
        return
    for file, summary in reader.model.files.items():
        for tensor in filter(_decodable, summary.held.values()):
            rows, blocks = math.prod(tensor.shape[:-1]), tensor.shape[-1] // tensor.block
            some = max(1, _AT_ONCE // tensor.shape[-1])
            whole = DownProjection(file, tensor, -1, None)
            for row in range(0, rows, some):
                raw = reader.raw(whole, row * blocks, min(some, rows - row) * blocks)
                yield _Piece(whole, file, tensor, row, raw)


def _decodable(tensor: GgufTensor) -> bool:
    return bool(tensor.shape) and tensor.size > 0 and decodable(tensor.kind)


def _files(subject: Subject) -> Iterator[tuple[Path, GgufSummary]]:
    if isinstance(subject.reader, GgufReader):
        yield from subject.reader.model.files.items()


RULES = (
    Rule(
        "gguf-misplaced-tensor",
        "Tensors that overlap, or lie where llama.cpp does not expect them, are read as other numbers or refused.",
        "error",
        _misplaced,
    ),
    Rule(
        "gguf-left-over",
        "Bytes after the last tensor are of another file, or of an older one that was written over.",
        "warning",
        _left_over,
    ),
    Rule(
        "gguf-hole",
        "A download that was cut off can leave a file of full length whose missing parts are zeros.",
        "error",
        _hole,
    ),
    Rule("gguf-not-finite", "A scale of NaN or infinity makes every weight of its block so.", "error", _not_finite),
    Rule("gguf-zero-block", "A scale of zero erases every weight of its block.", "error", _zero_block),
)
