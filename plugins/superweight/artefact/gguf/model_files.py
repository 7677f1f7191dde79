"""Which GGUF files make a model: one, or the parts of a split one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from superweight.checkpoint.gguf_header import GgufSummary, GgufTensor, GgufValue, read_gguf_header
from superweight.errors import InfraError

_PART = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")
_NO_MODELS = ("adapter", "imatrix", "mmproj")
"""What `general.type` says of files that lie beside a model."""


@dataclass(frozen=True)
class GgufModel:
    """The files of one model, their headers read and checked.

    Attributes:
        files: path → what it holds; the first has the metadata.
    """

    files: Mapping[Path, GgufSummary]

    @property
    def first(self) -> Path:
        """The file that has the metadata."""
        return next(iter(self.files))

    @property
    def keys(self) -> Mapping[str, GgufValue]:
        """The metadata."""
        return self.files[self.first].keys

    def find(self, name: str) -> tuple[Path, GgufTensor] | None:
        """A tensor and the file that it is in; None if there is none of that name."""
        return next(((path, found.held[name]) for path, found in self.files.items() if name in found.held), None)

    @property
    def tensors(self) -> Mapping[str, GgufTensor]:
        """Every tensor by its name, in the files' order."""
        return {name: tensor for summary in self.files.values() for name, tensor in summary.held.items()}


def open_model(path: Path) -> GgufModel:
    """Read the headers of a file, of all parts of the split model that it belongs to, or of a directory's one model.

    Raises:
        InfraError: as `read_gguf_header`; a part is not there, or holds less than was split (`missing-tensor`); the
            directory holds none (`not-found`) or several models (`unsupported`); parts of different models (`corrupt`).
    """
    if path.is_dir():
        return open_model(_only(path))
    files = _parts(path)
    model = GgufModel({file: read_gguf_header(file) for file in files})
    _check_parts(model)
    return model


def models_in(directory: Path) -> list[Path]:
    """The GGUF models in a directory: the first part of each split one; no projectors, adapters or matrices."""
    files = sorted(path for path in directory.glob("*.gguf") if path.is_file() and not path.name.startswith("."))
    first = [path for path in files if (match := _PART.fullmatch(path.name)) is None or int(match["part"]) == 1]
    orphans = [path for path in files if path not in first and _parts_of(path)[0] not in first]
    return [path for path in first + orphans if _is_model(path)]


def _is_model(path: Path) -> bool:
    """Whether a file is a language model, or cannot be read, which is told when it is opened."""
    try:
        keys = read_gguf_header(path).keys
    except InfraError:
        return True
    return keys.get("general.architecture") != "clip" and keys.get("general.type") not in _NO_MODELS


def _only(directory: Path) -> Path:
    models = models_in(directory)
    if not models:
        raise InfraError(f"{directory} holds no GGUF file of a language model. Correct the path.", reason="not-found")
    if len(models) > 1:
        names = ", ".join(path.name for path in models[:5]) + (", …" if len(models) > 5 else "")
        raise InfraError(
            f"{directory} holds {len(models)} GGUF models: {names}. Give the path of one.", reason="unsupported"
        )
    return models[0]


def _parts_of(path: Path) -> list[Path]:
    """The names that all parts of a split model have; the file's own if it is not named like a part."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return [path]
    parts = int(match["parts"])
    return [path.with_name(f"{match['stem']}-{part:05d}-of-{parts:05d}.gguf") for part in range(1, parts + 1)] or [path]


def _parts(path: Path) -> list[Path]:
    parts = _parts_of(path)
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InfraError(
            f"{path} is a part of {len(parts)}; {len(missing)} are not there: {', '.join(missing[:5])}. "
            "Get the missing parts into its directory.",
            reason="missing-tensor",
        )
    return parts


def _check_parts(model: GgufModel) -> None:
    for number, (path, summary) in enumerate(model.files.items(), 1):
        if summary.part != (number, len(model.files)):
            part, parts = summary.part
            raise InfraError(
                f"{path} says that it is part {part} of {parts}; by the files' names it is part {number} of "
                f"{len(model.files)}. Give all parts the names that llama-gguf-split gave them.",
                reason="missing-tensor" if parts > len(model.files) else "corrupt",
            )
    held = sum(len(summary.held) for summary in model.files.values())
    if held != len(model.tensors):
        raise InfraError(f"{model.first}: a tensor lies in two of its parts. Get all parts again.", reason="corrupt")
    expected = model.keys.get("split.tensors.count")
    if len(model.files) > 1 and expected != held:
        raise InfraError(
            f"{model.first}: expected {expected} tensors in all parts, found {held}. The parts belong to different "
            "models; get all of them again.",
            reason="missing-tensor",
        )
