"""Subcommands on artefacts: compressed models as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from superweight.cli.common import library, say
from superweight.cli.super_weights import known_super_weights
from superweight.errors import InfraError, SuperweightError
from superweight.plain_text import one_line

if TYPE_CHECKING:
    from superweight.artefact.reading import Reader
    from superweight.cards.base import Coordinate
    from superweight.cards.promise import Promise
    from superweight.evidence.artefact import ArtefactCheck


def add(commands: Any) -> None:
    """Add them to the parser's subcommands."""
    check = commands.add_parser(
        "check",
        help="look at a compressed model's files without running it: exit code 0 as promised, 1 not, 2 cannot tell",
    )
    check.add_argument(
        "artefacts", nargs="+", metavar="ARTEFACT", help="a directory, a file, a hub id, or a directory of artefacts"
    )
    check.add_argument(
        "--reference", metavar="SOURCE", help="the uncompressed model: a card id, directory, .gguf, hub id"
    )
    check.add_argument(
        "--super-weights",
        metavar="LIST",
        help="card, detect, or a JSON file; default: the card's, else detection",
    )
    check.add_argument(
        "--promise", default="within-step", metavar="P", help="exact, within-step (default), or a bound such as '2 %%'"
    )
    check.add_argument("--adapter", type=Path, metavar="DIR", help="look at it as it is with this LoRA adapter")
    check.add_argument("--lint", action="store_true", help="the rules of the format alone, which need no reference")
    check.add_argument("--thorough", action="store_true", help="read every scale, however large the file")
    check.add_argument("--json", action="store_true", help="JSON on standard output")
    check.set_defaults(run=_check)
    adapter = commands.add_parser("adapter", help="write a LoRA adapter that brings an artefact's super weights back")
    adapter.add_argument("artefact", metavar="ARTEFACT", help="the compressed model that it is for, as for check")
    adapter.add_argument("--reference", metavar="SOURCE", required=True, help="the uncompressed model, as for check")
    adapter.add_argument("--super-weights", metavar="LIST", help="card, detect, or a JSON file, as for check")
    adapter.add_argument("-o", dest="out", type=Path, metavar="DIR", required=True, help="a new directory")
    adapter.add_argument(
        "--dtype",
        action="append",
        default=[],
        choices=["float32", "bfloat16", "float16"],
        help="in which the artefact will be loaded, and must be exact; default: float32 and its config.json's",
    )
    adapter.add_argument("--nearest", action="store_true", help="write it even where exact cannot be done")
    adapter.set_defaults(run=_adapter, lint=False)


def _check(options: argparse.Namespace) -> int:
    from superweight.cards.promise import Promise
    from superweight.report import strict_json
    from superweight.report.check_text import check_text, checks_table

    try:
        promise = Promise.of(options.promise)
    except ValueError as error:
        raise InfraError(f"--promise: {error}", reason="unsupported") from error
    if options.super_weights and not options.reference:
        raise InfraError("--super-weights needs the model that they are of: give --reference.", reason="unsupported")
    artefacts = _artefacts(options.artefacts)
    if options.adapter and [one.among for one in artefacts] != [False]:
        raise InfraError("--adapter belongs to one artefact. Name just that.", reason="unsupported")
    reference = _Reference.of(options) if options.reference else None
    found, unread = _all_checked(artefacts, options, reference, promise)
    if options.json:
        print(strict_json([one.model_dump(mode="json") for one in found]), end="")
    elif len(found) == 1 and not unread:
        print(check_text(found[0]), end="")
    elif len(found) + len(unread) > 1:
        print(checks_table(found, unread), end="")
        print("".join(f"\n{check_text(one)}" for one in found if one.answer != "kept"), end="")
    answers = {one.answer for one in found} | ({"cannot-tell"} if unread else set())
    return 1 if "broken" in answers else 2 if "cannot-tell" in answers else 0


