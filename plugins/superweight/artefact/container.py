"""An artefact's files: which there are, what its settings say, and single elements of its tensors, read as bytes."""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from superweight.artefact.numbers import NUMPY, as_floats
from superweight.checkpoint.header import TensorInfo, read_header
from superweight.checkpoint.shards import read_files, read_index, read_json
from superweight.errors import InfraError

SEPARATE = ("quantization_config.json", "quantize_config.json", "quant_config.json", "quant_model_description.json")
"""Files beside config.json in which quantisers keep their settings."""
_TEXT = ("text_config", "llm_config", "language_config")


@dataclass
class Artefact:
    """A directory of safetensors, opened without reading a tensor.

    Attributes:
        path: the directory.
        read: bytes of tensors that were looked at so far.
    """

    path: Path
    read: int = field(default=0, compare=False)
    _mapped: dict[Path, np.ndarray[Any, Any]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json; empty if there is none."""
        path = self.path / "config.json"
        return read_json(path) if path.is_file() else {}

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """What config.json says of the quantiser (`quantization_config`), else a file beside it; empty if nothing."""
        places = [self.config, self.text_config]
        said = [place.get(name) for name in ("quantization_config", "compression_config") for place in places]
        own = next((one for one in said if isinstance(one, dict) and one), None)
        if own is not None:
            return own
        beside = next((self.path / name for name in SEPARATE if (self.path / name).is_file()), None)
        return read_json(beside) if beside is not None else {}

    @property
    def text_config(self) -> Mapping[str, Any]:
        """What config.json says of the language model: a part of it in models of text and pictures, else all of it."""
        found = next((self.config.get(name) for name in _TEXT if isinstance(self.config.get(name), dict)), None)
        return found if isinstance(found, dict) else self.config

    def size_of(self, *names: str) -> int | None:
        """A whole number from config.json under the first of several names that families use; None if it has none."""
        found = [self.text_config.get(name) for name in names]
        return next((number for number in found if type(number) is int), None)

    @property
    def hidden_size(self) -> int | None:
        """Width of the residual stream; None if config.json does not say."""
        return self.size_of("hidden_size", "n_embd", "n_embed", "d_model", "model_dim")

    @property
    def method(self) -> str:
        """`quant_method` of the settings: `gptq`, `awq`, `compressed-tensors`, …; empty if they name none."""
        return str(self.settings.get("quant_method") or "")

    @cached_property
    def files(self) -> Mapping[Path, Mapping[str, TensorInfo]]:
        """Every file that is the model, and the tensors in it, from its header.

        Raises:
            InfraError: there are none, or a header lies (`corrupt`, `missing-tensor`, `not-found`, `pickle`).
        """
        alone = self._alone()
        return read_files(self.path) if alone is None else {alone: read_header(alone)}

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its name; of one that several files hold, the one that the index names. Errors as `files`."""
        named = read_index(self.path) if len(self.files) > 1 else {}
        found: dict[str, TensorInfo] = {}
        for file, held in self.files.items():
            found |= {name: info for name, info in held.items() if named.get(name, file.name) == file.name}
        return found

    def _alone(self) -> Path | None:
        """The only file of weights, if it has a name of its own, such as `gptq_model-4bit-128g.safetensors`."""
        files = [path for path in self.path.glob("*.safetensors") if not path.name.startswith("adapter_")]
        indices = list(self.path.glob("*.safetensors.index.json"))
        return files[0] if len(files) == 1 and files[0].is_file() and not indices else None

    @cached_property
    def leaves(self) -> Mapping[str, Mapping[str, TensorInfo]]:
        """Every module by its name: its tensors by what follows it, `weight_scale`; what has no dot is `""`'s."""
        found: dict[str, dict[str, TensorInfo]] = {}
        for name, info in self.tensors.items():
            module, _, leaf = name.rpartition(".")
            found.setdefault(module, {})[leaf] = info
        return found

    @cached_property
    def _nesting(self) -> frozenset[str]:
        return frozenset(name.rpartition(".")[0] for name in self.leaves)

    def nests(self, module: str) -> bool:
        """Whether tensors belong to something inside a module: the parts of a packed weight, or of an adapter."""
        return module in self._nesting

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """`__metadata__` of all shards together."""
        found: dict[str, str] = {}
        for file in sorted(self.files):
            found |= read_metadata(file)
        return found

    @property
    def bytes(self) -> int:
        """Size on disk of all files."""
        files = [path for path in self.path.rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files if not _hidden(path.relative_to(self.path)))

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
        if info.start == info.stop:
            return np.empty(info.shape, kind)
        if info.file not in self._mapped:  # a mapping a file: there may be more tensors than mappings
            self._mapped[info.file] = _mapped(info.file)
        return self._mapped[info.file][info.start : info.stop].view(kind).reshape(info.shape)

    def integer(self, name: str, *index: int) -> int:
        """One element of a tensor of integers, or the bits of one of floats; errors as `number`."""
        return int(self._element(name, index))

    def number(self, name: str, *index: int) -> float:
        """One element of a tensor, exactly.

        Raises:
            InfraError: as `raw`; or the index lies outside the tensor (`corrupt`).
        """
        return float(as_floats(self._element(name, index)[None], self.tensors[name].dtype)[0])

    def numbers(self, name: str, most: int | None = None, runs: int = 16) -> np.ndarray[Any, Any]:
        """A whole tensor in float64, for small ones: scales and the like.

        Args:
            name: the tensor.
            most: elements that are read; of a larger tensor, so many in runs that are spread evenly over it, flat.
            runs: how many.
        """
        array = self.raw(name)
        if most is not None and array.size > most:
            array = _spread(array.reshape(-1), most // runs, runs)
        self.read += array.nbytes
        return as_floats(np.asarray(array), self.tensors[name].dtype)

    def line(self, name: str, *index: int | slice) -> np.ndarray[Any, Any]:
        """A row or a column of a tensor in float64: indices, and a slice where all is wanted."""
        array = np.asarray(self.raw(name)[index])
        self.read += array.nbytes
        return as_floats(array, self.tensors[name].dtype)

    def _element(self, name: str, index: tuple[int, ...]) -> np.ndarray[Any, Any]:
        array = self.raw(name)
        inside = len(index) == array.ndim and all(0 <= at < size for at, size in zip(index, array.shape, strict=True))
        if not inside:
            raise InfraError(
                f"{self.tensors[name].file}: {list(index)} lies outside {name} of shape {array.shape}, though another "
                "tensor of its module says that it is there. The file is not whole; write it again.",
                reason="corrupt",
            )
        self.read += array.dtype.itemsize
        return np.asarray(array[index])


def _mapped(file: Path) -> np.ndarray[Any, Any]:
    """A file's bytes, of which a page is read when it is looked at, and none around it."""
    with file.open("rb") as stream:
        found = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    if hasattr(mmap, "MADV_RANDOM"):
        found.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(found, np.uint8)


def _spread(flat: np.ndarray[Any, Any], length: int, runs: int) -> np.ndarray[Any, Any]:
    """Runs of elements, spread evenly, the first and the last among them."""
    starts = np.linspace(0, flat.size - length, runs).astype(int)
    return np.concatenate([flat[start : start + length] for start in starts])


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def read_metadata(file: Path) -> dict[str, str]:
    """`__metadata__` of a safetensors file whose header was checked before; empty if it has none."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return {str(key): str(value) for key, value in (header.get("__metadata__") or {}).items()}
