"""Write a recipe's codes as compressed-tensors: matrix by matrix, shard by shard, each checked before it counts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superweight.artefact.writing import metadata
from superweight.artefact.writing.outline import Outline, Source
from superweight.artefact.writing.schemes import Scheme, restores, scheme_of
from superweight.artefact.writing.settings import config_of, quantization_config
from superweight.artefact.writing.shards import INDEX, Shard, index_of, shards_of, write_shard
from superweight.artefact.writing.sidecars import carry, sidecars
from superweight.artefact.writing.tensors import (
    SAFETENSORS,
    Bytes,
    Unit,
    coded_tensors,
    coded_unit,
    codes_of,
    copied_bytes,
    copied_unit,
    raw_bytes,
)
from superweight.artefact.writing.verify import verify_shard
from superweight.artefact.writing.work import Work, refuse_taken, working
from superweight.cards.base import Coordinate
from superweight.cards.recipe import RecipeCard
from superweight.checkpoint.fetching.progress import byte_bar
from superweight.checkpoint.files import Checkpoint
from superweight.errors import InfraError

if TYPE_CHECKING:
    import torch

    from superweight.compress import Recipe

SHARD_SIZE = 5 * 10**9
"""Bytes of tensors in a file, as the hub's tools split models."""

_SLACK = 1 << 20  # bytes of settings, headers and notes
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Written:
    """An artefact that was written.

    Attributes:
        directory: where it is.
        about: how its codes are stored, in words.
        bytes: on disk.
        source_bytes: of the checkpoint's weights.
        modules: how many have codes.
        excluded: parameters of the decoder layers that the recipe leaves as they are.
        restored: super weights that must be brought back by an adapter.
        taken_up: files that an earlier run had left whole.
        notes: what a reader must know; mostly none.
        seconds: it took.
    """

    directory: Path
    about: str
    bytes: int
    source_bytes: int
    modules: int
    excluded: tuple[str, ...]
    restored: tuple[Coordinate, ...]
    taken_up: int
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Plan:
    """All that will be written.

    Attributes:
        scheme: how codes are stored.
        recipe: makes them.
        shards: the files.
        ignored: names of Linear modules without codes.
        excluded: parameters of the decoder layers without codes.
        dtype: to which the checkpoint is rounded first; None leaves it.
        stored: torch's name of the dtype of the weights that the codes are of.
        notes: what a reader of the artefact must know.
    """

    scheme: Scheme
    recipe: Recipe[Any]
    shards: tuple[Shard, ...]
    ignored: tuple[str, ...]
    excluded: tuple[str, ...]
    dtype: torch.dtype | None = None
    stored: str = ""
    notes: tuple[str, ...] = ()

    @property
    def units(self) -> list[Unit]:
        """Everything, in order."""
        return [unit for shard in self.shards for unit in shard.units]

    @property
    def modules(self) -> int:
        """How many modules have codes."""
        return sum(len(unit.source.parts) for unit in self.units if unit.source)


def plan(
    checkpoint: Checkpoint,
    card: RecipeCard,
    super_weights: Sequence[Coordinate] = (),
    *,
    shard_size: int = SHARD_SIZE,
    dtype: str = "",
) -> Plan:
    """What will be written of a checkpoint; no weight is read.

    Args:
        checkpoint: the uncompressed model.
        card: its recipe.
        super_weights: those that are known.
        shard_size: bytes of tensors in a file.
        dtype: torch's name of one to which the checkpoint is rounded first; empty leaves it.

    Raises:
        InfraError: the recipe has no deployable form, or fits no module of the model (`recipe-mismatch`); the
            checkpoint is no uncompressed model (`unsupported`, `missing-tensor`, `corrupt`).
    """
    from superweight.checkpoint.remnants import check_directory
    from superweight.compress import recipe_of

    scheme = scheme_of(card.method)
    check_directory(checkpoint)
    outline, recipe = Outline(checkpoint), recipe_of(card.method)
    held = outline.held(super_weights)
    coded, excluded = _sources(outline, recipe, held)
    _check_experts(coded, [name for name in excluded if outline.stacked_modules(name)], scheme)
    modules = {part.module for source in coded for part in source.parts}
    ignored = [name for module in outline.linear_modules for name in outline.module_names(module)]
    ignored += [spelt for name in excluded for spelt in _spelt(outline, name)]
    left = tuple(dict.fromkeys(name for name in ignored if name not in modules and name not in _coded(coded)))
    stored = dtype or _stored(checkpoint, coded)
    units = _units(checkpoint, coded, scheme, card, dtype)
    notes = tuple(_notes(scheme, units, SAFETENSORS[stored]))
    shards = tuple(shards_of(units, shard_size))
    return Plan(scheme, recipe, shards, left, excluded, _torch_dtype(dtype), stored, notes)


