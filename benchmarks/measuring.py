"""What every benchmark shares: the machine in words, its ceilings, runs in turn, and one table with its JSON.

Needs torch alone, so that it also runs where nothing else is installed.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "transformers", "lm-eval", "triton")


def wait(device: str | torch.device) -> None:
    """Let a GPU finish what it was given."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds(function: Callable[[], Any], device: str | torch.device = "cpu") -> float:
    """Wall time of one call."""
    wait(device)
    started = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - started


def in_turn(
    functions: dict[str, Callable[[], Any]], *, repeats: int, warmup: int = 1, device: str | torch.device = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each call, the functions taking turns, so that a machine that drifts drifts for all of them."""
    found: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(warmup + repeats):
        for name, function in functions.items():
            took = seconds(function, device)
            if repeat >= warmup:
                found[name].append(took)
    return found


def ratio(found: dict[str, list[float]], slow: str, fast: str) -> float:
    """How many times faster one is: the median over turns of the ratio within a turn."""
    return statistics.median(a / b for a, b in zip(found[slow], found[fast], strict=True))


def copy_bandwidth(device: str | torch.device = "cpu", megabytes: int = 256) -> float:
    """Bytes a second, read plus written, of a copy of a tensor into one that exists."""
    source = torch.empty(megabytes * 2**20, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    took = in_turn({"copy": lambda: target.copy_(source)}, repeats=5, device=device)
    return 2 * source.numel() / min(took["copy"])


def matmul_peak(dtype: torch.dtype, device: str | torch.device = "cpu", size: int | None = None) -> float:
    """Operations a second of a square product, two for each multiply-add; of int8 by `torch._int_mm`."""
    n = size or (8192 if torch.device(device).type == "cuda" else 2048)
    if dtype == torch.int8:
        a, b = (torch.randint(-127, 128, (n, n), dtype=dtype, device=device) for _ in range(2))
        took = in_turn({"product": lambda: torch._int_mm(a, b.t())}, repeats=5, device=device)
    else:
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        took = in_turn({"product": lambda: torch.nn.functional.linear(a, b)}, repeats=5, device=device)
    return 2 * n**3 / min(took["product"])


def machine(device: str | torch.device = "cpu") -> dict[str, Any]:
    """What a figure was measured on."""
    place = torch.device(device)
    found: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
    }
    if place.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(place)
    return found


def in_words(found: dict[str, Any]) -> str:
    """The machine on one line."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    gpu = f"{found['gpu']}; " if "gpu" in found else ""
    return (
        f"{gpu}{found['processor']}, {found['cores']} cores, {found['threads']} threads, "
        f"{found['vector instructions']}; {versions}; {found['date']}"
    )


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table, columns padded."""
    lines = [[str(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    return "\n".join([padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]])


def say(line: str) -> None:
    """Progress, apart from the table."""
    print(line, file=sys.stderr, flush=True)


def write(path: Path, document: dict[str, Any]) -> None:
    """JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    Path(file.name).replace(path)
    say(str(path))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
