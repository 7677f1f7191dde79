"""How near to the speed of memory a weight is quantised, in place, beside a copy and a straightforward version.

    python benchmarks/quantisation.py [-o FILE]

A random bfloat16 weight is rounded to nearest, and clipped at z = 9 and rounded, at the granularities that are
deployed. The ratio is the time of one `clone()` of the weight over the time of the quantisation: 1 is as fast as a
copy. "Plain" is the formula written down without further thought: a float32 copy, amin and amax, round, cast back.
Every result is compared bit for bit with what the eager form of the same code gives. A minute on two cores.
"""

import argparse
import math
import os
import statistics
from pathlib import Path
from typing import Any

import torch

from measuring import copy_bandwidth, in_turn, in_words, machine, ratio, say, seconds, table, write
from superweight.kernels import compiling
from superweight.kernels.rounding import LONG, part_elements, round_, squared_errors

Z = 9.0
GRID = (2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, math.inf)  # that of clip-restore with z = "search"


def granularities(columns: int) -> dict[str, tuple[int, int]]:
    """Elements of a block and bits of a code, by name."""
    return {
        "INT4, groups of 128": (128, 4),
        "INT4, groups of 64": (64, 4),
        "INT8, channels": (columns, 8),
        "INT4, blocks of 16384": (16384, 4),
        "INT4, blocks of 1048576": (1 << 20, 4),
    }


def as_blocks(weight: torch.Tensor, n: int) -> list[torch.Tensor]:
    """The weight as `(blocks, n)`, and a last shorter block."""
    flat = weight.view(-1)
    whole = flat.numel() // n * n
    return [part for part in (flat[:whole].view(-1, n), flat[whole:].view(1, -1)) if part.numel()]


def parts(weight: torch.Tensor, n: int) -> list[torch.Tensor]:
    """What the library gives its kernels at a time."""
    step = 1 if n > LONG else max(1, part_elements(weight.device) // n)
    return [part for blocks in as_blocks(weight, n) for part in blocks.split(step)]


def quantise(weight: torch.Tensor, n: int, bits: int, z: float) -> None:
    for part in parts(weight, n):
        round_(part, bits, z)


def plain(weight: torch.Tensor, n: int, bits: int, z: float) -> None:
    """The straightforward version."""
    for blocks in as_blocks(weight, n):
        x = blocks.float()
        low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
        if math.isfinite(z):
            threshold = x.abs().mean(-1, keepdim=True) + z * x.abs().std(-1, keepdim=True)
            low, high = low.clamp(-threshold, threshold), high.clamp(-threshold, threshold)
            x = x.clamp(low, high)
        step = (high - low) / (2**bits - 1)
        blocks.copy_(torch.round((x - low) / step) * step + low)


def search(weight: torch.Tensor, n: int, bits: int) -> torch.Tensor:
    return sum(squared_errors(part, bits, GRID) for part in parts(weight, n))


def eager(function: Any, *arguments: Any) -> Any:
    """Call it with nothing compiled."""
    before = os.environ.get(compiling.VARIABLE)
    os.environ[compiling.VARIABLE] = "0"
    try:
        return function(*arguments)
    finally:
        os.environ.pop(compiling.VARIABLE) if before is None else os.environ.update({compiling.VARIABLE: before})


def same_as_eager(weight: torch.Tensor, n: int, bits: int, z: float) -> bool:
    fast, slow = weight.clone(), weight.clone()
    quantise(fast, n, bits, z)
    eager(quantise, slow, n, bits, z)
    return torch.equal(fast.view(torch.int16), slow.view(torch.int16))


def one(weight: torch.Tensor, n: int, bits: int, repeats: int) -> dict[str, Any]:
    device = weight.device
    work = weight.clone()
    first = seconds(lambda: (quantise(work, n, bits, math.inf), quantise(work, n, bits, Z)), device)
    how = compiling.how(device.type)
    calls = {
        "clone": lambda: weight.clone(),
        "rtn": lambda: quantise(work, n, bits, math.inf),
        "clip": lambda: quantise(work, n, bits, Z),
        "rtn eager": lambda: eager(quantise, work, n, bits, math.inf),
        "clip eager": lambda: eager(quantise, work, n, bits, Z),
    }
    took = in_turn(calls, repeats=repeats, device=device)
    work = weight.clone()
    slow = {"rtn plain": lambda: plain(work, n, bits, math.inf), "clip plain": lambda: plain(work, n, bits, Z)}
    took |= in_turn(slow, repeats=max(1, repeats // 3), device=device)
    took |= in_turn({"search": lambda: search(weight, n, bits)}, repeats=max(1, repeats // 3), device=device)
    medians = {name: statistics.median(found) for name, found in took.items()}
    found: dict[str, Any] = {"how": how, "seconds": medians, "first call, seconds": first}
    for kind, z in (("rtn", math.inf), ("clip", Z)):
        found[kind] = {
            "of clone": ratio(took, "clone", kind),
            "eager, of clone": ratio(took, "clone", f"{kind} eager"),
            "times plain": medians[f"{kind} plain"] / medians[kind],
            "bits as eager": same_as_eager(weight, n, bits, z),
        }
    found["search"] = {"of clone": medians["clone"] / medians["search"]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=14336)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--eager", action="store_true", help="compile nothing, as where there is no compiler")
    parser.add_argument("-o", type=Path, help="write JSON there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    os.environ[compiling.VARIABLE] = "0" if options.eager else "1"
    torch.manual_seed(0)
    weight = (torch.randn(options.rows, options.columns) * 0.02).bfloat16().to(options.device)
    bandwidth = copy_bandwidth(options.device)
    found = {}
    for name, (n, bits) in granularities(options.columns).items():
        say(name)
        found[name] = one(weight, n, bits, options.repeats)
    how = next(iter(found.values()))["how"]
    shape = f"{options.rows} × {options.columns} bfloat16, {options.repeats} repeats in turn, medians"
    print(f"{in_words(machine(options.device))}\n{shape}; {how}; copy {bandwidth / 1e9:.0f} GB/s read and written\n")
    rows = []
    for name, one_ in found.items():
        for kind, label in (("rtn", "rtn"), ("clip", f"clip, z = {Z:g}")):
            it = one_[kind]
            same = "yes" if it["bits as eager"] else "NO"
            numbers = (it["of clone"], it["eager, of clone"])
            rows.append([name, label, *(f"{number:.2f}" for number in numbers), f"{it['times plain']:.1f}", same])
        rows.append([name, "search over 17 z", f"{one_['search']['of clone']:.2f}", "", "", ""])
    headers = [
        "granularity",
        "",
        "clone ÷ this",
        "clone ÷ eager form",
        "times as fast as plain",
        "same bits as eager form",
    ]
    print(table(headers, rows))
    print(f"\nFirst calls, compilation included: {sum(one_['first call, seconds'] for one_ in found.values()):.1f} s.")
    if options.o:
        about = {"machine": machine(options.device), "shape": [options.rows, options.columns], "how": how}
        write(options.o, {**about, "copy bytes a second": bandwidth, "granularities": found})


if __name__ == "__main__":
    main()
