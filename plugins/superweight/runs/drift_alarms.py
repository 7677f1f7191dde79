"""Drift since the last release: the figures of every run since then, in the order of time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from superweight.cards.gate_kinds import PERPLEXITY, ZERO_SHOT, GateKind
from superweight.evidence.measured import Noise
from superweight.evidence.moment import moment
from superweight.ids import CellId, GateId
from superweight.runs.compare_cells import GateLookup
from superweight.runs.drift import FigureAlarm, Point, drift
from superweight.runs.history import FigureEntry, RunEntry
from superweight.runs.snapshot import CellFigures, Snapshot
from superweight.verdict.kinds import Scale, scale_of
from superweight.verdict.paired_figure import shared
from superweight.verdict.result import decides


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
            card = gates(kind.name, latest.model, recipe, name)
            gate, of_cell, scale = GateId(kind.name, name), CellId(latest.model, recipe), scale_of(kind)
            if card is None:
                continue
            series = [*_released(release, recipe, kind, name, n), *_series(since, of_cell, gate, scale, n)]
            alarm = drift(series, card.margin, kind, higher_is_better, _sd(latest.noise.get(str(gate))))
            if alarm is not None:
                about = f"{of_cell} {gate}{'' if cell.role == 'baseline' else scale.compared}"
                fields = alarm.model_dump() | {"message": f"{about}: {alarm.message}"}
                alarms.append(FigureAlarm(**fields, model=latest.model, recipe=recipe, gate=str(gate)))
    return alarms


def _counts(entry: RunEntry, latest: Snapshot, release: Snapshot | None) -> bool:
    after_release = release is None or entry.when > moment(release.taken)
    return entry.tier == latest.tier and after_release and entry.when <= moment(latest.taken)


def _figures(cell: CellFigures) -> Iterator[tuple[GateKind, str, int, bool]]:
    for corpus, perplexity in cell.perplexity.items():
        yield PERPLEXITY, corpus, len(perplexity.nll), False
    for task, figure in cell.zero_shot.items():
        yield ZERO_SHOT, task, figure.n, figure.higher_is_better


def _series(entries: Sequence[RunEntry], cell: CellId, gate: GateId, scale: Scale, n: int) -> Iterator[Point]:
    for entry in entries:
        figure, role = entry.figures.get(str(cell), {}).get(str(gate)), entry.roles.get(str(cell))
        value = None if figure is None or figure.verdict == "INFRA" else _value(figure, scale, role, n)
        if value is not None:
            yield Point(entry.started, value)


def _value(figure: FigureEntry, scale: Scale, role: str | None, n: int) -> float | None:
    if role == "baseline":
        return figure.value if figure.n == n else None
    return None if figure.difference is None else scale.relative(figure.difference)


def _released(release: Snapshot | None, recipe: str, kind: GateKind, name: str, n: int) -> Iterator[Point]:
    """The released figure, relative to the uncompressed model's as in `drift_alarms`."""
    cell = release.cells.get(recipe) if release else None
    baseline = release.baseline if release else None
    if release is None or cell is None or baseline is None:
        return
    uncompressed, compressed = _values(release, recipe, baseline, kind, name)
    if not compressed or (cell.role == "baseline" and len(compressed) != n):
        return
    values = compressed
    if cell.role != "baseline":
        values = [after - before for before, after in zip(uncompressed, compressed, strict=True)]
    yield Point(release.taken, scale_of(kind).total(values))


def _values(
    release: Snapshot, recipe: str, baseline: CellFigures, kind: GateKind, name: str
) -> tuple[list[float], list[float]]:
    """The uncompressed model's windows or items and a recipe's, as far as both have them; empty if either has none."""
    cell = release.cells[recipe]
    if kind == PERPLEXITY and name in cell.perplexity and name in baseline.perplexity:
        return shared(baseline.perplexity[name].by_window(), cell.perplexity[name].by_window())[1:]
    if kind == ZERO_SHOT and name in cell.zero_shot and name in baseline.zero_shot:
        uncompressed = next(one for one, other in release.cells.items() if other is baseline)
        return shared(release.scores(uncompressed, name), release.scores(recipe, name))[1:]
    return [], []


def _sd(noise: Noise | None) -> float:
    """Standard deviation of a figure under repetition: the repeat's offset and the scatter of its mean."""
    return 0.0 if noise is None else math.hypot(noise.mean, noise.sd / math.sqrt(max(noise.n, 1)))
