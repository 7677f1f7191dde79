"""Perplexity of the embedded model: this library against a transformers loop that takes the loss from full logits.

    python benchmarks/perplexity.py [--window N] [--windows N] [--dtypes float32 bfloat16] [--repeats N] [-o FILE]

The plain loop is `model(input_ids=window, labels=window).loss`, a window at a time. Peak memory is what a process needs
beyond the loaded model, each side measured in a process of its own. Ten minutes on two cores.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import torch

from measuring import copy_bandwidth, in_turn, in_words, machine, matmul_peak, ratio, table, write
from superweight.cards import load_library
from superweight.checkpoint import Cache, load_model, resolve
from superweight.evaluate import corpus_tokens, perplexity
from superweight.forward.scorer import Scorer

MODEL, CORPUS = "smollm2-135m-instruct", "wiki-embedded"
SIDES = ("plain", "here")
DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, nargs="+", default=[512, 1024, 2048], help="tokens a window")
    parser.add_argument("--windows", type=int, default=4, help="how many (default 4)")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES, help="arithmetic (default both)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak-of", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("-o", type=Path, help="write everything measured as JSON")
    options = parser.parse_args()
    if options.peak_of:
        print(json.dumps(peak(options.peak_of, options.window[0])))
        return
    found = {
        "benchmark": "perplexity",
        "machine": machine(),
        "limits": {"copy_bandwidth": copy_bandwidth()},
        "figures": [measure(dtype, window, options) for dtype in options.dtypes for window in options.window],
    }
    print(report(found))
    if options.o:
        write(options.o, found)


def load(dtype: str):
    """The model, and the corpus as token ids."""
    library, cache = load_library(), Cache()
    loaded = load_model(resolve(library.models[MODEL].source, cache), compute_dtype=dtype)
    return loaded, corpus_tokens(loaded, library.corpora[CORPUS], cache)


def plain(loaded, windows: torch.Tensor) -> float:
    """exp of the mean loss, as transformers computes it with every logit."""
    with loaded.arithmetic():
        losses = [loaded.model(input_ids=window[None], labels=window[None]).loss.double() for window in windows]
    return math.exp(float(torch.stack(losses).mean()))


def measure(dtype: str, window: int, options) -> dict:
    """Both sides in turn, on the same windows."""
    loaded, tokens = load(dtype)
    scorer = Scorer(loaded)
    some = tokens[: window * options.windows]
    values = {}
    took = in_turn(
        {
            "plain": lambda: values.update(plain=plain(loaded, some.view(-1, window))),
            "here": lambda: values.update(here=perplexity(loaded, some, window=window, scorer=scorer).value),
        },
        repeats=options.repeats,
    )
    body = sum(p.numel() for p in loaded.model.parameters())  # the tied table is the head
    rate = 2 * body * len(some) / min(took["here"])
    return {
        "dtype": dtype,
        "window": window,
        "tokens": len(some),
        "seconds": took,
        "ratio": ratio(took, "plain", "here"),
        "value": values,
        "relative_difference": abs(values["here"] / values["plain"] - 1),
        "of_matmul_peak": rate / matmul_peak(getattr(torch, dtype)),
        "peak_bytes": {side: peak_in_a_process(side, window) for side in ("plain", "here")}
        if dtype == "float32"
        else {},
    }


def peak_in_a_process(side: str, window: int) -> int:
    """Bytes that scoring one window takes at most, beyond the loaded model."""
    command = [sys.executable, __file__, "--peak-of", side, "--window", str(window)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak(side: str, window: int) -> int:
    """Of this process; Linux keeps the largest resident size since it was last reset."""
    loaded, tokens = load("float32")
    scorer = Scorer(loaded)
    sum(float(parameter.sum()) for parameter in loaded.model.parameters())  # the file's pages, which are mapped
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    if side == "plain":
        plain(loaded, tokens[None, :window])
    else:
        perplexity(loaded, tokens[:window], window=window, scorer=scorer)
    return resident("VmHWM") - before


def resident(key: str) -> int:
    """Bytes, from the kernel's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def report(found: dict) -> str:
    """The table."""
    rows = [
        [
            row["dtype"],
            row["window"],
            f"{row['ratio']:.2f}",
            f"{row['of_matmul_peak']:.0%}",
            f"{row['relative_difference']:.1e}",
            *(f"{row['peak_bytes'][side] / 2**20:.0f}" if row["peak_bytes"] else "" for side in SIDES),
        ]
        for row in found["figures"]
    ]
    headers = ["dtype", "window", "times faster", "of matmul peak", "relative Δ", "peak MiB, plain", "peak MiB, here"]
    return f"Perplexity. {in_words(found['machine'])}\n\n{table(headers, rows)}"


if __name__ == "__main__":
    main()