def _stored(checkpoint: Checkpoint, coded: Sequence[Source]) -> str:
    """Torch's name of the one dtype in which all matrices are stored that get codes.

    Raises:
        InfraError: they have several, or one that no recipe rounds (`unsupported`).
    """
    found = {checkpoint.tensors[part.tensor].dtype: part.tensor for source in coded for part in source.parts}
    names = {SAFETENSORS[name]: name for name in SAFETENSORS if name != "float64"}
    if len(found) > 1 or not found.keys() <= names.keys():
        listed = ", ".join(f"{name} {dtype}" for dtype, name in found.items())
        raise InfraError(
            f"{checkpoint.directory} stores the matrices to be compressed as {listed}; expected one of "
            f"{', '.join(names)} for all. Save the linear weights of the decoder layers in one dtype.",
            reason="unsupported",
        )
    return names[next(iter(found))]


def _notes(scheme: Scheme, units: Sequence[Unit], stored: str) -> Iterator[str]:
    """What is true of the file and not of every way of loading it."""
    if scheme.note:
        yield scheme.note
    if not scheme.symmetric and scheme.packed and scheme.strategy != "tensor":
        yield "transformers loads packed zero points with CompressedTensorsConfig(dequantize=True) alone"
    if scheme.activations and any(unit.source and unit.source.expert is not None for unit in units):
        yield "transformers leaves the inputs of experts as they are"
    scale = next(slot.dtype for unit in units for slot in unit.slots if slot.name.endswith(".weight_scale"))
    if scale != stored:
        yield (
            f"scales are {scale} beside weights that were {stored}: transformers converts them as it loads, and so has "
            "other weights than these, unless it is given CompressedTensorsConfig(dequantize=True)"
        )


def write(
    checkpoint: Checkpoint,
    card: RecipeCard,
    target: Path,
    super_weights: Mapping[Coordinate, str],
    *,
    shard_size: int = SHARD_SIZE,
    dtype: str = "",
    progress: bool = True,
    finish: Callable[[Path], Mapping[str, Any]] | None = None,
) -> Written:
    """Write a recipe's codes, whole or not at all.

    A run that was killed is gone on from at its last whole file.

    Args:
        checkpoint: the uncompressed model.
        card: its recipe.
        target: the directory that is made.
        super_weights: those that are known → status.
        shard_size: bytes of tensors in a file.
        dtype: torch's name of one to which the checkpoint is rounded first; empty leaves it.
        progress: show a bar.
        finish: is given the whole directory before it gets its name, and may look at it, add to it, or refuse it; what
            it returns goes into superweight.json.

    Raises:
        InfraError: as `plan`; the name is taken (`unsupported`), the disk is full (`disk-full`), or what was read back
            is not what was written (`corrupt`).
    """
    started = time.perf_counter()
    refuse_taken(target)
    planned = plan(checkpoint, card, list(super_weights), shard_size=shard_size, dtype=dtype)
    recipe = metadata.recipe_facts(card)
    sketch = [[shard.name, [list(slot[:3]) for slot in shard.slots]] for shard in planned.shards]
    identity = metadata.identity(checkpoint, recipe, list(super_weights), [sketch, dtype, shard_size])
    header = metadata.header_metadata(checkpoint, recipe, identity)
    with working(target, identity) as work:
        taken_up = len(work.done)
        work.require(_still_needed(planned, work, checkpoint))
        _write_shards(checkpoint, planned, work, header, progress)
        _write_settings(checkpoint, planned, work)
        facts = {**_facts(checkpoint, card, planned, work, super_weights), "identity": identity}
        more = finish(work.directory) if finish is not None else {}
        _write_json(work.directory / metadata.FILE, {**facts, **more})
        work.publish()
    restored = tuple(super_weights) if restores(card.method) else ()
    return Written(
        directory=target,
        about=str(planned.scheme),
        bytes=_size(target),
        source_bytes=_weights(checkpoint),
        modules=planned.modules,
        excluded=planned.excluded,
        restored=restored,
        taken_up=taken_up,
        notes=planned.notes,
        seconds=time.perf_counter() - started,
    )


