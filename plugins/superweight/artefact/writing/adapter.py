"""Write a LoRA adapter that brings an artefact's super weights back: what no deployed format can keep in a list.

One term a column of super weights: A has a one at the column, B the corrections of all rows that have one there. A
correction that bfloat16 cannot hold is split into parts that it can, a term each. Every module has the same rank, and
alpha is that rank: engines that know one alpha alone then scale nothing either.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from superweight.artefact.adapter import CONFIG, PREFIX, RECORD, WEIGHTS, AdaptedReader, Adapter
from superweight.artefact.adding import DTYPES, Way, parts, ways
from superweight.artefact.contents import content_sha256
from superweight.artefact.likeness import expect_same_model
from superweight.artefact.numbers import hexadecimal, rounded
from superweight.artefact.reading import Held, Reader
from superweight.artefact.writing.corrections import correction, is_exact
from superweight.artefact.writing.module_names import Linear, linear_modules, loaded_as
from superweight.artefact.writing.proof import prove
from superweight.artefact.writing.whole import whole_directory
from superweight.cards.base import Coordinate
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.shards import read_json
from superweight.errors import InfraError
from superweight.evidence.adapter import AdapterBase, Exactness, RestoredWeight, RestoringAdapter
from superweight.forward.runner import CannotTell

Arrays = dict[str, np.ndarray[Any, Any]]


def write_adapter(
    artefact: Reader,
    reference: Reader,
    super_weights: Mapping[Coordinate, str],
    target: Path,
    *,
    dtypes: Sequence[str] = (),
    nearest: bool = False,
    named_by: str = "",
    cache: Cache | None = None,
) -> RestoringAdapter:
    """Write an adapter that PEFT loads on the artefact, and prove what it does before it is there.

    Args:
        artefact: the base.
        reference: the uncompressed model.
        super_weights: coordinate → status.
        target: a directory that is not there yet.
        dtypes: in which the base will be loaded, the adapter in float32 beside it: every super weight must be exact
            then. If not given, float32 and the dtype that the artefact's config.json names.
        nearest: write it although a super weight comes as near as can be and no nearer.
        named_by: who names the super weights, for the record.
        cache: remembers the hashes of big files.

    Raises:
        InfraError: the artefact is another model than the reference (`unsupported`); a super weight is an expert's, or
            the artefact does not show it (`cannot-tell`); all are there without an adapter (`not-applicable`); no
            adapter can bring one back exactly (`unsupported`); as `linear_modules`, `prove` and `whole_directory`.
    """
    required = [Way(dtype, "float32") for dtype in dict.fromkeys(dtypes or ("float32", _own_dtype(artefact)))]
    wished = [way for way in ways("float32", "bfloat16", _own_dtype(artefact)) if way not in required]
    expect_same_model(artefact, reference)
    modules = linear_modules(_configured(artefact, reference))
    restored = [
        _restored(artefact, reference, modules, where, status, (required, wished))
        for where, status in super_weights.items()
    ]
    _check(restored, required, artefact, nearest=nearest)
    found = RestoringAdapter(
        made_by=f"superweight {version('pytest-superweight')}",
        base=_base(artefact, cache),
        reference=reference.path.absolute().name,
        named_by=named_by,
        rank=max(map(len, _terms(restored).values())),
        modules=sorted(_terms(restored)),
        super_weights=restored,
        exactness=[_exactness(restored, way, required=way in required) for way in (*required, *wished)],
    )
    with whole_directory(target) as directory:
        _write(directory, found, modules)
        _read_again(directory, artefact, found)
        for way in (*required, *wished):
            prove(directory, [one for one in restored if one.module in found.modules], found.rank, way)
        size = (directory / WEIGHTS).stat().st_size
        found = found.model_copy(update={"bytes": size})
        (directory / RECORD).write_text(
            found.model_dump_json(indent=1, exclude={"base": {"path"}}) + "\n", encoding="utf-8"
        )
    return found


def _own_dtype(artefact: Reader) -> str:
    """In which its config.json asks to be loaded; float32 if it does not say."""
    config = getattr(getattr(artefact, "artefact", None), "config", {})
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return named if named in DTYPES else "float32"


def _configured(artefact: Reader, reference: Reader) -> Path:
    """The directory whose config.json describes the model."""
    return next((one.path for one in (artefact, reference) if (one.path / "config.json").is_file()), artefact.path)


def _base(artefact: Reader, cache: Cache | None) -> AdapterBase:
    return AdapterBase(
        sha256=content_sha256(artefact.path, cache),
        path_name=artefact.path.absolute().name,
        path=str(artefact.path.absolute()),
        format=artefact.about,
        dtype=_own_dtype(artefact),
    )


def _restored(
    artefact: Reader,
    reference: Reader,
    modules: Mapping[str, Linear],
    where: Coordinate,
    status: str,
    among: tuple[Sequence[Way], Sequence[Way]],
) -> RestoredWeight:
    """One super weight, and what must be added to the artefact's."""
    if where.expert is not None:
        raise InfraError(
            f"{where} lies in an expert. Experts are no modules of their own when a model is loaded, so LoRA cannot "
            "aim at one: leave that module unquantised instead (ignore).",
            reason="cannot-tell",
        )
    original, found = _shown(reference, where), _shown(artefact, where)
    if original.decoded.code:
        raise InfraError(
            f"the reference {reference.path} is compressed itself: {where} is stored as {original.stored_as}. Give the "
            "model that the artefact was made from.",
            reason="cannot-tell",
        )
    name = found.tensor if found.tensor in modules else original.tensor
    module = loaded_as(dict(modules), name.removesuffix(".weight"))
    if where.row >= module.rows or where.column >= module.columns:
        shape = f"({module.rows}, {module.columns})"
        raise InfraError(f"{where} lies outside {module.name} of shape {shape}", reason="unsupported")
    value, dtype = original.decoded.value, original.decoded.dtype
    needed = correction(value, found.decoded.value, *among)
    return RestoredWeight(
        **where.coordinate.model_dump(),
        status=status,
        module=module.name,
        original=value,
        original_bits=hexadecimal(value, dtype),
        original_dtype=dtype,
        base=found.decoded.value,
        base_dtype=found.decoded.dtype,
        correction=needed,
        parts=parts(needed),
    )


