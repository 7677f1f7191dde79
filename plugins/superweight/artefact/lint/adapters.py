"""Adapters that lie beside an artefact: whether they are for it, and fit it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from superweight.artefact.container import Artefact, read_metadata
from superweight.artefact.formats.dense import plain_shape
from superweight.artefact.lint.missing import short_name
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.files import open_directory
from superweight.checkpoint.header import read_header
from superweight.checkpoint.shards import read_json
from superweight.errors import InfraError

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_HASHES = ("base_sha256",)
_HASHED_AT_ONCE = 4e9  # bytes of a base that are hashed without being asked to
_ADVICE = "Make the adapter again for this artefact, or take it away."


def _other_base(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    for directory in () if artefact is None else _adapters(artefact.path):
        assert artefact is not None
        yield from _misfits(artefact, subject.original, directory)
        yield from _hash(subject, artefact, directory)


def _adapters(path: Path) -> list[Path]:
    """The directory itself and those in it, where they hold an adapter."""
    return [one.parent for one in sorted([*path.glob(_CONFIG), *path.glob(f"*/{_CONFIG}")])]


def _misfits(artefact: Artefact, original: Artefact | None, directory: Path) -> Iterator[Fault]:
    """Modules that the base has not, or of another shape."""
    file = directory / _WEIGHTS
    base = {short_name(module): (artefact, module) for module in artefact.leaves}
    base |= {short_name(name): (artefact, name) for name in artefact.tensors}
    plain = {short_name(module): (original, module) for module in original.leaves} if original is not None else {}
    for name, info in (read_header(file) if file.is_file() else {}).items():
        module, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        if not part or len(info.shape) != 2:
            continue
        short = short_name(module)
        if short not in base and not any(known.startswith(f"{short}.") for known in base):
            yield Fault(f"{file.name}: {name}", f"expected a module of the base, found none called {module}", _ADVICE)
            continue
        holder, called = plain.get(short) or base.get(short) or (artefact, module)
        shape = plain_shape(holder, called)
        width = info.shape[1] if part.startswith("A") else info.shape[0]
        expected = None if shape is None else shape[1] if part.startswith("A") else shape[0]
        if expected is not None and width != expected:
            yield Fault(f"{file.name}: {name}", f"expected {expected} channels, found {width}", _ADVICE)


def _hash(subject: Subject, artefact: Artefact, directory: Path) -> Iterator[Fault]:
    """The base's hash, where the adapter says it."""
    file = directory / _WEIGHTS
    said = read_metadata(file) if file.is_file() and read_header(file) else {}
    wanted = next((said[key] for key in _HASHES if key in said), None)
    if wanted is None:
        return
    if artefact.bytes > _HASHED_AT_ONCE and not subject.thorough:
        raise InfraError(f"{file} says which base it is for; --thorough hashes {artefact.path}", reason="cannot-tell")
    found = open_directory(artefact.path, cache=Cache(), progress=False).content_hash
    if found != wanted:
        yield Fault(f"{file.name}: base", f"expected a base of the hash {wanted[:12]}…, found {found[:12]}…", _ADVICE)


def _other_name(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    for directory in () if artefact is None else _adapters(artefact.path):
        assert artefact is not None
        said = read_json(directory / _CONFIG).get("base_model_name_or_path")
        known = {artefact.path.resolve().name, *_names_of(artefact)}
        known |= {subject.reference.path.name} if subject.reference is not None else set()
        if isinstance(said, str) and said and said.rstrip("/").rpartition("/")[2] not in known:
            found = f"expected one of {', '.join(sorted(known))}; found {said}"
            yield Fault(f"{_CONFIG}: base_model_name_or_path", found, "Make sure that it is this artefact.")


def _names_of(artefact: Artefact) -> set[str]:
    said = artefact.config.get("_name_or_path")
    return {said.rstrip("/").rpartition("/")[2]} if isinstance(said, str) and said else set()


RULES = (
    Rule("adapter-base", "An adapter for another base adds the wrong numbers to the weights.", "error", _other_base),
    Rule("adapter-name", "An adapter that names another base may be for that.", "warning", _other_name),
)