def _sources(
    outline: Outline, recipe: Recipe[Any], held: Mapping[str, Sequence[Coordinate]]
) -> tuple[list[Source], tuple[str, ...]]:
    """The matrices that get codes, and the parameters that do not."""
    from superweight.compress.integer import CodedRecipe, check_excluded, check_groups

    if isinstance(recipe, CodedRecipe):
        recipe.holding = frozenset(held)
        check_excluded(recipe.method, outline.modules)
    coded: list[Source] = []
    excluded: list[str] = []
    for weight in outline.weights:
        if isinstance(recipe, CodedRecipe) and recipe.left_alone(weight.name):
            excluded.append(weight.name)
        else:
            check_groups(weight.name, weight.shape[1], getattr(recipe.method, "group_size", None))
            coded += outline.sources(weight, held.get(weight.name, ()))
    if not coded:
        raise InfraError("the recipe excludes every module: there is nothing to compress", reason="recipe-mismatch")
    return coded, tuple(excluded)


def _check_experts(coded: Sequence[Source], left: Sequence[str], scheme: Scheme) -> None:
    """Engines fuse the experts of a layer, which then have codes together or not at all; transformers knows two forms.

    Args:
        coded: the matrices that get codes.
        left: parameters of experts without codes, of which the files have a tensor for each expert.
        scheme: how codes are stored.

    Raises:
        InfraError: `recipe-mismatch`.
    """
    experts = [source for source in coded if source.expert is not None]
    if experts and scheme.kind == "int" and not (scheme.packed and scheme.symmetric):
        raise InfraError(
            f"{experts[0].parameter} holds experts, and transformers, which could prove the file, does not load "
            f"experts as {scheme}. Near is kind = 'integer' with symmetric = true and activations = 'none', or kind = "
            "'float8'.",
            reason="recipe-mismatch",
        )
    if left and scheme.packed:
        raise InfraError(
            f"exclude leaves the experts {left[0]} as they are, and transformers, which could prove the file, does not "
            "load plain experts from one with packed codes. Near is kind = 'float8', with which it does.",
            reason="recipe-mismatch",
        )
    with_codes = {source.parameter.rpartition(".")[0] for source in experts}
    if mixed := [name for name in left if name.rpartition(".")[0] in with_codes]:
        layer = mixed[0].rpartition(".")[0]
        raise InfraError(
            f"exclude leaves {mixed[0]} as it is and not the other matrices of the same experts, which engines run as "
            f"one. Name them all in exclude: 're:{layer.replace('.', '[.]')}[.].*'.",
            reason="recipe-mismatch",
        )


def _spelt(outline: Outline, parameter: str) -> Iterator[str]:
    """Names of the modules of a parameter without codes, in the model and in the files."""
    module = parameter.removesuffix(".weight")
    yield from outline.module_names(module)
    if module == parameter:  # the experts of a layer
        yield from outline.stacked_modules(parameter)


def _coded(sources: Sequence[Source]) -> set[str]:
    return {source.parameter.removesuffix(".weight") for source in sources}


def _units(checkpoint: Checkpoint, coded: Sequence[Source], scheme: Scheme, card: RecipeCard, dtype: str) -> list[Unit]:
    """Every tensor of the checkpoint, in its order; a matrix where its first tensor stands."""
    first = {source.parts[0].tensor: source for source in coded}
    parts = {part.tensor for source in coded for part in source.parts}
    cast = SAFETENSORS[dtype] if dtype else ""
    units: list[Unit] = []
    for name, info in checkpoint.tensors.items():
        if name in first:
            scale = _scale_dtype(card, cast or info.dtype)
            units.append(coded_unit(first[name], scheme, scale))
        elif name not in parts:
            units.append(copied_unit(name, info, cast if cast != info.dtype and info.dtype in _FLOATS else ""))
    return units


