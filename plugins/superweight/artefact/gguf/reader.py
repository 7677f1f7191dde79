"""Looks super weights up in GGUF files: one block of the down projection is read, and decoded by the gguf package."""

from __future__ import annotations

import builtins
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from superweight.artefact.gguf.blocks import decodable, decoded
from superweight.artefact.gguf.model_files import GgufModel, open_model
from superweight.artefact.held import Held
from superweight.cards.base import Coordinate
from superweight.checkpoint.gguf_header import GgufTensor
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

_DOWN = re.compile(r"blk\.(?P<layer>\d+)\.ffn_down(?P<experts>_exps)?(?:\.(?P<expert>\d+))?\.weight")
_BESIDE = ("{module}.scale", "blk.{layer}.ffn_act.scales")
"""Tensors that change what a down projection does, in ways that its own numbers do not show."""


class DownProjection(NamedTuple):
    """A tensor of down projections.

    Attributes:
        file: that holds it.
        tensor: its place, type and shape: (out, in), or (experts, out, in).
        layer: number of the decoder layer.
        expert: which expert it is; None of a dense layer, -1 if it is all experts of the layer.
    """

    file: Path
    tensor: GgufTensor
    layer: int
    expert: int | None

    @property
    def module(self) -> str:
        """`blk.2.ffn_down`."""
        return self.tensor.name.removesuffix(".weight")


class GgufReader:
    """Reads a GGUF file, all parts of a split one, or the one model of a directory.

    Args:
        path: of the file, of any part, or of the directory.

    Raises:
        InfraError: as `model_files.open_model`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model: GgufModel = open_model(path)
        self._read = 0

    @property
    def about(self) -> str:
        """The quantisation types of its down projections."""
        kinds = Counter(down.tensor.kind for down in self.down.values())
        listed = ", ".join(f"{kind} × {count}" for kind, count in kinds.most_common())
        return f"GGUF: {listed}" if listed else "GGUF: no down projections"

    @property
    def bytes(self) -> int:
        """Size on disk of all parts."""
        return sum(path.stat().st_size for path in self.model.files)

    @property
    def read(self) -> int:
        """Bytes of tensors that were looked at so far."""
        return self._read

    @property
    def sizes(self) -> Mapping[str, int]:
        """What the metadata and the embedding say of how large the model is."""
        embedding = self.model.find("token_embd.weight")
        layers, extra = self.size("block_count"), self.size("nextn_predict_layers") or 0
        experts = self.size("expert_count") or None
        found = {
            "hidden_size": self.size("embedding_length"),
            "num_hidden_layers": layers - extra if layers is not None else None,
            "intermediate_size": self.size("feed_forward_length") if experts is None else None,
            "num_experts": experts,
            "vocab_size": embedding[1].shape[0] if embedding is not None and embedding[1].shape else None,
        }
        return {name: size for name, size in found.items() if size is not None}

    def size(self, name: str) -> int | None:
        """A whole number that the metadata has for the architecture: `block_count`; None if there is none."""
        found = self.model.keys.get(f"{self.model.keys.get('general.architecture')}.{name}")
        return found if isinstance(found, int) else None

    @cached_property
    def down(self) -> dict[tuple[int, int | None], DownProjection]:
        """The down projections, by layer and expert."""
        found: dict[tuple[int, int | None], DownProjection] = {}
        for file, summary in self.model.files.items():
            for name, tensor in summary.held.items():
                if (match := _DOWN.fullmatch(name)) and len(tensor.shape) > 1:
                    expert = int(match["expert"]) if match["expert"] else -1 if match["experts"] else None
                    layer = int(match["layer"])
                    found[layer, expert] = DownProjection(file, tensor, layer, expert)
        return found

    def scalar(self, where: Coordinate) -> Held | CannotTell:
        """As `Reader.scalar`."""
        down = self._of(where.layer, where.expert)
        if down is None:
            expert = "" if where.expert is None else f", expert {where.expert}"
            return CannotTell(f"{self.path.name} holds no down projection of layer {where.layer}{expert}")
        if (reason := self._hidden(down)) is not None:
            return CannotTell(reason)
        index = self._index(down, where)
        if isinstance(index, CannotTell):
            return index
        kind, element = down.tensor.kind, index % down.tensor.block
        raw = self.raw(down, index // down.tensor.block)
        return Held(down.module, stored_as(down.tensor), decoded(raw[0], kind, element))

    def raw(self, down: DownProjection, block: int, blocks: int = 1) -> np.ndarray[Any, Any]:
        """Some blocks of a tensor as they are stored: uint8, (blocks, bytes of one).

        Args:
            down: the tensor.
            block: number of the first one.
            blocks: how many.

        Raises:
            InfraError: the file has become shorter (`corrupt`).
        """
        size = down.tensor.block_bytes
        found = self.stored(down.file, down.tensor, block * size, blocks * size)
        return np.frombuffer(found, np.uint8).reshape(blocks, size)

    def stored(self, file: Path, tensor: GgufTensor, at: int, size: int) -> builtins.bytes:
        """Some bytes of a tensor, counted from its first one; errors as `raw`."""
        with file.open("rb") as stream:
            stream.seek(tensor.start + at)
            found = stream.read(size)
        if len(found) != size:
            raise InfraError(f"{file} ends within {tensor.name}. Get the file again.", reason="corrupt")
        self._read += size
        return found

    def _of(self, layer: int, expert: int | None) -> DownProjection | None:
        if expert is not None and (layer, -1) in self.down:
            return self.down[layer, -1]
        return self.down.get((layer, expert))

    def _hidden(self, down: DownProjection) -> str | None:
        """Why a tensor's numbers are not all that the layer does; None if they are."""
        if not decodable(down.tensor.kind):
            return f"{down.tensor.name} is {down.tensor.kind}, which the installed gguf package cannot decode"
        beside = [name.format(module=down.module, layer=down.layer) for name in _BESIDE]
        other = next((name for name in beside if self.model.find(name)), None)
        return None if other is None else f"{other} changes what {down.tensor.name} does, which is not read here"

    def _index(self, down: DownProjection, where: Coordinate) -> int | CannotTell:
        """Where a scalar lies among all of its tensor, flattened."""
        shape = down.tensor.shape
        index = (where.row, where.column) if down.expert != -1 else (where.expert or 0, where.row, where.column)
        if len(shape) != len(index):
            return CannotTell(f"{down.tensor.name} should have {len(index)} dimensions, found shape {list(shape)}")
        if any(at >= size for at, size in zip(index, shape, strict=True)):
            return CannotTell(f"{list(index)} lies outside {down.tensor.name} of shape {list(shape)}")
        return int(np.ravel_multi_index(index, shape))


def stored_as(tensor: GgufTensor) -> str:
    """`GGUF Q6_K, blocks of 256`."""
    return f"GGUF {tensor.kind}, blocks of {tensor.block}" if tensor.block > 1 else f"GGUF {tensor.kind}"
