"""How often verdicts are wrong, and how often they come, beside what else is done with the same figures.

    python benchmarks/verdicts.py [--quick] [--evidence FILE-OR-FOLDER] [--json FILE]

Every run is simulated with a known true loss, so that a verdict can be counted as right or wrong. `--evidence` names
measured per-item figures to resample: JSON, `{"perplexity": {corpus: {recipe: [nll, …]}}, "zero_shot": {task: {recipe:
"0101…"}}}`, with a recipe `baseline` in each; by default the files beside this one, in `evidence/`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# One core: what is measured is rates, and the seconds are to be comparable.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy
from tabulate import tabulate

import simulation as sim
from superweight.statistics.noninferiority import ErrorBudget

ALPHA = 0.025
#: All of alpha for the analysis of all planned items, and a fifth of it for stopping early.
FIXED, SEQUENTIAL = ErrorBudget(ALPHA, early_share=0.0), ErrorBudget(ALPHA, early_share=0.2)
#: Items between looks.
EVERY = 50
PERPLEXITY_MARGIN = math.log1p(0.05)
SEED = 20261123


@dataclass(frozen=True)
class Size:
    """How much is simulated."""

    replicates: int
    items: tuple[int, ...]
    margins: tuple[float, ...]
    windows: tuple[int, ...]

    @property
    def error(self) -> float:
        """Standard error of a rate that is exactly alpha."""
        return math.sqrt(ALPHA * (1 - ALPHA) / self.replicates)


FULL = Size(20000, (50, 200, 250, 1000, 5000), (0.02, 0.05), (8, 24, 128))
QUICK = Size(2000, (50, 250), (0.05,), (8, 24))


@dataclass
class Table:
    """A table with its caption, and every number in it by name."""

    title: str
    note: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        """As GitHub renders it."""
        return f"### {self.title}\n\n{self.note}\n\n{tabulate(self.rows, headers='keys', tablefmt='github')}\n"


@dataclass
class Claims:
    """Rates that must not exceed alpha, as they are measured."""

    size: Size
    measured: list[tuple[str, float]] = field(default_factory=list)

    def rate(self, name: str, wrong: sim.Verdicts, verdict: int) -> float:
        """Share of replicates with a verdict that is wrong at the margin."""
        found = float(np.mean(wrong == verdict))
        self.measured.append((name, found))
        return found

    def broken(self) -> list[tuple[str, float]]:
        """Those more than three standard errors above alpha."""
        return [(name, rate) for name, rate in self.measured if rate > ALPHA + 3 * self.size.error]


def generator(*setting: object) -> np.random.Generator:
    """Randomness of its own for every setting, so that no figure depends on what else is simulated."""
    return np.random.default_rng([SEED, *repr(setting).encode()])


def percent(rate: float) -> str:
    """With one digit after the point: a standard error is a tenth."""
    return f"{100 * rate:.1f}"


def both(verdicts: sim.Verdicts) -> str:
    """Share passed / share failed, in per cent."""
    return f"{percent(float(np.mean(verdicts == sim.PASS)))} / {percent(float(np.mean(verdicts == sim.FAIL)))}"


def discordances(n: int, margin: float) -> list[float]:
    """As little as a loss of the margin implies, a usual one, and a high one."""
    return [margin, 0.1] if n > 1000 else [margin, 0.1, 0.3]


def scores_at_the_margin(size: Size, claims: Claims) -> Table:
    """Wrong verdicts on models whose true loss is exactly the margin."""
    table = Table(
        "0/1 scores: wrong verdicts on a model exactly at the margin",
        "Passed / failed, per cent, each at the worst of the discordances simulated (the margin itself, 0.1, and 0.3 "
        "up to 1000 items). `exact` and `sequential` are this project's and claim at most 2.5 each. The tolerance is "
        "met at its own limit, a drop of 5 % of a baseline of 0.6; the z test has no margin.",
    )
    for margin in size.margins:
        for n in size.items:
            worst: dict[str, list[tuple[float, float]]] = {}
            for discordance in discordances(n, margin):
                rng = generator("at", n, margin, discordance)
                scores = sim.draw_scores(rng, size.replicates, n, sim.Truth(margin, discordance), EVERY)
                own = sim.Truth(0.03, max(discordance, 0.03))
                for rule, found in {
                    "exact": sim.exact(scores, margin, ALPHA),
                    "sequential": sim.sequential(scores, margin, SEQUENTIAL).verdicts,
                    "Wald": sim.wald(scores, margin, ALPHA),
                    "z test, unpaired": sim.unpaired(scores),
                    "tolerance": sim.tolerance(sim.draw_scores(rng, size.replicates, n, own, n)),
                }.items():
                    worst.setdefault(rule, []).append(
                        (float(np.mean(found == sim.PASS)), float(np.mean(found == sim.FAIL)))
                    )
                    if rule in ("exact", "sequential"):
                        name = f"{rule}, n {n}, margin {margin}, discordance {discordance}"
                        claims.rate(f"{name}: passed", found, sim.PASS)
                        claims.rate(f"{name}: failed", found, sim.FAIL)
            columns = {
                rule: " / ".join(percent(max(side)) for side in zip(*rates, strict=True))
                for rule, rates in worst.items()
            }
            table.rows.append({"margin": margin, "n": n} | columns)
    return table


def scores_by_loss(size: Size, margin: float) -> Table:
    """Verdicts by the true loss."""
    losses = [0.0, 0.4 * margin, margin, 1.6 * margin, 2.4 * margin, 4 * margin]
    table = Table(
        f"0/1 scores: verdicts by true loss, margin {margin}",
        "Passed / failed, per cent; the rest is undecided, which a tolerance and a z test never are. The two models "
        f"differ on one item in ten, or on as many as the loss implies. `items`: mean share of the items that the "
        f"sequential design looks at, with a look after every {EVERY}.",
    )
    for n in size.items:
        for loss in losses:
            truth = sim.Truth(loss, max(0.1, loss))
            scores = sim.draw_scores(generator("by", n, margin, loss), size.replicates, n, truth, EVERY)
            early = sim.sequential(scores, margin, SEQUENTIAL)
            table.rows.append(
                {
                    "n": n,
                    "true loss": f"{loss:g}",
                    "exact": both(sim.exact(scores, margin, ALPHA)),
                    "sequential": both(early.verdicts),
                    "items": percent(early.spent.mean()) + " %",
                    "tolerance": both(sim.tolerance(scores)),
                    "z test, unpaired": both(sim.unpaired(scores)),
                    "Wald": both(sim.wald(scores, margin, ALPHA)),
                }
            )
    return table


def measured_scores(size: Size, claims: Claims, tasks: Mapping[str, Mapping[str, str]]) -> Table:
    """Real models at the margin: how often they differ, and how good the baseline is, are theirs."""
    table = Table(
        "0/1 scores: measured recipes put exactly at the margin",
        "Items are drawn with replacement from the joint answers of a recipe and its baseline, with items lost and "
        "gained weighted so that the true loss is 0.05 and the discordance the measured one (or 0.05, if the two "
        "differed less). Passed / failed, per cent.",
    )
    margin = 0.05
    for task, recipes in tasks.items():
        for recipe, answers in recipes.items():
            if recipe == "baseline":
                continue
            pairs = list(zip(recipes["baseline"], answers, strict=True))
            gained, lost = pairs.count(("0", "1")) / len(pairs), pairs.count(("1", "0")) / len(pairs)
            accuracy = recipes["baseline"].count("1") / len(pairs)
            truth = sim.Truth(margin, max(margin, gained + lost), accuracy)
            row: dict[str, Any] = {"task": task, "recipe": recipe, "measured loss": f"{lost - gained:+.3f}"}
            row["discordance"] = f"{gained + lost:.3f}"
            for n in [n for n in size.items if n <= 1000 and n != 200]:
                scores = sim.draw_scores(generator(task, recipe, n), size.replicates, n, truth, EVERY)
                for rule, found in {
                    "exact": sim.exact(scores, margin, ALPHA),
                    "sequential": sim.sequential(scores, margin, SEQUENTIAL).verdicts,
                }.items():
                    row[f"{rule}, n {n}"] = both(found)
                    claims.rate(f"{rule}, {task}, {recipe}, n {n}: passed", found, sim.PASS)
                    claims.rate(f"{rule}, {task}, {recipe}, n {n}: failed", found, sim.FAIL)
            table.rows.append(row)
    return table


def window_rules(windows: sim.Windows) -> dict[str, sim.Verdicts]:
    """Every rule on the same windows."""
    return {
        "guarded t": sim.student(windows, PERPLEXITY_MARGIN, ALPHA),
        "sequential": sim.sequential_t(windows, PERPLEXITY_MARGIN, SEQUENTIAL).verdicts,
        "tolerance": sim.tolerance_t(windows, PERPLEXITY_MARGIN),
        "t test, unpaired": sim.unpaired_t(windows),
        "plain t": sim.plain(windows, PERPLEXITY_MARGIN, ALPHA, normal=False),
        "normal": sim.plain(windows, PERPLEXITY_MARGIN, ALPHA, normal=True),
    }


def windows_at_the_margin(size: Size, claims: Claims, corpora: Mapping[str, Mapping[str, Sequence[float]]]) -> Table:
    """Wrong verdicts on perplexity of exactly 1.05 times the baseline's."""
    table = Table(
        "Perplexity: wrong verdicts on a model exactly at the margin (ratio 1.05)",
        "Passed / failed, per cent. Normal losses, gamma losses of skewness 1, and the measured losses of recipes, "
        "drawn with replacement and moved so that their mean is the margin. `guarded t` and `sequential` are this "
        "project's.",
    )
    for source, pairs in {"normal": None, "skewness 1": _skewed(), **dict(_pairs(corpora))}.items():
        for n in size.windows:
            windows = sim.draw_windows(generator(source, n), size.replicates, n, PERPLEXITY_MARGIN, pairs)
            row: dict[str, Any] = {"losses": source, "windows": n}
            for rule, found in window_rules(windows).items():
                row[rule] = both(found)
                if rule in ("guarded t", "sequential"):
                    claims.rate(f"{rule}, {source}, {n} windows: passed", found, sim.PASS)
                    claims.rate(f"{rule}, {source}, {n} windows: failed", found, sim.FAIL)
            table.rows.append(row)
    return table


