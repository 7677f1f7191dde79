"""Drift since the last release: the figures of every run since then, in the order of time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from superweight.cards.gate import GateKind
from superweight.evidence.measured import Noise
from superweight.evidence.moment import moment
from superweight.ids import CellId, GateId
from superweight.runs.compare_cells import GateLookup
from superweight.runs.drift import FigureAlarm, Point, drift
from superweight.runs.figure_pair import exp, mean, shared
from superweight.runs.history import FigureEntry, RunEntry
from superweight.runs.snapshot import CellFigures, Snapshot
from superweight.verdict.result import decides

_Kind = Literal["perplexity", "zero-shot"]


def drift_alarms(
    entries: Sequence[RunEntry], latest: Snapshot, release: Snapshot | None, gates: GateLookup
) -> list[FigureAlarm]:
    """Look for drift in every figure of a run that decides.

    A compressed model's figure is taken relative to the uncompressed model's in the same run, on the same windows or
    items: what a run stops early at, or what a machine does to both, is then no drift. The uncompressed model's own
    is taken as it is, from runs of as many windows or items.

    Args:
        entries: history of the store, this run included.
        latest: snapshot of this run.
        release: snapshot of the release; the whole history counts if there is none.
        gates: finds the gate card that sets a margin.

    """
    since = [entry for entry in entries if _counts(entry, latest, release)]
    alarms = []
    for recipe, cell in latest.cells.items():
        if not decides(cell.role):
            continue
        for kind, name, n, higher_is_better in _figures(cell):
            card = gates(kind, latest.model, recipe, name)
            gate, of_cell = GateId(kind, name), CellId(latest.model, recipe)
            if card is None:
                continue
            series = [*_released(release, recipe, kind, name, n), *_series(since, of_cell, gate, n)]
            alarm = drift(series, card.margin, kind, higher_is_better, _sd(latest.noise.get(str(gate))))
            if alarm is not None:
                about = f"{of_cell} {gate}{_relative(cell, kind)}"
                fields = alarm.model_dump() | {"message": f"{about}: {alarm.message}"}
                alarms.append(FigureAlarm(**fields, model=latest.model, recipe=recipe, gate=str(gate)))
    return alarms


def _counts(entry: RunEntry, latest: Snapshot, release: Snapshot | None) -> bool:
    after_release = release is None or entry.when > moment(release.taken)
    return entry.tier == latest.tier and after_release and entry.when <= moment(latest.taken)


def _figures(cell: CellFigures) -> Iterator[tuple[_Kind, str, int, bool]]:
    for corpus, perplexity in cell.perplexity.items():
        yield "perplexity", corpus, len(perplexity.nll), False
    for task, figure in cell.zero_shot.items():
        yield "zero-shot", task, figure.n, figure.higher_is_better


def _series(entries: Sequence[RunEntry], cell: CellId, gate: GateId, n: int) -> Iterator[Point]:
    for entry in entries:
        figure, role = entry.figures.get(str(cell), {}).get(str(gate)), entry.roles.get(str(cell))
        value = None if figure is None or figure.verdict == "INFRA" else _value(figure, gate, role, n)
        if value is not None:
            yield Point(entry.started, value)


def _value(figure: FigureEntry, gate: GateId, role: str | None, n: int) -> float | None:
    if role == "baseline":
        return figure.value if figure.n == n else None
    if figure.difference is None:
        return None
    return 1 + figure.difference if gate.kind == "perplexity" else figure.difference


def _released(release: Snapshot | None, recipe: str, kind: GateKind, name: str, n: int) -> Iterator[Point]:
    """The released figure, relative to the uncompressed model's as in `drift_alarms`."""
    cell = release.cells.get(recipe) if release else None
    baseline = release.baseline if release else None
    if release is None or cell is None or baseline is None:
        return
    both: tuple[list[float], list[float]] = ([], [])
    if kind == "perplexity" and name in cell.perplexity and name in baseline.perplexity:
        both = shared(baseline.perplexity[name].by_window(), cell.perplexity[name].by_window())
    elif kind == "zero-shot" and name in cell.zero_shot and name in baseline.zero_shot:
        uncompressed = next(name for name, figures in release.cells.items() if figures is baseline)
        both = shared(release.scores(uncompressed, name), release.scores(recipe, name))
    uncompressed_values, values = both
    if not values or (cell.role == "baseline" and len(values) != n):
        return
    if cell.role == "baseline":
        yield Point(release.taken, exp(mean(values)) if kind == "perplexity" else mean(values))
    else:
        loss = mean([value - base for value, base in zip(values, uncompressed_values, strict=True)])
        yield Point(release.taken, exp(loss) if kind == "perplexity" else loss)


def _relative(cell: CellFigures, kind: str) -> str:
    if cell.role == "baseline":
        return ""
    return " relative to the uncompressed model" if kind == "perplexity" else " minus the uncompressed model's"


def _sd(noise: Noise | None) -> float:
    """Standard deviation of a figure under repetition: the repeat's offset and the scatter of its mean."""
    return 0.0 if noise is None else math.hypot(noise.mean, noise.sd / math.sqrt(max(noise.n, 1)))
