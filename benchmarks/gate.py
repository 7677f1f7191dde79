"""The whole nightly gate on the embedded model, beside the same work done by hand with lm-eval's command line.

    python benchmarks/gate.py [--recipes ID ...] [--peer-recipes N] [--skip-peer] [--quick] [-o FILE]

By hand means: for the uncompressed model and each recipe, a process that applies the recipe and saves a bfloat16
checkpoint, then one `lm_eval run --model hf` of that checkpoint in bfloat16: the same four tasks by lm-eval's own
definitions on the same rows, and the texts of the same token windows as `loglikelihood_rolling` documents. lm-eval's
word and byte perplexity is another protocol than the gate's (each text stands behind an end-of-text token), but as
many tokens are scored. Its batch size is the fastest of `--batch-sizes` in short runs, which count for neither side.

The gate's time is that of its whole process: start-up, loading, detection, A/A repeats, verdicts and report, which the
other side does without. Only recipes whose result a plain checkpoint can hold are compared. Hours; `--quick` takes two
recipes and a few items and is no measurement.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from gate_peer import MODEL, TIER, peer_name, why_not_saved
from measuring import in_words, machine, say, table, write

ROOT = Path(__file__).resolve().parents[1]
RECIPES = (
    "no-op",
    "prune-super-weights",
    "rtn-int8-channel",
    "clip-restore-int8-channel",
    "rtn-int4-g64",
    "clip-restore-int4-g64",
    "rtn-int4-g128",
    "clip-restore-int4-g128",
    "rtn-int4-b65536",
    "scale-super-weights-x1.5",
)
BASELINE = "baseline"
BATCH_SIZES = (4, 8, 16, 32)
PROBE_ITEMS = 30  # of a task, in the short runs that choose a batch size
EVALUATING, SAVING = "lm_eval, a process a checkpoint", "… and saving the checkpoints"
FULL, STOPPING = "the gate, everything measured", "the gate, stopping at valid verdicts"
HEADERS = ("what", "processes", "seconds", "cells", "items", "tokens of text", "÷ in full", "÷ stopping")


@dataclass(frozen=True)
class Work:
    """What both sides are to do.

    Attributes:
        recipes: beside the baseline.
        tier: its perplexity and task entries, as `tier_of` gives them.
        folder: where everything is written, and removed afterwards.
        environment: of every process.
    """

    recipes: list[str]
    tier: dict[str, Any]
    folder: Path
    environment: dict[str, str]

    @property
    def peer_tasks(self) -> dict[str, int]:
        """lm-eval's tasks with the number of documents that each should ask."""
        tasks = {peer_name(entry["task"]): entry["limit"] for entry in self.tier["tasks"]}
        return tasks | {peer_name(entry["corpus"]): entry["windows"] for entry in self.tier["perplexity"]}

    def python(self, what: str, *arguments: object, expected: Sequence[int] = (0,)) -> tuple[float, str]:
        """Seconds and standard output of a Python process.

        Raises:
            RuntimeError: it ended with another code than those expected.
        """
        command = [sys.executable, *map(str, arguments)]
        started = time.perf_counter()
        ended = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        took = time.perf_counter() - started
        if ended.returncode not in expected:
            raise RuntimeError(f"{what}: exit code {ended.returncode}\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        say(f"{what}: {took:.1f} s")
        return took, ended.stdout

    def helper(self, what: str, *arguments: object) -> tuple[float, dict[str, Any]]:
        """Seconds of a command of `gate_peer.py`, and what it printed."""
        took, printed = self.python(what, ROOT / "benchmarks" / "gate_peer.py", *arguments)
        return took, json.loads(printed.splitlines()[-1])


def main() -> int:
    """Print one table; 1 if a side did not do all of its work."""
    options = _options()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = measure(options, Path(folder))
    print(table(HEADERS, rows(found)))
    print("\n" + "\n".join([*notes(found), in_words(found["machine"])]))
    if options.output:
        write(options.output, found)
    return 1 if found["complaints"] else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", default=RECIPES, metavar="ID", help="beside the baseline")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="items a task, at least as many as windows; default the tier's"
    )
    parser.add_argument("--windows", type=int, metavar="N", help="windows a corpus, at least 2; default the tier's")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N", help="a process; default all cores")
    parser.add_argument(
        "--batch-sizes", nargs="+", type=int, default=BATCH_SIZES, metavar="N", help="lm_eval's; the fastest is taken"
    )
    parser.add_argument("--skip-peer", action="store_true", help="the gate alone")
    parser.add_argument("--peer-recipes", type=int, metavar="N", help="by hand only the first N; others at their mean")
    parser.add_argument("--quick", action="store_true", help="two recipes, 20 items, 2 windows, one batch size")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="the figures as JSON")
    options = parser.parse_args()
    if options.quick:
        options.recipes, options.limit, options.windows, options.batch_sizes = ["no-op", "rtn-int4-g64"], 20, 2, [8]
    if problems := why_not_saved(options.recipes):
        parser.error("; ".join(problems))
    return options


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything, each in processes of its own."""
    from superweight.cards import load_library

    tier = tier_of(load_library().tiers[TIER], limit=options.limit, windows=options.windows)
    work = Work(list(options.recipes), tier, folder, environment(os.environ, folder, options.threads))
    (folder / "cards" / "tiers").mkdir(parents=True)
    (folder / "cards" / "tiers" / f"{TIER}.toml").write_text(toml(tier))
    # Also brings into the page cache, and into that of the package, what either side reads.
    _, prepared = work.helper("writing tasks and rows", "tasks", folder / "cards", folder)
    about = machine() | {"threads": options.threads}
    found = {"machine": about, "model": MODEL, "recipes": work.recipes, "tier": tier, "complaints": []}
    for what, stopping in ((FULL, "off"), (STOPPING, "on")):
        took, evidence = _gate(work, stopping)
        found[what] = {"seconds": took, **summary(evidence)}
        found["complaints"] += complaints(work, evidence, full=what == FULL)
    if not options.skip_peer:
        recipes = [BASELINE, *work.recipes[: options.peer_recipes]]
        found["peer"] = prepared | _by_hand(work, recipes, options.batch_sizes)
        found["complaints"] += peer_complaints(work, found["peer"]["checkpoints"])
    return found


def tier_of(tier: Any, *, limit: int | None = None, windows: int | None = None) -> dict[str, Any]:
    """What a tier measures as plain data, with other numbers of items or windows if they are given."""
    plain = tier.model_dump(mode="json")
    return {
        **{name: plain[name] for name in ("id", "title", "models", "recipes", "sequential")},
        "perplexity": [entry | ({"windows": windows} if windows else {}) for entry in plain["perplexity"]],
        "tasks": [entry | ({"limit": limit} if limit else {}) for entry in plain["tasks"]],
    }


def toml(tier: dict[str, Any]) -> str:
    """The card of what `tier_of` gives."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in tier.items() if key not in ("perplexity", "tasks")]
    for key in ("perplexity", "tasks"):
        for entry in tier[key]:
            lines += ["", f"[[{key}]]", *(f"{name} = {json.dumps(value)}" for name, value in entry.items())]
    return "\n".join(lines) + "\n"