def windows_by_loss(size: Size) -> Table:
    """Verdicts on perplexity by the true ratio."""
    table = Table(
        "Perplexity: verdicts by true ratio, margin 1.05",
        "Normal losses with a standard deviation of 0.02 nats a window. Passed / failed, per cent. `windows used`: "
        "mean share that the sequential design looks at, with a look after every window.",
    )
    for n in size.windows:
        for ratio in (1.0, 1.03, 1.05, 1.07, 1.1, 1.5):
            windows = sim.draw_windows(generator("by", n, ratio), size.replicates, n, math.log(ratio), None)
            early = sim.sequential_t(windows, PERPLEXITY_MARGIN, SEQUENTIAL)
            row: dict[str, Any] = {"windows": n, "true ratio": f"{ratio:.2f}"}
            row |= {rule: both(found) for rule, found in window_rules(windows).items()}
            table.rows.append(row | {"windows used": percent(early.spent.mean()) + " %"})
    return table


def _skewed() -> sim.Windows:
    """As many windows as make no difference, with losses of skewness 1 in the upper tail."""
    rng = generator("skewed")
    baseline = rng.normal(3.0, 0.35, (1, 200_000))
    return sim.Windows(baseline, baseline + 0.01 * rng.gamma(4, size=baseline.shape))


