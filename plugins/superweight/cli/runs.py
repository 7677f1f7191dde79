"""Subcommands on runs: reports, tables, an index, comparisons, release baselines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from superweight.cli.common import library, say
from superweight.errors import InfraError
from superweight.plain_text import one_line

_STORE = Path("reports/store")


def add(commands: Any) -> None:
    """Add them to the parser's subcommands."""
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
        say(f"superweight: {one_line(f'{run}: {line}')}")


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
    gates = library(options).book.gate
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

    gates = library(options).book.gate
    promotion = promote_run(options.directory, options.baselines, gates, force=options.force)
    print(promotion_text(promotion), end="")
    return 0 if promotion.promoted else 1


def _schema(options: argparse.Namespace) -> int:
    from superweight.report import json_schema

    print(json.dumps(json_schema(), indent=1))
    return 0
