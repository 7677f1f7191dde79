"""Subcommands that make artefacts: compress a checkpoint by a recipe, and write a model's card for the hub."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superweight.cli.common import library, say
from superweight.cli.super_weights import known_super_weights
from superweight.errors import InfraError

if TYPE_CHECKING:
    from superweight.artefact.writing.compressed_tensors import Written
    from superweight.cards import Library, ModelCard
    from superweight.cards.base import Coordinate
    from superweight.cards.recipe import RecipeCard
    from superweight.checkpoint.files import Checkpoint
    from superweight.evidence.artefact import RoundTrip
    from superweight.runs.document import CellDocument

_DTYPES = ("float32", "float16", "bfloat16")


def add(commands: Any) -> None:
    """Add them to the parser's subcommands."""
    _compress_arguments(
        commands.add_parser("compress", help="write a compressed model that engines load: checked before it is named")
    )
    card = commands.add_parser("card", help="write a Hugging Face model card, README.md, of a cell of a run")
    card.add_argument("directory", type=Path, metavar="RUN", help="a run directory, or its evidence.json")
    card.add_argument("cell", metavar="CELL", help="model/recipe")
    card.add_argument(
        "-o", dest="out", type=Path, metavar="FILE", help="a file, or a directory; default: standard output"
    )
    card.add_argument(
        "--base-model", metavar="ID", help="the uncompressed model's id on the hub, if the run does not say"
    )
    card.set_defaults(run=_card)


def _compress_arguments(compress: argparse.ArgumentParser) -> None:
    compress.add_argument("source", metavar="SOURCE", help="a card id, a directory, a .gguf file or a hub id")
    compress.add_argument("--recipe", metavar="R", help="a recipe's id, or the path of its card")
    compress.add_argument(
        "-o", dest="out", type=Path, required=True, metavar="OUT", help="the directory, or GGUF file, that is made"
    )
    compress.add_argument(
        "--format",
        default="compressed-tensors",
        choices=("compressed-tensors", "gguf"),
        help="default compressed-tensors",
    )
    compress.add_argument("--type", metavar="T", help="of GGUF: how matrices are stored, such as Q8_0 or Q4_0")
    compress.add_argument(
        "--keep-super-weights", action="store_true", help="of GGUF: store the matrices that hold them in F32"
    )
    compress.add_argument("--shard-size", default="5GB", metavar="SIZE", help="bytes of a file at most; default 5GB")
    compress.add_argument(
        "--dtype", default="", choices=_DTYPES, help="round the checkpoint to it first; default: its own dtype"
    )
    compress.add_argument(
        "--super-weights", metavar="LIST", help="card, detect, or a JSON file; default: the card's, else as needed"
    )
    compress.add_argument(
        "--round-trip", action="store_true", help="load it with transformers, and compare it with the recipe in memory"
    )
    compress.add_argument(
        "--run", type=Path, dest="of_run", metavar="RUN", help="a run, whose figures go into README.md"
    )
    compress.set_defaults(run=_compress)


