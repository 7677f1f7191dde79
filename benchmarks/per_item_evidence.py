"""Per-window and per-item figures of the embedded model under a few recipes, for simulations of verdicts.

    python benchmarks/per_item_evidence.py [-o FILE]

Measures perplexity on 128 windows of 512 tokens, ARC Easy (the 570 embedded items) and PIQA (the first 600), under the
uncompressed model and five recipes that do from next to nothing to clear damage. Half an hour on two cores.
"""

import argparse
import json
import platform
from pathlib import Path

import torch

from superweight.cards import Cell, TierPerplexity, TierTask, load_library
from superweight.evidence import write_text
from superweight.measure import CellMeasurer

MODEL = "smollm2-135m-instruct"
RECIPES = (
    "clip-restore-int8-channel",
    "w8a8-channel-token-handled",
    "rtn-int4-g64",
    "rtn-int4-g128",
    "smoothquant-tensor-token",
)
TEXT = TierPerplexity(corpus="wiki-embedded", window=512, windows=128)
TASKS = (TierTask(task="arc_easy", limit=None), TierTask(task="piqa", limit=600))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, default=Path(__file__).parent / "evidence" / f"{MODEL}.json")
    options = parser.parse_args()
    library, evidence = load_library(), {}
    bench = CellMeasurer(library, evidence, device="cpu")
    bench.plan(MODEL, [TEXT, *TASKS])
    for recipe in RECIPES:
        cell = Cell(library.models[MODEL], library.recipes[recipe])
        for measure, entries in ((bench.perplexity, [TEXT]), (bench.zero_shot, TASKS)):
            for entry in entries:
                print(f"{recipe}: {entry}", flush=True)
                measure(cell, entry)
    cells = {cell.recipe: cell for cell in evidence.values()}
    document = {
        "model": MODEL,
        "protocol": f"{TEXT.windows} windows of {TEXT.window} tokens; scores are acc, items in the task's order",
        "machine": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}",
        "perplexity": {TEXT.corpus: {name: cell.perplexity[TEXT.corpus].nll for name, cell in cells.items()}},
        "zero_shot": {
            task.task: {
                name: "".join(str(int(score)) for score in cell.zero_shot[task.task].scores().values())
                for name, cell in cells.items()
            }
            for task in TASKS
        },
    }
    write_text(options.o, json.dumps(document, indent=1) + "\n")
    print(options.o)


if __name__ == "__main__":
    main()