def _scale_dtype(card: RecipeCard, stored: str) -> str:
    """Safetensors' dtype of scales; simulated W8A8 has float32 ones."""
    named = str(getattr(card.method, "scale_dtype", "float32"))
    return stored if named == "checkpoint" else SAFETENSORS[named]


def _torch_dtype(name: str) -> torch.dtype | None:
    import torch

    return getattr(torch, name) if name else None


def _still_needed(planned: Plan, work: Work, checkpoint: Checkpoint) -> int:
    shards = sum(shard.bytes for shard in planned.shards if shard.name not in work.done)
    beside = sum((checkpoint.directory / name).stat().st_size for name in sidecars(checkpoint.directory))
    return shards + beside + _SLACK


def _write_shards(checkpoint: Checkpoint, planned: Plan, work: Work, header: Mapping[str, str], progress: bool) -> None:
    total = sum(shard.bytes for shard in planned.shards)
    whole = sum(shard.bytes for shard in planned.shards if shard.name in work.done)
    with byte_bar(f"Writing {work.target.name}", total=total, initial=whole, progress=progress) as bar:
        for shard in planned.shards:
            if shard.name in work.done:
                continue
            path = work.directory / shard.name
            write_shard(path, shard, header, lambda unit: _bytes(checkpoint, planned, unit), bar.update)
            verify_shard(path, shard, checkpoint, planned.recipe, planned.scheme, planned.dtype)
            work.note(shard.name)


def _bytes(checkpoint: Checkpoint, planned: Plan, unit: Unit) -> Iterator[tuple[str, Bytes]]:
    if unit.source is None:
        yield unit.slots[0].name, copied_bytes(checkpoint, unit)
        return
    codes = codes_of(planned.recipe, unit.source.read(checkpoint, planned.dtype))
    for name, tensor in coded_tensors(unit.source, codes, planned.scheme).items():
        yield name, raw_bytes(tensor)


def _write_settings(checkpoint: Checkpoint, planned: Plan, work: Work) -> None:
    settings = quantization_config(planned.scheme, planned.ignored)
    _write_json(work.directory / "config.json", config_of(checkpoint.config, settings, planned.stored))
    if len(planned.shards) > 1:
        _write_json(work.directory / INDEX, index_of(planned.shards))
    carry(checkpoint.directory, work.directory)


def _facts(
    checkpoint: Checkpoint,
    card: RecipeCard,
    planned: Plan,
    work: Work,
    super_weights: Mapping[Coordinate, str],
) -> dict[str, Any]:
    """superweight.json; what became of super weights is looked up in the files, as anybody would."""
    return {
        "schema": metadata.SCHEMA,
        "format": str(planned.scheme),
        "notes": list(planned.notes),
        "recipe": metadata.recipe_facts(card),
        "source": {
            "origin": metadata.public_origin(checkpoint),
            "content_hash": checkpoint.content_hash,
            "bytes": _weights(checkpoint),
            "rounded_to": "" if planned.dtype is None else str(planned.dtype).removeprefix("torch."),
        },
        "files": dict(work.done),
        "bytes": sum(shard.bytes for shard in planned.shards),
        "modules": planned.modules,
        "ignored": list(planned.ignored),
        "excluded": list(planned.excluded),
        "super_weights": _looked_up(checkpoint, work.directory, super_weights),
        "restored_by_adapter": [str(one) for one in super_weights] if restores(card.method) else [],
        "tools": metadata.tools(),
    }


def _looked_up(
    checkpoint: Checkpoint, directory: Path, super_weights: Mapping[Coordinate, str]
) -> list[dict[str, Any]]:
    from superweight.artefact.check import check
    from superweight.artefact.reading import open_reader
    from superweight.cards.promise import Promise

    if not super_weights:
        return []
    reference, artefact = open_reader(checkpoint.directory), open_reader(directory)
    found = check(artefact, reference, super_weights, Promise("within-step")).super_weights
    return [weight.model_dump(mode="json", exclude={"kept"}) for weight in found]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _weights(checkpoint: Checkpoint) -> int:
    files = {info.file for info in checkpoint.tensors.values()}
    return sum(file.stat().st_size for file in files)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