def environment(inherited: Mapping[str, str], folder: Path, threads: int) -> dict[str, str]:
    """No network, so many threads, a cache of data sets that goes away; compiled modules are kept, as usual."""
    kept = {name: value for name, value in inherited.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "datasets"),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
    }


def _gate(work: Work, stopping: str) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole process, and its evidence. Red verdicts are to be expected of these recipes."""
    out = work.folder / f"stopping-{stopping}"
    arguments = ["-m", "pytest", "suites/", "-q", "-p", "no:cacheprovider"]
    arguments += [
        "-o",
        f"superweight_cards={work.folder / 'cards'}",
        "-o",
        f"superweight_baselines={out / 'baselines'}",
    ]
    arguments += ["--superweight-tier", TIER, "--superweight-stopping", stopping]
    arguments += ["--superweight-out", str(out / "report"), "--superweight-store", str(out / "store")]
    arguments += [part for recipe in work.recipes for part in ("--superweight-recipe", recipe)]
    took, _ = work.python(f"gate, stopping {stopping}", *arguments, expected=(0, 1))
    return took, json.loads((out / "report" / "evidence.json").read_text())


def summary(evidence: dict[str, Any]) -> dict[str, Any]:
    """How much the gate measured, and what it found; `correct` are the baseline's right answers of how many."""
    cells = evidence["cells"]
    baseline = next(cell for cell in cells if cell["role"] == "baseline")["zero_shot"]
    return {
        "cells": len(cells),
        "items": sum(task["n"] for cell in cells for task in cell["zero_shot"].values()),
        "tokens": sum(text["tokens"] for cell in cells for text in cell["perplexity"].values()),
        "verdicts": {cell["recipe"]: cell["verdict"] for cell in cells},
        "stages": stages(cells),
        "correct": {name: [round(task["metrics"]["acc"] * task["n"]), task["n"]] for name, task in baseline.items()},
    }