def _adapter(options: argparse.Namespace) -> int:
    from superweight.artefact.reading import open_reader
    from superweight.artefact.writing.adapter import write_adapter
    from superweight.checkpoint import Cache
    from superweight.report.adapter_text import adapter_text

    artefact, *others = _artefacts([options.artefact])
    if others or artefact.among:
        raise InfraError(f"{options.artefact} is no artefact itself. Name the one.", reason="unsupported")
    reference, super_weights, named_by = _Reference.of(options)
    how = {"dtypes": options.dtype, "nearest": options.nearest, "named_by": named_by, "cache": Cache()}
    found = write_adapter(open_reader(artefact.path), reference, super_weights, options.out, **how)
    print(adapter_text(found, options.out), end="")
    return 0


def _all_checked(
    artefacts: list[_Artefact], options: argparse.Namespace, reference: _Reference | None, promise: Promise
) -> tuple[list[ArtefactCheck], dict[str, str]]:
    """Every artefact but the reference that lies among others, and why nothing is known of some."""
    found, unread = [], {}
    for path, among in artefacts:
        if among and reference is not None and path.resolve() == reference.reader.path.resolve():
            continue
        try:
            found.append(_checked(path, options, reference, promise))
        except (SuperweightError, OSError) as error:
            unread[str(path)] = one_line(str(error))
            say(f"superweight: {one_line(f'{path}: {error}')}")
    return found, unread


class _Artefact(NamedTuple):
    """Where one is, and whether the directory around it was named rather than itself."""

    path: Path
    among: bool = False


def _artefacts(given: list[str]) -> list[_Artefact]:
    """What was named; of a directory that is no artefact itself, everything in it."""
    found: list[_Artefact] = []
    for name in given:
        path = Path(name).expanduser()
        if not path.exists() and name.count("/") == 1 and not name.startswith((".", "/", "~")):
            path = _from_hub(name)
        if not path.exists():
            raise InfraError(f"{path} does not exist. Correct the path.", reason="not-found")
        if not path.is_dir() or _is_artefact(path):
            found.append(_Artefact(path))
            continue
        inner = sorted([*(one for one in path.iterdir() if _may_be_artefact(one)), *_gguf_models(path)])
        if not inner:
            raise InfraError(f"{path} holds no artefact. Correct the path.", reason="not-found")
        found += [_Artefact(one, among=True) for one in inner]
    return found


def _from_hub(name: str) -> Path:
    from superweight.artefact.reference import fetched
    from superweight.checkpoint import Cache

    return fetched(name, Cache())


def _may_be_artefact(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or path.suffix == ".onnx")


def _gguf_models(path: Path) -> list[Path]:
    """The GGUF models in a directory: of a split one its first part."""
    if not next(path.glob("*.gguf"), None):
        return []
    from superweight.artefact.gguf import models_in

    return models_in(path)


def _is_artefact(path: Path) -> bool:
    names = ("config.json", "adapter_config.json", "*.safetensors", "*.safetensors.index.json", "*.xml", "*.onnx")
    found = [name for name in names if next(path.glob(name), None)]
    return bool(found) and (found != ["config.json"] or len(_gguf_models(path)) < 2)  # GGUF files share one config


class _Reference(NamedTuple):
    """The uncompressed model, its super weights, and who named them."""

    reader: Reader
    super_weights: dict[Coordinate, str]
    named_by: str

    @classmethod
    def of(cls, options: argparse.Namespace) -> _Reference:
        """What the options name."""
        from superweight.artefact.reference import expect_values, open_reference
        from superweight.checkpoint import Cache

        card = library(options).model(options.reference)
        reader = open_reference(card.source, Cache())
        if options.lint:
            return cls(reader, {}, "")
        super_weights, values, named_by = known_super_weights(options.super_weights, card)
        expect_values(reader, values)
        return cls(reader, super_weights, named_by)


def _checked(path: Path, options: argparse.Namespace, reference: _Reference | None, promise: Promise) -> ArtefactCheck:
    from superweight.artefact.check import check, look
    from superweight.artefact.reading import open_reader

    artefact, thorough = open_reader(path), options.thorough
    if options.adapter:
        from superweight.artefact.adapter import AdaptedReader, Adapter

        artefact = AdaptedReader(artefact, Adapter(options.adapter))
    if reference is None:
        return look(artefact, thorough=thorough, alone=options.lint)
    if options.lint:
        return look(artefact, reference.reader, thorough=thorough, alone=True)
    reader, super_weights, named_by = reference
    return check(artefact, reader, super_weights, promise, named_by=named_by, thorough=thorough)
