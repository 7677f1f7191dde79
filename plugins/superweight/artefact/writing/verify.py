"""Files read back by other people's code, and held against the recipe and the checkpoint, before they are named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from superweight.artefact.writing.outline import Part
from superweight.artefact.writing.schemes import Scheme
from superweight.artefact.writing.settings import library_scheme
from superweight.artefact.writing.shards import Shard
from superweight.artefact.writing.tensors import Unit, codes_of, copied_bytes, raw_bytes
from superweight.checkpoint.files import Checkpoint
from superweight.errors import InfraError

if TYPE_CHECKING:
    import torch

    from superweight.compress import Recipe
    from superweight.compress.integer import Codes


def verify_shard(
    path: Path,
    shard: Shard,
    checkpoint: Checkpoint,
    recipe: Recipe[Any],
    scheme: Scheme,
    dtype: torch.dtype | None = None,
) -> None:
    """Read a file with safetensors and compressed-tensors, and everything that it was made from again.

    Codes, scales and zero points must be the recipe's, bit for bit; what the library decodes them to, every number
    that the recipe leaves in memory, but for super weights that are restored beside them; everything else, the
    checkpoint's own bytes.

    Raises:
        InfraError: they are not (`corrupt`); says where, and how many.
    """
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for unit in shard.units:
            if unit.source is None:
                _verify_copy(path, unit, checkpoint, file)
            else:
                _verify_codes(path, unit, checkpoint, recipe, scheme, file, dtype)


def _verify_copy(path: Path, unit: Unit, checkpoint: Checkpoint, file: Any) -> None:
    name = unit.slots[0].name
    found, expected = raw_bytes(file.get_tensor(name)), copied_bytes(checkpoint, unit)
    if not np.array_equal(found, expected):
        raise _differs(path, name, "its bytes are not the checkpoint's")


def _verify_codes(
    path: Path,
    unit: Unit,
    checkpoint: Checkpoint,
    recipe: Recipe[Any],
    scheme: Scheme,
    file: Any,
    dtype: torch.dtype | None,
) -> None:
    source = unit.source
    assert source is not None
    matrix = source.read(checkpoint, dtype)
    codes = codes_of(recipe, matrix)
    recipe.compress(matrix)
    restored = {(one.row, one.column) for one in source.super_weights}
    leaves = {slot.name: slot.name.rpartition(".")[2] for slot in unit.slots}
    for part in source.parts:
        state = {leaf: file.get_tensor(name) for name, leaf in leaves.items() if name.rpartition(".")[0] == part.module}
        _compare_codes(path, part, state, codes, scheme)
        _compare_values(path, part, state, matrix.values[part.rows], scheme, restored)


def _compare_codes(path: Path, part: Part, state: Mapping[str, torch.Tensor], codes: Codes, scheme: Scheme) -> None:
    import torch
    from compressed_tensors.compressors import unpack_from_int32

    def same(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
        a, b = (one.contiguous().view(torch.uint8) for one in (found, expected.reshape(found.shape)))
        if not torch.equal(a, b):
            raise _differs(path, part.module, f"{int((a != b).sum())} bytes of its {what} are not the recipe's")

    expected = codes.codes[part.rows]
    if scheme.packed:
        same(unpack_from_int32(state["weight_packed"], scheme.bits, expected.shape), expected, "codes")
        if state["weight_shape"].tolist() != list(expected.shape):
            raise _differs(path, part.module, f"weight_shape is {state['weight_shape'].tolist()}")
    else:
        same(state["weight"], expected, "codes")
    rows = slice(None) if scheme.strategy == "tensor" else part.rows
    same(state["weight_scale"], codes.scale[rows], "scales")
    if codes.zero_point is None:
        return
    zero, found = codes.zero_point[rows], state["weight_zero_point"]
    if found.dtype == torch.int32:
        found = unpack_from_int32(found, scheme.bits, zero.shape, packed_dim=0)
    same(found, zero, "zero points")


def _compare_values(
    path: Path,
    part: Part,
    state: Mapping[str, torch.Tensor],
    expected: torch.Tensor,
    scheme: Scheme,
    restored: set[tuple[int, int]],
) -> None:
    found = decode(state, scheme).to(expected.dtype)
    differs = (found != expected).nonzero().tolist()
    elsewhere = [(row, column) for row, column in differs if (row + part.rows.start, column) not in restored]
    if elsewhere:
        row, column = elsewhere[0]
        raise _differs(
            path,
            part.module,
            f"{len(elsewhere)} weights decode to other numbers than the recipe leaves in memory, first "
            f"[{row}, {column}]: {found[row, column].item()!r} in the file, {expected[row, column].item()!r} in memory",
        )


def decode(state: Mapping[str, torch.Tensor], scheme: Scheme) -> torch.Tensor:
    """What compressed-tensors makes of one module's tensors, in the dtype of its scales."""
    from compressed_tensors.compressors import BaseCompressor

    compressor = BaseCompressor.get_value_from_registry(scheme.layout)
    found: torch.Tensor = compressor.decompress(dict(state), library_scheme(scheme))["weight"]
    return found


def _differs(path: Path, name: str, what: str) -> InfraError:
    return InfraError(
        f"{path.name}: {name} was written and read back, and {what}. Nothing is published; the disk or a library is at "
        "fault.",
        reason="corrupt",
    )
