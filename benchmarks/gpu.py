"""What a GPU makes of the kernels, the scoring and INT8 inference, beside what the GPU could do: one script, one run.

    python benchmarks/gpu.py -o gpu.json                        # minutes on one GPU
    python benchmarks/gpu.py --device cpu --small -o cpu.json   # the same code in seconds, for its checks

Needs Python, torch and transformers; finds the library beside itself. Prints Markdown: times as ratios, beside the
ceilings measured on the machine. Exit code 0: every section ran and every check holds; 1: not.
"""

import argparse
import gc
import importlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "plugins")]

import torch  # noqa: E402

import measuring  # noqa: E402
from gpu_sections import Findings, Setting  # noqa: E402

SECTIONS = {  # what it is, the module and its function; imported when its turn comes, so that one cannot stop another
    "checks": ("Correctness on this device", "gpu_checks", "section"),
    "w8a8": ("W8A8 against bf16", "gpu_w8a8", "section"),
    "quantisation": ("Rounding weights", "gpu_quantisation", "section"),
    "evaluation": ("Scoring a model of Mistral-7B's shape", "gpu_evaluation", "section"),
    "model": ("A real checkpoint", "gpu_evaluation", "with_model"),
}


def main(argv: list[str] | None = None) -> int:
    """Run the sections, print them, write them."""
    options = _options(argv)
    setting = Setting(options.device, options.small, options.model, ceilings(options.device, options.small))
    document: dict[str, Any] = {
        "machine": measuring.machine(options.device),
        "small": options.small,
        "ceilings": setting.ceilings,
        "sections": {},
    }
    print(f"# On {measuring.in_words(document['machine'])}\n")
    print(_ceilings_table(setting), flush=True)
    for name in options.only or SECTIONS:
        document["sections"][name] = run(name, setting)
        if options.output:  # after each, so that a run cut short leaves what it had
            measuring.write(options.output, document)
    failed = [name for name, found in document["sections"].items() if not found["ok"]]
    print(f"\n{'FAILED: ' + ', '.join(failed) if failed else 'All sections ran and all checks hold.'}")
    return 1 if failed else 0


def ceilings(device: str, small: bool) -> dict[str, float]:
    """What the machine can do: bytes a second of a copy, operations a second of products."""
    size = 512 if small else None
    return {
        "copy": measuring.copy_bandwidth(device, 16 if small else 4096),
        "bf16": measuring.matmul_peak(torch.bfloat16, device, size),
        "int8": measuring.matmul_peak(torch.int8, device, size),
    }


def run(name: str, setting: Setting) -> dict[str, Any]:
    """One section: printed, and as JSON. An error is reported, not raised."""
    title, module, function = SECTIONS[name]
    print(f"\n## {title}\n")
    started, error = time.perf_counter(), None
    try:
        section: Callable[[Setting], Findings] = getattr(importlib.import_module(module), function)
        findings = section(setting)
    except Exception:  # whatever a section meets, the others are still wanted
        findings, error = Findings(), traceback.format_exc()
        print(f"FAILED:\n\n```\n{error}```")
    for each in findings.tables:
        print(each, end="\n\n")
    for sentence, holds in findings.checks.items():
        print(f"- {'ok' if holds else 'FAILED'}: {sentence}")
    gc.collect()
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    took = time.perf_counter() - started
    print(f"\n({took:.0f} s)", flush=True)
    ok = error is None and all(findings.checks.values())
    return {"ok": ok, "error": error, "seconds": took, "checks": findings.checks, "figures": findings.figures}


def _ceilings_table(setting: Setting) -> str:
    found = setting.ceilings
    rows = [
        ("copy, read and written", f"{found['copy'] / 1e9:.0f} GB/s"),
        ("bf16 product", f"{found['bf16'] / 1e12:.1f} Tflop/s"),
        ("int8 product", f"{found['int8'] / 1e12:.1f} Top/s"),
    ]
    return measuring.table(("ceiling", "measured"), rows)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--small", action=argparse.BooleanOptionalAction, help="small sizes (as always on a CPU)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint with its tokenizer")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, metavar="SECTION", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="JSON")
    options = parser.parse_args(argv)
    options.small = options.device == "cpu" if options.small is None else options.small
    return options


if __name__ == "__main__":
    sys.exit(main())