def _shown(reader: Reader, where: Coordinate) -> Held:
    found = reader.scalar(where)
    if isinstance(found, CannotTell):
        raise InfraError(f"{reader.path} does not show {where}: {found.reason}", reason="cannot-tell")
    if not math.isfinite(found.decoded.value):
        raise InfraError(
            f"{reader.path} holds {found.decoded.value} at {where}; nothing can be added to that.", reason="non-finite"
        )
    return found


def _check(restored: Sequence[RestoredWeight], required: Sequence[Way], artefact: Reader, *, nearest: bool) -> None:
    """Refuse what is not needed, and what cannot be done."""
    if not any(one.parts for one in restored):
        raise InfraError(
            f"{artefact.path} holds all {len(restored)} super weights as they were: no adapter is needed.",
            reason="not-applicable",
        )
    bad = [(one, way) for way in required for one in restored if not is_exact(one.original, one.base, one.parts, way)]
    if bad and not nearest:
        one, way = bad[0]
        raise InfraError(
            f"no adapter brings {one.coordinate} back exactly ({way}): {one.base!r} and any correction, rounded, miss "
            f"{rounded(one.original, way.base)!r}; the nearest is {way.restored(one.base, one.parts)!r}"
            f"{f', and {len(bad) - 1} more like it' if len(bad) > 1 else ''}. Write it for one dtype (--dtype), or as "
            "near as can be (--nearest), or leave the module unquantised.",
            reason="unsupported",
        )


def _exactness(restored: Sequence[RestoredWeight], way: Way, *, required: bool) -> Exactness:
    off = [_off(rounded(one.original, way.base), way.restored(one.base, one.parts)) for one in restored]
    exact = sum(is_exact(one.original, one.base, one.parts, way) for one in restored)
    return Exactness(
        base=way.base, adapter=way.adapter, required=required, exact=exact, of=len(restored), worst=max(off)
    )


def _off(wanted: float, found: float) -> float:
    return 0.0 if found == wanted else abs(found - wanted) / abs(wanted) if wanted else float("inf")


def _terms(restored: Sequence[RestoredWeight]) -> dict[str, list[tuple[int, int]]]:
    """Of each module with a correction its terms in order: the column, and which part of the corrections in it."""
    found: dict[str, dict[int, int]] = {}
    for one in restored:
        if one.parts:
            columns = found.setdefault(one.module, {})
            columns[one.column] = max(columns.get(one.column, 0), len(one.parts))
    return {
        module: [(column, part) for column in sorted(columns) for part in range(columns[column])]
        for module, columns in found.items()
    }


def _arrays(found: RestoringAdapter, modules: Mapping[str, Linear]) -> Arrays:
    """A `(rank, in)` and B `(out, rank)` of every module; terms beyond its own are zero."""
    arrays: Arrays = {}
    for module, terms in _terms(found.super_weights).items():
        a = np.zeros((found.rank, modules[module].columns), np.float32)
        b = np.zeros((modules[module].rows, found.rank), np.float32)
        for k, (column, _) in enumerate(terms):
            a[k, column] = 1
        for one in found.super_weights:
            for part, value in enumerate(one.parts if one.module == module else ()):
                b[one.row, terms.index((one.column, part))] = value
        arrays |= {f"{PREFIX}{module}.lora_A.weight": a, f"{PREFIX}{module}.lora_B.weight": b}
    return arrays


def _write(directory: Path, found: RestoringAdapter, modules: Mapping[str, Linear]) -> None:
    from safetensors.numpy import save_file

    save_file(_arrays(found, modules), directory / WEIGHTS, metadata={"format": "pt", "base_sha256": found.base.sha256})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": found.base.path,
        "r": found.rank,
        "lora_alpha": found.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": found.modules,
        "fan_in_fan_out": all(modules[module].input_major for module in found.modules),
        "use_rslora": False,
        "inference_mode": True,
    }
    (directory / CONFIG).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def _read_again(directory: Path, artefact: Reader, found: RestoringAdapter) -> None:
    """The files give what was planned, read as any adapter's are."""
    reader, way = AdaptedReader(artefact, Adapter(directory)), Way("float32", "float32")
    for one in found.super_weights:
        held = reader.scalar(one.coordinate)
        expected = way.restored(one.base, one.parts)
        if isinstance(held, CannotTell) or held.decoded.value != expected:
            raise InfraError(f"{one.coordinate} should be {expected!r} with the adapter, found {held}", reason="crash")


def read_record(directory: Path) -> RestoringAdapter | None:
    """What an adapter says of itself; None if it is not one of these.

    Raises:
        InfraError: the file is not what it should be (`corrupt`).
    """
    path = directory / RECORD
    if not path.is_file():
        return None
    try:
        return RestoringAdapter.model_validate(read_json(path))
    except ValueError as error:
        raise InfraError(f"{path} is not what was written there ({error}).", reason="corrupt") from error
