"""Subcommands on artefacts: compressed models as files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superweight.cli.common import library, say
from superweight.errors import InfraError, SuperweightError
from superweight.plain_text import one_line

if TYPE_CHECKING:
    from superweight.artefact.reading import Reader
    from superweight.cards import ModelCard
    from superweight.cards.base import Coordinate
    from superweight.evidence.artefact import ArtefactCheck


def add(commands: Any) -> None:
    """Add them to the parser's subcommands."""
    check = commands.add_parser(
        "check",
        help="look at a compressed model's files without running it: exit code 0 as promised, 1 not, 2 cannot tell",
    )
    check.add_argument(
        "artefacts", nargs="+", type=Path, metavar="ARTEFACT", help="a directory, a file, or a directory of them"
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
    check.add_argument("--thorough", action="store_true", help="read every scale, however large the file")
    check.add_argument("--json", action="store_true", help="JSON on standard output")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from superweight.cards.promise import Promise
    from superweight.report import strict_json
    from superweight.report.check_text import check_text, checks_table

    try:
        promise = Promise.of(options.promise)
    except ValueError as error:
        raise InfraError(f"--promise: {error}", reason="unsupported") from error
    looked_for = _References(options)
    checks, failed = [], False
    for path in _artefacts(options.artefacts):
        try:
            checks.append(_checked(path, looked_for, promise, thorough=options.thorough))
        except SuperweightError as error:
            say(f"superweight: {one_line(f'{path}: {error}')}")
            failed = True
    if options.json:
        print(strict_json([found.model_dump(mode="json") for found in checks]), end="")
    elif len(checks) == 1 and not failed:
        print(check_text(checks[0]), end="")
    elif checks:
        print(checks_table(checks), end="")
        for found in checks:
            if found.broken or found.cannot_tell:
                print(f"\n{check_text(found)}", end="")
    return _exit_code(checks, failed)


def _exit_code(checks: list[ArtefactCheck], failed: bool) -> int:
    if any(found.broken for found in checks):
        return 1
    unknown = any((found.reference and found.cannot_tell) or found.unchecked for found in checks)
    return 2 if failed or unknown else 0


def _artefacts(given: list[Path]) -> list[Path]:
    """What was named; of a directory that is no artefact itself, everything in it that may be one."""
    found: list[Path] = []
    for path in given:
        if not path.is_dir() or _is_artefact(path):
            found.append(path)
            continue
        inner = sorted(one for one in path.iterdir() if one.is_dir() or one.suffix == ".gguf")
        if not inner:
            raise InfraError(f"{path} holds no artefact. Correct the path.", reason="not-found")
        found += inner
    return found


def _is_artefact(path: Path) -> bool:
    names = ("config.json", "*.safetensors", "*.safetensors.index.json", "openvino_model.xml", "*.onnx")
    return any(next(path.glob(name), None) for name in names)


class _References:
    """The uncompressed model and its super weights, found once for all artefacts."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._card: ModelCard | None = library(options).model(options.reference) if options.reference else None
        self._found: tuple[Reader, dict[Coordinate, str], str] | None = None

    def get(self) -> tuple[Reader, dict[Coordinate, str], str] | None:
        """The reference, its super weights and who named them; None if no reference was given."""
        if self._card is None:
            return None
        if self._found is None:
            from superweight.artefact.reading import open_reader
            from superweight.checkpoint import Cache, resolve

            checkpoint = resolve(self._card.source, Cache())
            self._found = (open_reader(checkpoint.directory), *self._list(self._card, checkpoint))
        return self._found

    def _list(self, card: ModelCard, checkpoint: Any) -> tuple[dict[Coordinate, str], str]:
        from superweight.artefact.super_weight_list import listed_weights, of_card, of_file

        asked = self._options.super_weights or ("card" if of_card(card) else "detect")
        if asked == "card":
            if not of_card(card):
                raise InfraError(
                    f"the card of {card.id} names no super weights. Give --super-weights detect, or a file.",
                    reason="not-applicable",
                )
            return of_card(card), "card"
        if asked != "detect":
            return of_file(Path(asked)), asked
        from superweight.checkpoint import load_model
        from superweight.detect import detect

        found = detect(load_model(checkpoint, compute_dtype=card.compute_dtype), known=card.super_weights, progress=say)
        listed = [weight for weight in found.as_dict()["super_weights"] if weight["status"] in ("causal", "spoke")]
        if not listed:
            raise InfraError(f"detection finds no super weight in {card.id}: nothing to check", reason="not-applicable")
        return listed_weights(listed, "detection"), "detection"


def _checked(path: Path, references: _References, promise: Any, *, thorough: bool) -> ArtefactCheck:
    from superweight.artefact.check import check, look
    from superweight.artefact.reading import open_reader

    reader, known = open_reader(path), references.get()
    if known is None:
        return look(reader, thorough=thorough)
    reference, super_weights, named_by = known
    return check(reader, reference, super_weights, promise, named_by=named_by, thorough=thorough)