def _compress(options: argparse.Namespace) -> int:
    from superweight.checkpoint import Cache, resolve

    cards = library(options)
    model = cards.model(options.source)
    write = _gguf if options.format == "gguf" else _compressed_tensors
    _check_options(options)
    return write(options, cards, model, resolve(model.source, Cache()))


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that belong to the other format."""
    gguf = options.format == "gguf"
    foreign = ("recipe", "dtype", "round_trip", "of_run") if gguf else ("type", "keep_super_weights")
    if given := [name for name in foreign if getattr(options, name)]:
        named = f"--{given[0].removeprefix('of_').replace('_', '-')}"
        raise InfraError(f"{named} does not go with --format {options.format}", reason="unsupported")
    needed = "type" if gguf else "recipe"
    if not getattr(options, needed):
        raise InfraError(f"--format {options.format} needs --{needed}", reason="unsupported")


def _compressed_tensors(options: argparse.Namespace, cards: Library, model: ModelCard, checkpoint: Checkpoint) -> int:
    from superweight.artefact.writing.compressed_tensors import write
    from superweight.artefact.writing.schemes import needs_super_weights, scheme_of
    from superweight.artefact.writing.shards import size_of
    from superweight.cards.load import recipe_from_argument

    recipe = recipe_from_argument(cards, options.recipe)
    scheme_of(recipe.method)  # before anything that takes time
    known, _, named_by = known_super_weights(
        options.super_weights, model, detect_by_default=needs_super_weights(recipe.method)
    )
    say(f"super weights: {len(known)}, named by {named_by}")
    readme = _readme(options, model, recipe, checkpoint, known)
    trips: list[RoundTrip] = []

    def finish(directory: Path) -> Mapping[str, Any]:
        if readme:
            (directory / "README.md").write_text(readme, encoding="utf-8")
        if options.round_trip:
            trips.extend(_round_trip(directory, checkpoint, recipe, known, options.dtype))
        return {"round_trip": [trip.model_dump(mode="json") for trip in trips]}

    size = size_of(options.shard_size)
    written = write(checkpoint, recipe, options.out, known, shard_size=size, dtype=options.dtype, finish=finish)
    _tell(written, options.source, trips)
    return 0


def _readme(
    options: argparse.Namespace,
    model: ModelCard,
    recipe: RecipeCard,
    checkpoint: Checkpoint,
    known: Mapping[Coordinate, str],
) -> str:
    """The card of the cell, if a run is named; made before anything is written.

    Raises:
        InfraError: what the run measured under these names is not what is written (`recipe-mismatch`).
    """
    if options.of_run is None:
        return ""
    from superweight.report.model_card import cell_of, model_card
    from superweight.runs.read import read_document

    document, name = read_document(options.of_run), f"{model.id}/{recipe.id}"
    if unlike := _unlike(cell_of(document, name), recipe, checkpoint, known, options.dtype):
        raise InfraError(
            f"{options.of_run} measured {name} {unlike}: its figures are not this artefact's. Name another run.",
            reason="recipe-mismatch",
        )
    return model_card(document, name, base_model=_hub_id(model))


def _unlike(
    cell: CellDocument, recipe: RecipeCard, checkpoint: Checkpoint, known: Mapping[Coordinate, str], dtype: str
) -> str:
    """How what a run measured differs from what is to be written; empty if it does not."""
    from superweight.artefact.writing.schemes import needs_super_weights

    if cell.method != recipe.method:
        return "with other parameters"
    if cell.checkpoint.get("content_hash") != checkpoint.content_hash:
        return "of another checkpoint"
    if dtype and cell.checkpoint.get("dtype") != dtype:
        return f"in {cell.checkpoint.get('dtype')}"
    protected = {weight.coordinate for weight in cell.super_weights}
    if needs_super_weights(recipe.method) and protected != {where.coordinate for where in known}:
        return f"with {len(protected)} super weights, other ones than these {len(known)}"
    return ""


def _hub_id(model: ModelCard) -> str:
    return str(getattr(model.source, "repository", ""))


def _tell(written: Written, source: str, trips: Sequence[RoundTrip]) -> None:
    share = written.bytes / written.source_bytes if written.source_bytes else 0.0
    taken_up = f", {written.taken_up} files taken up from a run before" if written.taken_up else ""
    print(f"{written.directory}: {written.about}")
    print(
        f"{written.bytes / 1e6:,.1f} MB on disk, {share:.1%} of the checkpoint's {written.source_bytes / 1e6:,.1f} MB; "
        f"{written.modules} modules with codes, {len(written.excluded)} excluded{taken_up}; {written.seconds:.0f} s"
    )
    print("every code, scale and zero point was read back and is the recipe's; so is every weight they decode to")
    for trip in trips:
        print(trip)
    for note in dict.fromkeys([*written.notes, *(trip.note for trip in trips if trip.note and not trip.equal)]):
        print(f"note: {note}")
    if written.restored:
        print(
            f"{len(written.restored)} super weights are not in these codes. Bring them back with: "
            f"superweight adapter {written.directory} --reference {source} -o ADAPTER"
        )


def _round_trip(
    directory: Path, checkpoint: Checkpoint, recipe: RecipeCard, known: Mapping[Coordinate, str], dtype: str
) -> list[RoundTrip]:
    """Load it in every way.

    Raises:
        InfraError: in none is every number and logit the recipe's (`corrupt`).
    """
    from superweight.artefact.writing.round_trip import round_trip

    found = round_trip(directory, checkpoint, recipe, list(known), dtype=dtype)
    if not any(one.equal for one in found):
        told = "; ".join(f"{one}{f' ({one.note})' if one.note else ''}" for one in found)
        raise InfraError(
            f"loaded again, the artefact is not the recipe's model, and nothing is published: {told}. Without "
            "--round-trip it is written, its files checked by themselves.",
            reason="corrupt",
        )
    return found


def _gguf(options: argparse.Namespace, cards: Library, model: ModelCard, checkpoint: Checkpoint) -> int:
    from superweight.artefact.writing.gguf import keeping_super_weights, write_gguf

    known, _, named_by = known_super_weights(options.super_weights, model, detect_by_default=options.keep_super_weights)
    say(f"super weights: {len(known)}, named by {named_by}")
    keep = keeping_super_weights(known) if options.keep_super_weights else {}
    written = write_gguf(checkpoint, options.type, options.out, keep=keep, super_weights=known)
    source = sum(file.stat().st_size for file in {info.file for info in checkpoint.tensors.values()})
    print(
        f"{written.path}: {written.bytes / 1e6:,.1f} MB, {written.bytes / source:.1%} of the checkpoint's "
        f"{source / 1e6:,.1f} MB"
    )
    for note in written.notes:
        print(f"note: {note}")
    return 0


def _card(options: argparse.Namespace) -> int:
    from superweight.report.model_card import model_card, write_model_card
    from superweight.runs.read import read_document

    text = model_card(read_document(options.directory), options.cell, base_model=options.base_model or "")
    if options.out is None:
        print(text, end="")
    else:
        print(write_model_card(options.out, text))
    return 0
