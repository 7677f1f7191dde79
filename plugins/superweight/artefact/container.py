"""An artefact's files: which there are, what its settings say, and single elements of its tensors, read as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from superweight.artefact.numbers import NUMPY, as_floats
from superweight.checkpoint.header import TensorInfo
from superweight.checkpoint.shards import read_json, read_tensors
from superweight.errors import InfraError

_SEPARATE = ("quantization_config.json", "quantize_config.json", "quant_config.json", "quant_model_description.json")
"""Files beside config.json in which quantisers keep their settings."""


@dataclass
class Artefact:
    """A directory of safetensors, opened without reading a tensor.

    Attributes:
        path: the directory.
        read: bytes of tensors that were looked at so far.
    """

    path: Path
    read: int = field(default=0, compare=False)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json; empty if there is none."""
        path = self.path / "config.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What config.json says of the quantiser (`quantization_config`), else a file beside it; empty if nothing."""
        own = self.config.get("quantization_config") or self.config.get("compression_config")
        if isinstance(own, dict):
            return own
        beside = next((self.path / name for name in _SEPARATE if (self.path / name).is_file()), None)
        return read_json(beside) if beside is not None else {}

    @property
    def method(self) -> str:
        """`quant_method` of the settings: `gptq`, `awq`, `compressed-tensors`, …; empty if they name none."""
        return str(self.settings.get("quant_method") or "")

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its name, from the headers of all shards.

        Raises:
            InfraError: there are none, or a header lies (`corrupt`, `missing-tensor`, `not-found`, `pickle`).
        """
        return read_tensors(self.path)

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """`__metadata__` of all shards together."""
        found: dict[str, str] = {}
        for file in sorted({info.file for info in self.tensors.values()}):
            found |= read_metadata(file)
        return found

    @property
    def bytes(self) -> int:
        """Size on disk of all files."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())

    def raw(self, name: str) -> np.ndarray[Any, Any]:
        """A tensor as it is stored, mapped and not read: index it for the elements that are needed.

        Floats that numpy lacks come as the integers of their bits (`numbers.NUMPY`).

        Raises:
            InfraError: there is no such tensor (`missing-tensor`), or its dtype has no whole bytes (`unsupported`).
        """
        info = self.tensors.get(name)
        if info is None:
            raise InfraError(f"{self.path} holds no tensor {name!r}", reason="missing-tensor")
        if info.dtype not in NUMPY:
            raise InfraError(f"{info.file}: {name} is {info.dtype}, which cannot be read here", reason="unsupported")
        kind = np.dtype(NUMPY[info.dtype])
        if not info.stop - info.start:
            return np.empty(info.shape, kind)
        return np.memmap(info.file, dtype=kind, mode="r", offset=info.start, shape=info.shape)

    def integer(self, name: str, *index: int) -> int:
        """One element of a tensor of integers, or the bits of one of floats."""
        array = self.raw(name)
        self.read += array.dtype.itemsize
        return int(array[index])

    def number(self, name: str, *index: int) -> float:
        """One element of a tensor, exactly."""
        array = self.raw(name)
        self.read += array.dtype.itemsize
        return float(as_floats(np.asarray(array[index])[None], self.tensors[name].dtype)[0])

    def numbers(self, name: str) -> np.ndarray[Any, Any]:
        """A whole tensor in float64, for small ones: scales and the like."""
        array = self.raw(name)
        self.read += array.nbytes
        return as_floats(np.asarray(array), self.tensors[name].dtype)


def read_metadata(file: Path) -> dict[str, str]:
    """`__metadata__` of a safetensors file whose header was checked before; empty if it has none."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}
