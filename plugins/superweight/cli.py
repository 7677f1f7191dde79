"""The `superweight` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from superweight import __version__
from superweight.errors import InfraError, SuperweightError
from superweight.gc_pause import gc_paused
from superweight.plain_text import one_line
from superweight.tiers import TIERS

if TYPE_CHECKING:
    from superweight.cards import Library

_STORE = Path("reports/store")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Returns:
        0 on success, 1 if the answer is no, 2 if something could not be done, with the reason on standard error in a
        line.

    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except SuperweightError as error:
        print(f"superweight: {one_line(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads the output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left to be flushed at exit
        return 0
    except OSError as error:
        at = "" if error.filename is None else f"{error.filename}: "
        print(f"superweight: {one_line(f'{at}{error.strerror or error}')}", file=sys.stderr)
        return 2
    except Exception as error:
        if options.traceback:
            raise
        told = one_line(str(error))[:300]
        print(f"superweight: {type(error).__name__}: {told} (--traceback shows where)", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("superweight: interrupted; nothing half-written is left behind", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="superweight", description="Super weights, and what compression does to them."
    )
    parser.add_argument("--traceback", action="store_true", help="show where an unforeseen error comes from")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--cards", action="append", default=[], type=Path, metavar="DIR", help="a directory of your own cards"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("cards", help="list the models, recipes, corpora, tasks and tiers at hand").set_defaults(
        run=_cards
    )
    init = commands.add_parser(
        "init", help="write suites, example cards and a pytest configuration; overwrites nothing"
    )
    init.add_argument("directory", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: this directory")
    init.set_defaults(run=_init)
    _fetch_arguments(commands.add_parser("fetch", help="get checkpoints, and the data to measure them with"))
    _detect_arguments(commands.add_parser("detect", help="find a model's super weights and confirm them by ablation"))
    _report_arguments(commands.add_parser("report", help="rebuild a run's report from its evidence, without a model"))
    _export_arguments(commands.add_parser("export", help="figures of runs as one table, CSV or Parquet"))
    _index_arguments(commands.add_parser("index", help="write index.html over a store of runs"))
    _compare_arguments(
        commands.add_parser(
            "compare",
            help="what changed between two runs: exit code 0 nothing shown to be worse, 1 worse, 2 cannot be compared",
        )
    )
    _baseline_arguments(
        commands.add_parser("baseline", help="make a run the release baseline that later runs are held against")
    )
    commands.add_parser("schema", help="print the JSON Schema of evidence.json").set_defaults(run=_schema)
    return parser


def _fetch_arguments(fetch: argparse.ArgumentParser) -> None:
    fetch.add_argument("models", nargs="+", metavar="MODEL", help="a card id, a directory, a .gguf file or a hub id")
    fetch.add_argument("--tier", default="smoke", choices=TIERS, help="whose data; default smoke")
    fetch.set_defaults(run=_fetch)


def _detect_arguments(detect: argparse.ArgumentParser) -> None:
    detect.add_argument("source", metavar="SOURCE", help="a card id, a directory, a .gguf file or a hub id")
    detect.add_argument("--json", action="store_true", help="JSON on standard output")
    detect.add_argument("--device", default=None, help="cpu, cuda or cuda:N; default cuda where there is one")
    detect.add_argument(
        "--dtype", default=None, choices=("float32", "float16", "bfloat16"), help="arithmetic of forward passes"
    )
    detect.set_defaults(run=_detect)


def _report_arguments(report: argparse.ArgumentParser) -> None:
    report.add_argument("directory", type=Path, metavar="DIR", help="a run directory")
    report.add_argument(
        "--store", type=Path, default=_STORE, metavar="DIR", help=f"store of runs, for history; default {_STORE}"
    )
    report.add_argument(
        "--pictures", nargs="+", default=(), metavar="MODEL", help="whose pictures; default a few models that need them"
    )
    report.set_defaults(run=_report)


def _export_arguments(export: argparse.ArgumentParser) -> None:
    export.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, or their evidence.json")
    export.add_argument(
        "-o", dest="out", type=Path, required=True, metavar="FILE", help="a name that ends in .csv or .parquet"
    )
    export.set_defaults(run=_export)


def _index_arguments(index: argparse.ArgumentParser) -> None:
    index.add_argument("store", type=Path, nargs="?", default=_STORE, metavar="STORE", help=f"default {_STORE}")
    index.set_defaults(run=_index)


def _compare_arguments(compare: argparse.ArgumentParser) -> None:
    compare.add_argument("before", type=Path, metavar="A", help="a run directory, its evidence.json, or a baseline")
    compare.add_argument("after", type=Path, metavar="B", help="likewise")
    compare.add_argument(
        "-o",
        dest="out",
        type=Path,
        metavar="DIR",
        help="where compare.md and compare.json go; default B, if a directory",
    )
    compare.set_defaults(run=_compare)


def _baseline_arguments(baseline: argparse.ArgumentParser) -> None:
    baseline.add_argument("directory", type=Path, metavar="RUN", help="a run directory")
    baseline.add_argument(
        "--baselines",
        type=Path,
        default=Path("reports/baselines"),
        metavar="DIR",
        help="where baselines are kept, as TIER/MODEL.json; default reports/baselines",
    )
    baseline.add_argument("--force", action="store_true", help="also if the run is red, or a part of its tier")
    baseline.set_defaults(run=_baseline)


def _library(options: argparse.Namespace) -> Library:
    from superweight.cards import load_library  # here, so that --help and --version need no cards

    return load_library(options.cards)


def _cards(options: argparse.Namespace) -> int:
    library = _library(options)
    for name in ("models", "recipes", "corpora", "tasks", "gates", "waivers", "tiers"):
        print(f"{name}:")
        for identifier, card in getattr(library, name).items():
            print(f"  {identifier:40} {getattr(card, 'title', '')}")
    return 0


def _init(options: argparse.Namespace) -> int:
    from superweight.starter import init

    written, left = init(options.directory)
    for path, new in written:
        print(f"{'wrote' if new else 'kept '}  {path}")
    if left:
        print(left)
    print("Gate the embedded model with: pytest suites/ -k smollm2")
    return 0


def _fetch(options: argparse.Namespace) -> int:
    from superweight.fetch import fetch

    library = _library(options)
    return fetch([library.model(argument) for argument in options.models], library, library.tiers[options.tier])


def _detect(options: argparse.Namespace) -> int:
    card = _library(options).model(options.source)
    with gc_paused():
        from superweight.checkpoint import Cache, load_model, resolve
        from superweight.detect import as_table, detect
        from superweight.measure.environment import default_device
        from superweight.report import strict_json

    checkpoint = resolve(card.source, Cache())
    loaded = load_model(
        checkpoint, device=options.device or default_device(), compute_dtype=options.dtype or card.compute_dtype
    )
    found = detect(loaded, known=card.super_weights, progress=_say)
    if options.json:
        print(strict_json({"model": card.id, "origin": checkpoint.origin, **found.as_dict()}), end="")
    else:
        print(as_table(found, title=f"{card.title}: {checkpoint.origin}"))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _report(options: argparse.Namespace) -> int:
    from superweight.report import render
    from superweight.runs.salvage import salvage

    document, lost = salvage(options.directory)
    directory = options.directory if options.directory.is_dir() else options.directory.parent
    render(directory, document, store=options.store, models=options.pictures, lost=lost)
    _doubt([*document.doubts, *lost], options.directory)
    print(directory / "report.html")
    return 0


def _doubt(lines: Sequence[str], run: Path) -> None:
    """Say what of a run cannot be relied on."""
    for line in lines:
        _say(f"superweight: {one_line(f'{run}: {line}')}")


def _export(options: argparse.Namespace) -> int:
    from superweight.report import read_document, write_export

    documents = [read_document(run) for run in options.runs]
    write_export(options.out, documents)
    for run, document in zip(options.runs, documents, strict=True):
        _doubt(document.doubts, run)
    print(options.out)
    return 0


def _index(options: argparse.Namespace) -> int:
    from superweight.report import write_index

    if not options.store.is_dir():
        raise InfraError(f"{options.store}: no such store of runs; a gate keeps one in {_STORE}.", reason="not-found")
    print(write_index(options.store))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from superweight.report.comparison_text import comparison_text, write_comparison
    from superweight.runs.compare import EXIT_CODES, compare_runs
    from superweight.runs.read import read_snapshots

    before, after = read_snapshots(options.before), read_snapshots(options.after)
    gates = _library(options).book.gate
    comparison = compare_runs(before, after, gates, names=(str(options.before), str(options.after)))
    print(comparison_text(comparison), end="")
    out = options.out or (options.after if options.after.is_dir() else None)
    if out is not None:
        write_comparison(out, comparison)
        print(out / "compare.md")
    return EXIT_CODES.get(comparison.verdict, 0)


def _baseline(options: argparse.Namespace) -> int:
    from superweight.report.promotion_text import promotion_text
    from superweight.runs.release_baselines import promote_run

    gates = _library(options).book.gate
    promotion = promote_run(options.directory, options.baselines, gates, force=options.force)
    print(promotion_text(promotion), end="")
    return 0 if promotion.promoted else 1


def _schema(options: argparse.Namespace) -> int:
    from superweight.report import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
