"""A checkpoint's files: a directory in Hugging Face layout whose weights are safetensors, checked before it is used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from superweight.checkpoint.fetching.cache import Cache, file_sha256
from superweight.checkpoint.header import TensorInfo
from superweight.checkpoint.shards import read_json, read_tensors
from superweight.errors import InfraError

if TYPE_CHECKING:
    import torch

ORIGIN_FILE = "superweight-origin.json"
_ABOUT_THE_FILE = (
    "transformers_version",
    "_name_or_path",
    "_model_name_or_path",
)  # of config.json; no part of the model


@dataclass(frozen=True)
class Checkpoint:
    """The files of one checkpoint.

    Attributes:
        directory: config.json, tokenizer files, safetensors.
        origin: where it came from, with the resolved revision or the hash, for people.
        content_hash: sha256 over the weights' files and config.json, 64 hexadecimal digits; equal wherever the same
            checkpoint lies and whoever downloaded or converted it.
    """

    directory: Path
    origin: str
    content_hash: str

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its name in the checkpoint, as the safetensors headers give it.

        Raises:
            InfraError: as `open_directory`.
        """
        return MappingProxyType(read_tensors(self.directory))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json."""
        return MappingProxyType(_read_config(self.directory))

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """What a converted checkpoint was made from (the GGUF's sha256, its quantisation types); empty otherwise."""
        path = self.directory / ORIGIN_FILE
        return MappingProxyType(read_json(path) if path.is_file() else {})

    @property
    def note(self) -> str:
        """What a reader of this checkpoint's figures must know, "already quantised: …"; empty if there is nothing."""
        return str(self.provenance.get("note", ""))

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in the dtype and shape it is stored in; only its own bytes are read.

        Raises:
            InfraError: missing-tensor.
        """
        from safetensors import safe_open

        with safe_open(self._info(name).file, framework="pt") as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]

    def scalar(self, name: str, index: tuple[int, ...]) -> torch.Tensor:
        """One element of a tensor, 0-dimensional, in the dtype it is stored in; only its own bytes are read.

        Args:
            name: the tensor's name in the checkpoint.
            index: one number a dimension, in the stored orientation.

        Raises:
            InfraError: missing-tensor; unsupported, if the index lies outside the tensor.
        """
        from safetensors import safe_open

        info = self._info(name)
        if len(index) != len(info.shape) or any(not 0 <= i < size for i, size in zip(index, info.shape, strict=True)):
            raise InfraError(
                f"[{index}] lies outside {name} of shape {info.shape} in {info.file}.", reason="unsupported"
            )
        with safe_open(info.file, framework="pt") as file:
            return file.get_slice(name)[tuple(slice(i, i + 1) for i in index)].reshape(())  # type: ignore[no-any-return]

    def _info(self, name: str) -> TensorInfo:
        try:
            return self.tensors[name]
        except KeyError as error:
            raise InfraError(
                f"{self.directory} holds no tensor {name!r}; it holds {len(self.tensors)} others, "
                f"{', '.join(list(self.tensors)[:3])}, … .",
                reason="missing-tensor",
            ) from error


def open_directory(
    path: str | Path, *, origin: str | None = None, cache: Cache | None = None, progress: bool = True
) -> Checkpoint:
    """Check a local directory and describe it. No tensor is loaded.

    Args:
        path: the directory.
        origin: where it came from; the path if not given.
        cache: remembers the hashes of big files, so that they are read once.
        progress: show a bar while hashing.

    Raises:
        InfraError: not-found (no directory, no config.json, no weights), pickle, corrupt (cut short, or a header that
            lies), missing-tensor (a shard, or a tensor of the index).
    """
    directory = Path(path).expanduser().absolute()
    _check_directory(directory)
    config = _read_config(directory)
    tensors = read_tensors(directory)
    files = sorted({tensor.file for tensor in tensors.values()})
    checkpoint = Checkpoint(
        directory=directory,
        origin=origin or f"directory {directory}",
        content_hash=_content_hash(files, config, cache, progress),
    )
    vars(checkpoint)["tensors"] = MappingProxyType(tensors)  # read already; fills the cached property
    return checkpoint


def _check_directory(directory: Path) -> None:
    if not directory.exists():
        raise InfraError(f"{directory} does not exist. Correct the path.", reason="not-found")
    if not directory.is_dir():
        raise InfraError(
            f"{directory} is a file; expected a directory with config.json and safetensors, or a .gguf file.",
            reason="unsupported",
        )


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if path.is_file():
        return read_json(path)
    try:
        read_tensors(directory)
    except InfraError as error:
        if error.reason == "pickle":
            raise
    raise InfraError(
        f"{directory} holds no config.json, without which its weights cannot be understood. Point to the directory "
        "that save_pretrained wrote, or copy the model's config.json there.",
        reason="not-found",
    )


def _content_hash(files: list[Path], config: Mapping[str, Any], cache: Cache | None, progress: bool) -> str:
    digest = hashlib.sha256()
    for file in files:
        found = cache.sha256(file, progress=progress) if cache else file_sha256(file, progress=progress)
        digest.update(f"{file.name}\0{found}\0".encode())
    model = {key: value for key, value in config.items() if key not in _ABOUT_THE_FILE}
    digest.update(json.dumps(model, sort_keys=True).encode())
    return digest.hexdigest()
