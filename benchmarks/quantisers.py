"""Other people's quantisers on the embedded model: size, time, super weights, perplexity with its interval, verdict.

    python benchmarks/quantisers.py [--recipes ID ...] [--out DIR] [-o FILE]

Every recipe of the tier `quantisers` is run by its own tool, which writes a directory, and gated as it lies there: what
the run says of the cell is what this prints. A tool that is not installed, or whose environment is not made
(`superweight env make gptq`), is INFRA and says so. What a tool wrote before is taken up, with the time it took then.

The limit of a file is its own bytes: `÷ copying` is a tool's time over that of reading the checkpoint and writing a
file as large, here. Perplexity is that of the tier, paired with the uncompressed model, 95 %
intervals. An hour on two cores without what was made before.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import in_words, machine, say, table, write
from superweight.cards import load_library
from superweight.checkpoint import Cache, resolve
from superweight.gate import GateRun, Plan, Settings
from superweight.runs.document import CellDocument, RunDocument

TIER, CORPUS = "quantisers", "wiki-embedded"
NOT_TOOLS = ("baseline", "no-op", "prune-super-weights")
HEADERS = ("recipe", "MB", "seconds", "÷ copying", "super weights", "largest change", "perplexity", "loss", "verdict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=[], metavar="ID", help="instead of the tier's")
    parser.add_argument("--out", type=Path, default=Path("reports/quantisers"), help="the run's directory")
    parser.add_argument("-o", type=Path, help="write everything measured as JSON")
    options = parser.parse_args()
    library = load_library()
    tools = options.recipes or [one for one in library.tiers[TIER].recipes if one not in NOT_TOOLS]
    settings = Settings(tier=TIER, recipes=("baseline", *tools), out=options.out, store=options.out / "store")
    document = measured(GateRun(Plan.of(library, settings), settings))
    source = resolve(library.models[document.cells[0].model].source, Cache())
    weights = sorted({info.file for info in source.tensors.values()})
    found = {
        "benchmark": "quantisers",
        "machine": machine(),
        "run": str(options.out),
        "cells": [described(cell, weights) for cell in document.cells if cell.recipe in tools],
    }
    print(report(found))
    if options.o:
        write(options.o, found)


def measured(run: GateRun) -> RunDocument:
    """The whole run, cell by cell."""
    for cell in run.plan.cells:
        say(cell.id)
        run.measure(cell)
    return run.finish()


def described(cell: CellDocument, weights: list[Path]) -> dict[str, Any]:
    """What the run says of one cell, as plain data."""
    text = next((gate for gate in cell.gates if gate.gate == f"perplexity:{CORPUS}"), None)
    promise = next((gate for gate in cell.gates if gate.kind == "super-weights"), None)
    changes = [abs(one.stored / one.original - 1) for one in cell.super_weights]
    exact = sum(one.survived for one in cell.super_weights)
    made, size = cell.checkpoint.get("made", {}), cell.checkpoint.get("bytes")
    seconds = made.get("seconds")
    return {
        "recipe": cell.recipe,
        "versions": made.get("versions", {}),
        "bytes": size,
        "seconds": seconds,
        "over_copying": seconds / copying(weights, size) if seconds and size else None,
        "exact": exact,
        "super_weights": len(cell.super_weights),
        "largest_change": max(changes, default=None),
        "outcomes": [point.outcome for one in cell.super_weights for point in one.points],
        "perplexity": None if text is None else {"baseline": text.baseline, "value": text.value},
        "loss": None if text is None else {"value": text.difference, "interval": text.interval, "n": text.n},
        "gates": {gate.gate: gate.verdict for gate in cell.gates},
        "promise": None if promise is None else promise.verdict,
        "verdict": cell.verdict,
        "failures": [failure.message.splitlines()[0] for failure in cell.failures],
    }


def copying(weights: list[Path], size: int) -> float:
    """Seconds to read the checkpoint's weights and to write and flush as many bytes as the file has."""
    started = time.perf_counter()
    with tempfile.NamedTemporaryFile(dir=Path()) as target:
        left = size
        for file in weights:
            with file.open("rb") as stream:
                while chunk := stream.read(2**24):
                    left -= target.write(chunk[:left])
        os.fsync(target.fileno())
    return time.perf_counter() - started


def report(found: dict[str, Any]) -> str:
    """The table, and why cells are missing from it."""
    rows = [row(cell) for cell in found["cells"]]
    reasons = [f"{cell['recipe']}: {cell['failures'][0]}" for cell in found["cells"] if cell["failures"]]
    return "\n".join([table(HEADERS, rows), "", *reasons, in_words(found["machine"])])


def row(cell: dict[str, Any]) -> list[str]:
    """A line of the table."""
    text, loss = cell["perplexity"], cell["loss"]
    measured = text is not None and text["value"] is not None
    return [
        cell["recipe"],
        f"{cell['bytes'] / 1e6:.1f}" if cell["bytes"] else "",
        f"{cell['seconds']:.0f}" if cell["seconds"] else "",
        f"{cell['over_copying']:.0f}" if cell["over_copying"] else "",
        f"{cell['exact']} of {cell['super_weights']} exact" if cell["super_weights"] else "",
        "" if cell["largest_change"] is None else f"{cell['largest_change']:.2%}",
        f"{text['baseline']:.2f} → {text['value']:.6g}" if measured else "",
        percent(loss) if measured else "",
        cell["verdict"],
    ]


def percent(loss: dict[str, Any]) -> str:
    """The relative loss with its interval; as a multiple where it is beyond all bounds."""
    shown = [loss["value"], *(loss["interval"] or ())]
    if any(value is not None and value > 10 for value in shown):
        return f"×{1 + loss['value']:,.0f}"
    told = [f"{value:+.1%}" for value in shown]
    return told[0] + (f" [{', '.join(told[1:])}]" if len(told) == 3 else "")


if __name__ == "__main__":
    main()
