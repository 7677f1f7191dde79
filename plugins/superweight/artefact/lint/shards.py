"""Files of weights that do not belong together: what an older run left, and what an index says of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from superweight.artefact.container import Artefact, read_metadata
from superweight.artefact.lint.missing import family
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.checkpoint.header import TensorInfo, read_header
from superweight.errors import InfraError

_NUMBERED = re.compile(r".+-\d+-of-(\d+)\.safetensors")
_OTHERS = ("adapter_", "consolidated")  # files of another kind that may lie beside a model's
_ADVICE = "Delete the directory and write it again, so that all files are of one run."
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def _stale(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None:
        return
    yield from _beside_an_index(artefact)
    yield from _unnamed(artefact)
    yield from _numbering(artefact)
    yield from _twice(artefact)
    yield from _of_other_runs(artefact)


def _beside_an_index(artefact: Artefact) -> Iterator[Fault]:
    whole, index = artefact.path / "model.safetensors", artefact.path / "model.safetensors.index.json"
    if whole.is_file() and index.is_file():
        found = (
            "expected one or the other; found a whole model, and an index of shards: loaders differ in what they read"
        )
        yield Fault(f"{whole.name}, {index.name}", found, _ADVICE)


def _unnamed(artefact: Artefact) -> Iterator[Fault]:
    """Files that no index names, with tensors of the model: some loaders read every file there is."""
    for file in sorted(artefact.path.glob("*.safetensors")):
        if file in artefact.files or file.name.startswith(_OTHERS):
            continue
        held = _header(file)
        again = [name for name in held if name in artefact.tensors]
        if again or not held:
            what = f"{len(again)} tensors that others hold, too ({again[0]})" if again else "what is no whole file"
            yield Fault(
                file.name, f"expected only files that the index names; found {what}{_age(file, artefact)}", _ADVICE
            )


def _header(file: Path) -> Mapping[str, TensorInfo]:
    try:
        return read_header(file)
    except (InfraError, OSError):
        return {}


def _age(file: Path, artefact: Artefact) -> str:
    """How much older or newer than the others, as a hint."""
    hours = (file.stat().st_mtime - min(other.stat().st_mtime for other in artefact.files)) / 3600
    return "" if abs(hours) < 1 else f", written {abs(hours):,.0f} hours {'later' if hours > 0 else 'before'}"


def _numbering(artefact: Artefact) -> Iterator[Fault]:
    """`model-00002-of-00003` among two, or of sets of different sizes."""
    said = {int(one[1]) for file in artefact.files if (one := _NUMBERED.fullmatch(file.name)) is not None}
    numbered = sum(_NUMBERED.fullmatch(file.name) is not None for file in artefact.files)
    if said and said != {numbered}:
        sets = " and ".join(f"of {size}" for size in sorted(said))
        found = f"expected {numbered} files of one set; by their names they are {sets}"
        yield Fault("model.safetensors.index.json", found, _ADVICE)


def _twice(artefact: Artefact) -> Iterator[Fault]:
    """A tensor in two shards, or named twice in the index: loaders differ in which they take."""
    counts = Counter(name for held in artefact.files.values() for name in held)
    for name, times in counts.items():
        if times > 1:
            files = ", ".join(sorted(file.name for file, held in artefact.files.items() if name in held))
            yield Fault(files, f"expected {name} once, found it {times} times", _ADVICE)
    index = artefact.path / "model.safetensors.index.json"
    if index.is_file() and len(artefact.files) > 1:
        named = Counter(_keys(index.read_text(encoding="utf-8")))
        for name, times in named.items():
            if times > 1:
                yield Fault(index.name, f"expected {name} once, found it {times} times", _ADVICE)
        for name in sorted(set(counts) - set(named)):
            files = ", ".join(sorted(file.name for file, held in artefact.files.items() if name in held))
            yield Fault(files, f"expected only tensors that the index names, found {name}", _ADVICE)


def _keys(text: str) -> list[str]:
    """The keys of `weight_map`, repeated ones as often as they are there."""
    found: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if all(isinstance(value, str) and value.endswith(".safetensors") for _, value in pairs):
            found.extend(key for key, _ in pairs)
        return dict(pairs)

    json.loads(text, object_pairs_hook=note)
    return found


def _of_other_runs(artefact: Artefact) -> Iterator[Fault]:
    """What the files say of the run that wrote them."""
    said = {file: read_metadata(file) for file in artefact.files}
    for key in sorted({key for one in said.values() for key in one}):
        values = Counter(one.get(key, "") for one in said.values())
        if len(values) > 1 and key != "format":
            usual = values.most_common(1)[0][0]
            odd = [file.name for file, one in said.items() if one.get(key, "") != usual]
            if _about_the_run(key):
                yield Fault(
                    ", ".join(sorted(odd)), f"expected the same {key} in every file; these say another", _ADVICE
                )


def _about_the_run(key: str) -> bool:
    """Whether a key of a header speaks of the whole artefact, and not of tensors that lie in one file."""
    return key == "superweight" or any(part in key for part in ("sha256", "hash", "recipe", "version", "identity"))


def _differ(subject: Subject) -> Iterator[Fault]:
    """Modules of one kind that are stored in one way in one file and in another in the next: a hint, no proof."""
    artefact = subject.artefact
    if artefact is None or len(artefact.files) < 2:
        return
    kinds: dict[tuple[str, str], dict[Path, set[tuple[str, tuple[int, ...]]]]] = {}
    for file, held in artefact.files.items():
        for name, info in held.items():
            if _LAYER.search(name):
                here = kinds.setdefault((family(name.rpartition(".")[0]), name.rpartition(".")[2]), {})
                here.setdefault(file, set()).add((info.dtype, info.shape))
    for (like, leaf), stored in kinds.items():
        ways = {frozenset(way) for way in stored.values()}
        if len(ways) > 1 and all(len(way) == 1 for way in ways) and leaf != "weight_shape":
            told = "; ".join(
                f"{file.name}: {dtype} {shape}" for file, way in sorted(stored.items()) for dtype, shape in way
            )
            yield Fault(
                f"{like}.{leaf}",
                f"expected one dtype and shape, found {told}",
                "Make sure that all files are of one run.",
            )


def _index_size(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    index = None if artefact is None else artefact.path / "model.safetensors.index.json"
    if artefact is None or index is None or not index.is_file() or len(artefact.files) < 2:
        return
    about = json.loads(index.read_text(encoding="utf-8")).get("metadata")
    said = about.get("total_size") if isinstance(about, dict) else None
    held = sum(info.stop - info.start for info in artefact.tensors.values())
    if isinstance(said, int | float) and said != held:
        found = f"the index says that there are {said:,.0f} bytes of tensors; the files hold {held:,}"
        yield Fault(f"{index.name}: total_size", found, "Make sure that index and files are of one run.")


RULES = (
    Rule("stale-shard", "A file of an older run gives some layers other weights.", "error", _stale),
    Rule("shards-differ", "Files that store alike modules unlike may be of two runs.", "warning", _differ),
    Rule("index-size", "An index that counts other bytes may be of another run.", "warning", _index_size),
)
