"""What applying a recipe and undoing it cost, beside a plain copy of the weights that change.

    python benchmarks/undo.py [-o FILE]

Two sets of random bfloat16 weights: those of a decoder of 30 layers as large as the embedded model, and one of
4096 × 14336. INT4 round-to-nearest in groups of 128 (64 in the small one, whose rows are 576 wide) is applied and
undone time and again, as a gate applies one recipe after another; the first time, memory for the copy is new to the
process. That undoing is exact is checked by hash.
"""

import argparse
import hashlib
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from measuring import copy_bandwidth, in_turn, in_words, machine, say, seconds, table, write
from superweight.cards.methods import RoundToNearest
from superweight.checkpoint.architecture import LinearWeight
from superweight.compress import Matrix, recipe_of
from superweight.compress.undo_log import UndoLog
from superweight.kernels import compiling

SMALL = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)]  # q k v o gate up down


def weights(shapes: list[tuple[int, int]]) -> list[LinearWeight]:
    module: Any = SimpleNamespace()
    made = [nn.Parameter((torch.randn(shape) * 0.02).bfloat16(), requires_grad=False) for shape in shapes]
    return [LinearWeight(f"weight {i}", i, parameter, module) for i, parameter in enumerate(made)]


def digest(held: list[LinearWeight]) -> str:
    found = hashlib.sha256()
    for weight in held:
        found.update(weight.parameter.data.view(torch.uint8).numpy())
    return found.hexdigest()


def keep(held: list[LinearWeight]) -> UndoLog:
    journal = UndoLog()
    for weight in held:
        journal.keep(weight)
    return journal


def rewrite(held: list[LinearWeight], method: RoundToNearest, journal: UndoLog) -> None:
    recipe = recipe_of(method)
    for weight in held:
        matrix = Matrix(weight.name, weight.stored(), torch.bfloat16)
        recipe.compress(matrix)
        journal.record(weight.name, changed=matrix.changed)


def one(held: list[LinearWeight], method: RoundToNearest, repeats: int) -> dict[str, Any]:
    before = digest(held)
    copies = [weight.parameter.data.clone() for weight in held]
    journals: list[UndoLog] = []

    def copy() -> None:
        for target, weight in zip(copies, held, strict=True):
            target.copy_(weight.parameter.data)

    turns = {
        "copy": copy,
        "keep": lambda: journals.append(keep(held)),
        "rewrite": lambda: rewrite(held, method, journals[-1]),
        "undo": lambda: journals.pop().undo(),
    }
    first = seconds(lambda: keep(held).undo())
    took = in_turn(turns, repeats=repeats)
    journal = keep(held)
    rewrite(held, method, journal)
    changed = digest(held) != before and len(journal.changed) == len(held)
    journal.undo()
    medians = {name: statistics.median(found) for name, found in took.items()}
    return {
        "seconds": medians,
        "first keep and undo, of two copies": first / (2 * medians["copy"]),
        "of a copy": {name: medians[name] / medians["copy"] for name in ("keep", "rewrite", "undo")},
        "bytes": sum(copied.nbytes for copied in copies),
        "changed": changed,
        "undone": digest(held) == before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=30, help="of the small model")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=14336)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("-o", type=Path, help="write JSON there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    cases = {
        f"{options.layers} layers of the embedded model's size": (SMALL * options.layers, 64),
        f"{options.rows} × {options.columns}": ([(options.rows, options.columns)], 128),
    }
    found = {}
    for name, (shapes, size) in cases.items():
        say(name)
        method = RoundToNearest(kind="rtn", bits=4, granularity="group", group_size=size)
        with torch.no_grad():
            found[name] = one(weights(shapes), method, options.repeats)
    how, bandwidth = compiling.how(), copy_bandwidth()
    print(f"{in_words(machine())}\nbfloat16, {options.repeats} repeats in turn, medians; {how}\n")
    headers = [
        "weights",
        "MB",
        "keep ÷ copy",
        "rewrite ÷ copy",
        "undo ÷ copy",
        "first keep and undo ÷ 2 copies",
        "exact",
    ]
    rows = [
        [
            name,
            f"{it['bytes'] / 1e6:.0f}",
            *(f"{number:.2f}" for number in it["of a copy"].values()),
            f"{it['first keep and undo, of two copies']:.1f}",
            "yes" if it["changed"] and it["undone"] else "NO",
        ]
        for name, it in found.items()
    ]
    print(table(headers, rows))
    if options.o:
        write(options.o, {"machine": machine(), "how": how, "copy bytes a second": bandwidth, "weights": found})


if __name__ == "__main__":
    main()
