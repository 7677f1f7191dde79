"""What it costs to begin: collecting, importing, loading, and taking fingerprints, each beside the least it could cost.

    python benchmarks/startup.py [--model ID] [--repeats N] [--quick] [-o FILE]

Collection is timed in processes of their own with the plugins of this package and xdist, beside a directory that holds
as many trivial parametrised tests in as many files, with xdist alone. `--quick` takes a tiny random model, one turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring import in_turn, in_words, machine, ratio, say, table, write

ROOT = Path(__file__).resolve().parents[1]
PYTEST = [sys.executable, "-m", "pytest", "-p", "xdist", "-p", "no:cacheprovider", "--collect-only", "-q"]
OURS = ("-p", "superweight")
# Compiled modules are kept, as they are after any first run; other plugins of this environment stay out.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "HF_HUB_OFFLINE": "1",
}
TRIVIAL = "import pytest\n\n\n@pytest.mark.parametrize('x', range({tests}))\ndef test_one(x):\n    pass\n"

# A process up to its first cell: imports as the plugin's session does them, a load, and the same files read twice.
FIRST_CELL = """
import json, sys, time
seconds, since = {}, time.perf_counter()
def lap(name):
    global since
    seconds[name], since = time.perf_counter() - since, time.perf_counter()
import gc
from superweight.gc_pause import gc_paused
with gc_paused():
    import torch
    lap("import torch")
    import transformers.models.llama.modeling_llama
    from transformers import AutoModelForCausalLM, AutoTokenizer
    lap("import transformers")
    import superweight.measure
    gc.freeze()
    lap("import the rest")
from superweight.cards import load_library
from superweight.checkpoint import Cache, load_model, resolve
source, cache = load_library().model(sys.argv[1]).source, Cache()
files = {tensor.file for tensor in resolve(source, cache).tensors.values()}
for file in files:
    file.read_bytes()
lap("cards, hashes, warming the page cache")
loaded = load_model(resolve(source, cache))
lap("load")
for file in [*files, *files]:
    file.read_bytes()
lap("read twice")
print(json.dumps(seconds))
"""


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a card id or a directory")
    parser.add_argument("--repeats", type=int, default=7, help="turns of each; medians are shown")
    parser.add_argument("--quick", action="store_true", help="a tiny random model, one turn")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="the figures as JSON")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    with tempfile.TemporaryDirectory() as folder:
        model = str(_tiny_model(Path(folder) / "tiny")) if options.quick else options.model
        rows = [*_collection(Path(folder), repeats), *_first_cell(model, repeats), *_fingerprints(model, repeats)]
    about = machine()
    columns = ("what", "seconds", "beside", "its seconds", "ratio", "difference")
    print(table(columns, [_shown(row) for row in rows]))
    print(f"\nMedians of {repeats} in turn. {in_words(about)}")
    if options.output:
        write(options.output, {"machine": about, "repeats": repeats, "model": options.model, "rows": rows})
    return 0


def _row(what: str, beside: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and medians over turns of the ratio and of the difference within a turn."""
    mine, other = found[what], found[beside]
    return {
        "what": what,
        "seconds": statistics.median(mine),
        "beside": beside,
        "its seconds": statistics.median(other),
        "ratio": ratio(found, what, beside),
        "difference": statistics.median(a - b for a, b in zip(mine, other, strict=True)),
    }


def _alone(what: str, took: list[float]) -> dict[str, Any]:
    return {"what": what, "seconds": statistics.median(took)}


def _shown(row: dict[str, Any]) -> list[str]:
    numbers = {"seconds": ".3f", "its seconds": ".3f", "ratio": ".2f", "difference": "+.3f"}
    names = ("what", "seconds", "beside", "its seconds", "ratio", "difference")
    return [format(row[name], numbers.get(name, "")) if name in row else "" for name in names]


def _collection(folder: Path, repeats: int) -> list[dict[str, Any]]:
    """Our suites beside trivial ones of the same size, and a trivial one with our plugin beside one without."""
    rows = []
    for tier in ("smoke", "release"):
        ours = [*PYTEST, *OURS, "suites/", "--superweight-tier", tier]
        listed = _run(ours, ROOT).stdout.splitlines()
        bare = _bare_suite(folder / tier, Counter(line.partition("::")[0] for line in listed if "::" in line))
        tests = sum("::" in line for line in listed)
        mine, other = f"collect suites/, {tier} tier", f"collect {tests} trivial tests"
        say(mine)
        rows.append(_compared(mine, partial(_run, ours, ROOT), other, partial(_run, PYTEST, bare), repeats))
    foreign = folder / "smoke"
    say("collect a foreign suite")
    pair = ("collect a foreign suite, plugin loaded", partial(_run, [*PYTEST, *OURS], foreign))
    return [*rows, _compared(*pair, "without the plugin", partial(_run, PYTEST, foreign), repeats)]


def _compared(
    what: str, mine: Callable[[], object], beside: str, other: Callable[[], object], repeats: int
) -> dict[str, Any]:
    return _row(what, beside, in_turn({what: mine, beside: other}, repeats=repeats))


def _bare_suite(folder: Path, sizes: Counter[str]) -> Path:
    """A directory of as many files, each with as many trivial tests."""
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    for number, tests in enumerate(sizes.values()):
        (folder / f"test_{number}.py").write_text(TRIVIAL.format(tests=tests))
    return folder


def _first_cell(model: str, repeats: int) -> list[dict[str, Any]]:
    """Imports and the first load in fresh processes."""
    say("imports and load")
    command = [sys.executable, "-c", FIRST_CELL, model]
    laps = [json.loads(_run(command, ROOT).stdout.splitlines()[-1]) for _ in range(repeats + 1)][1:]
    found = {name: [one[name] for one in laps] for name in laps[0]}
    imports = [_alone(name, found[name]) for name in found if name.startswith("import")]
    return [*imports, _row("load", "read twice", found)]


def _fingerprints(model: str, repeats: int) -> list[dict[str, Any]]:
    """Fingerprints and the search for NaN, beside a copy of all parameters into memory that exists."""
    import torch

    from superweight.cards import load_library
    from superweight.checkpoint import Cache, load_model, resolve
    from superweight.measure.fingerprint import fingerprints, non_finite

    say("fingerprints")
    loaded = load_model(resolve(load_library().model(model).source, Cache())).model
    for parameter in loaded.parameters():
        parameter.data = parameter.data.clone()  # out of the mapped file
    targets = [torch.empty_like(parameter) for parameter in loaded.parameters()]

    def copy() -> None:
        for target, parameter in zip(targets, loaded.parameters(), strict=True):
            target.copy_(parameter)

    functions = {
        "fingerprints of all parameters": partial(fingerprints, loaded),
        "search for NaN and infinity": partial(non_finite, loaded),
        "copy of all parameters": copy,
    }
    *names, copied = functions
    found = in_turn(functions, repeats=repeats)
    return [_row(name, copied, found) for name in names]


def _run(command: list[str], where: Path) -> subprocess.CompletedProcess[str]:
    found = subprocess.run(command, cwd=where, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise SystemExit(f"{' '.join(command[:4])} … failed:\n{found.stdout[-2000:]}{found.stderr[-2000:]}")
    return found


def _tiny_model(directory: Path) -> Path:
    """A random Llama of two layers with a tokenizer of three words."""
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=3, **sizes)).save_pretrained(directory)
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="a").save_pretrained(directory)
    return directory


if __name__ == "__main__":
    sys.exit(main())