def _pairs(corpora: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[tuple[str, sim.Windows]]:
    for corpus, recipes in corpora.items():
        for recipe, nll in recipes.items():
            pair = sim.Windows(np.array([recipes["baseline"]]), np.array([nll]))
            if recipe != "baseline" and np.ptp(pair.candidate - pair.baseline) > 0:
                yield f"{corpus}, {recipe}", pair


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Measured figures of all files, merged; empty if there are none."""
    merged: dict[str, dict[str, Any]] = {"perplexity": {}, "zero_shot": {}}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path] if path.exists() else []:
        document = json.loads(file.read_text(encoding="utf-8"))
        for kind, figures in merged.items():
            figures.update(document.get(kind, {}))
    return merged


def simulate(size: Size, evidence: Mapping[str, Mapping[str, Any]]) -> tuple[list[Table], Claims]:
    """All tables."""
    claims = Claims(size)
    tables = [scores_at_the_margin(size, claims), *(scores_by_loss(size, margin) for margin in size.margins)]
    if evidence["zero_shot"]:
        tables.append(measured_scores(size, claims, evidence["zero_shot"]))
    tables += [windows_at_the_margin(size, claims, evidence["perplexity"]), windows_by_loss(size)]
    return tables, claims


def verdict(claims: Claims) -> str:
    """Whether the claim holds."""
    broken = claims.broken()
    most = max(claims.measured, key=lambda pair: pair[1])
    limit = ALPHA + 3 * claims.size.error
    if not broken:
        return (
            f"HOLDS: all {len(claims.measured)} error rates are at most {limit:.2%} (alpha and three standard errors); "
            f"the largest is {most[1]:.2%} ({most[0]})."
        )
    listed = "\n".join(f"- {rate:.2%}: {name}" for name, rate in broken)
    return f"BROKEN: {len(broken)} of {len(claims.measured)} error rates exceed {limit:.2%}:\n{listed}"


def machine() -> str:
    """What this was computed on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        named = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        cpu = named[0].split(":", 1)[1].strip() if named else cpu
    return f"{cpu}, one core; Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 0 if the claim holds, 1 if not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few settings and replicates, in seconds")
    parser.add_argument("--evidence", type=Path, default=Path(__file__).parent / "evidence", help="measured figures")
    parser.add_argument("--json", type=Path, help="write every number here too")
    options = parser.parse_args(arguments)
    size = QUICK if options.quick else FULL
    start = time.monotonic()
    tables, claims = simulate(size, read(options.evidence))
    seconds = time.monotonic() - start
    for table in tables:
        print(table.markdown())
    print(f"{size.replicates} replicates a setting: the standard error of a rate of 2.5 % is {size.error:.2%}.")
    print(f"{machine()}; {seconds:.0f} s.\n")
    print(verdict(claims))
    if options.json:
        document = {
            "machine": machine(),
            "seconds": seconds,
            "replicates": size.replicates,
            "standard_error": size.error,
            "alpha": ALPHA,
            "rates": dict(claims.measured),
            "tables": {table.title: table.rows for table in tables},
        }
        options.json.write_text(json.dumps(document, indent=2, ensure_ascii=False), encoding="utf-8")
    return 1 if claims.broken() else 0


if __name__ == "__main__":
    sys.exit(main())