def stages(cells: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Seconds of each kind of measurement over all cells; what is left of the process is start-up, loading, report."""
    found: dict[str, float] = {}
    for cell in cells:
        for stage, took in cell["seconds"].items():
            kind = stage.partition(":")[0]
            found[kind] = found.get(kind, 0.0) + took
    return found


def complaints(work: Work, evidence: dict[str, Any], *, full: bool) -> list[str]:
    """What the gate failed to measure, and in full also what it measured a part of."""
    found = {cell["recipe"]: cell for cell in evidence["cells"]}
    wanted = [("perplexity", entry["corpus"], "windows", entry["windows"]) for entry in work.tier["perplexity"]]
    wanted += [("zero_shot", entry["task"], "n", entry["limit"]) for entry in work.tier["tasks"]]
    said = [f"{recipe}: no such cell" for recipe in (BASELINE, *work.recipes) if recipe not in found]
    for recipe, cell in found.items():
        said += [f"{recipe}: {failure['stage']}: {failure['message']}" for failure in cell["failures"]]
        for kind, name, count, number in wanted:
            measured = cell[kind].get(name, {count: 0})[count]
            if not measured or (full and measured != number):
                said.append(f"{recipe}: {name}: {measured} of {number} measured")
    return said


def _by_hand(work: Work, recipes: Sequence[str], sizes: Sequence[int]) -> dict[str, Any]:
    """Save and evaluate each checkpoint; the first, of the baseline, is also what a batch size is chosen with."""
    checkpoint, found = work.folder / "checkpoint", {"probe": {}, "checkpoints": []}
    for recipe in recipes:
        saving, inside = work.helper(f"saving {recipe}", "save", recipe, checkpoint)
        if recipe == recipes[0]:
            found["probe"] = _probe(work, checkpoint, sizes)
            found["batch size"] = min(found["probe"], key=found["probe"].get) if found["probe"] else sizes[0]
            say(f"batch size {found['batch size']}")
        took, results = _lm_eval(work, recipe, checkpoint, "tasks", max(work.peer_tasks.values()), found["batch size"])
        found["checkpoints"].append({"recipe": recipe, "seconds": took, "saving": saving, **inside, **answers(results)})
        shutil.rmtree(checkpoint)
    return found


def _probe(work: Work, checkpoint: Path, sizes: Sequence[int]) -> dict[int, float]:
    """Seconds of short runs by batch size, without those that do not fit into memory; none if there is no choice.

    Raises:
        RuntimeError: no size works.
    """
    found: dict[int, float] = {}
    failure = None
    for size in sizes if len(sizes) > 1 else ():
        try:
            found[size], _ = _lm_eval(work, f"probe, batch size {size}", checkpoint, "probe", PROBE_ITEMS, size)
        except RuntimeError as error:
            failure = error
            say(str(error))
    if failure and not found:
        raise failure
    return found


def _lm_eval(
    work: Work, what: str, checkpoint: Path, tasks: str, limit: int, batch_size: int
) -> tuple[float, dict[str, Any]]:
    """Seconds of lm-eval's command line, and the results that it writes."""
    output = Path(tempfile.mkdtemp(dir=work.folder))
    command = command_line(work, checkpoint, tasks, limit, batch_size)
    took, _ = work.python(f"lm_eval {what}", *command, "--output_path", output)
    return took, json.loads(next(output.rglob("results*.json")).read_text())


def command_line(work: Work, checkpoint: Path, tasks: str, limit: int, batch_size: int) -> list[str]:
    """`lm_eval run …`; a window of a text and its end-of-text token are one pass."""
    window = max(entry["window"] for entry in work.tier["perplexity"])
    return [
        *("-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"),
        *("--model_args", f"pretrained={checkpoint},dtype=bfloat16,max_length={window}"),
        *("--include_path", str(work.folder / tasks), "--tasks", ",".join(work.peer_tasks)),
        *("--limit", str(limit), "--batch_size", str(batch_size)),
    ]


def answers(results: dict[str, Any]) -> dict[str, Any]:
    """Documents asked of each of lm-eval's tasks, and of those with an accuracy the right answers of how many."""
    asked = {name: samples["effective"] for name, samples in results["n-samples"].items()}
    accuracy = {name: found["acc,none"] for name, found in results["results"].items() if "acc,none" in found}
    return {
        "asked": asked,
        "correct": {name: [round(acc * asked[name]), asked[name]] for name, acc in accuracy.items()},
    }


def peer_complaints(work: Work, checkpoints: Sequence[dict[str, Any]]) -> list[str]:
    """Documents that lm-eval was not asked."""
    return [
        f"lm_eval {one['recipe']}: {name}: {one['asked'].get(name, 0)} of {number} asked"
        for one in checkpoints
        for name, number in work.peer_tasks.items()
        if one["asked"].get(name, 0) != number
    ]


def in_all(checkpoints: Sequence[dict[str, Any]], of: str, recipes: int) -> float:
    """The baseline's seconds and those of so many recipes, at the mean of those measured (the baseline's, if none)."""
    baseline, *others = (one[of] for one in checkpoints)
    return float(baseline + fmean(others or [baseline]) * recipes)


def rows(found: dict[str, Any]) -> list[list[str]]:
    """The table; ratios are how many times longer than the gate in full, and than the gate that stops."""
    lines: list[tuple[str, int, float, int, int, int]] = []
    if peer := found.get("peer"):
        cells, checkpoints = 1 + len(found["recipes"]), peer["checkpoints"]
        items = sum(number for _, number in checkpoints[0]["correct"].values()) * cells
        done = (cells, items, peer["tokens"] * cells)
        evaluating, saving = (in_all(checkpoints, of, cells - 1) for of in ("seconds", "saving"))
        lines = [(EVALUATING, cells, evaluating, *done), (SAVING, 2 * cells, evaluating + saving, *done)]
    gates = [
        (name, 1, *(found[name][key] for key in ("seconds", "cells", "items", "tokens"))) for name in (FULL, STOPPING)
    ]
    return [
        [what, str(processes), f"{took:,.1f}", *(f"{number:,}" for number in done)]
        + [f"{took / found[name]['seconds']:.2f}" for name in (FULL, STOPPING)]
        for what, processes, took, *done in [*lines, *gates]
    ]


def difference(ours: dict[str, list[int]], theirs: dict[str, list[int]]) -> tuple[str, int]:
    """The task on which two sides' right answers differ most in number, and by how many."""
    apart = {name: abs(right - theirs[peer_name(name)][0]) for name, (right, _) in ours.items()}
    worst = max(apart, key=lambda name: apart[name])
    return worst, apart[worst]


def notes(found: dict[str, Any]) -> list[str]:
    """What to know beside the table."""
    said = [f"COMPLAINT: {complaint}" for complaint in found["complaints"]]
    for name in (FULL, STOPPING):
        verdicts = found[name]["verdicts"]
        said.append(f"{name}: " + ", ".join(f"{recipe} {verdict}" for recipe, verdict in verdicts.items()) + ".")
        spent = found[name]["stages"]
        said.append("Of that " + ", ".join(f"{kind} {took:,.0f} s" for kind, took in spent.items()) + ".")
    if peer := found.get("peer"):
        worst, apart = difference(found[FULL]["correct"], peer["checkpoints"][0]["correct"])
        tried = ", ".join(f"{size}: {took:.1f} s" for size, took in peer["probe"].items())
        measured, wanted = len(peer["checkpoints"]) - 1, len(found["recipes"])
        said.append(f"lm_eval's batch size {peer['batch size']}" + (f" (short runs: {tried})." if tried else "."))
        if measured < wanted:
            said.append(f"By hand {measured} of {wanted} recipes were measured; the others are taken at their mean.")
        said.append(
            f"Baseline accuracy differs most on {worst}: by {apart} of {found[FULL]['correct'][worst][1]} items "
            "(bfloat16 weights there, bfloat16 products of float32 weights here)."
        )
    return said


if __name__ == "__main__":
    sys.exit(main())
