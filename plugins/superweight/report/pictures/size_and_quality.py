"""What a smaller model costs: size against perplexity and accuracy, and what no other recipe beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import altair as alt
import pandas as pd

from superweight.report.format import SYMBOLS
from superweight.report.pictures.figures import figures, link, role_mark
from superweight.report.pictures.picture import Picture, Rows
from superweight.report.pictures.theme import Panel, log_axis, verdict_colour, verdict_shape
from superweight.runs.document import CellDocument
from superweight.verdict.kinds import POINTS, as_multiple

_WORST = 4.0  # times the uncompressed model's perplexity; beyond, a point stands at the edge
_LOSS = -25.0  # points of score, likewise
_SAME = 0.05  # bits per weight: less is no difference
_LINES = {"above": -7, "below": 12}  # pixels, downwards
_NEAR = (0.25, 0.06)  # of the axes: closer labels would lie on one another


class _Point(NamedTuple):
    cell: CellDocument
    bits: float
    quality: float
    """The largest ratio of perplexity, or the mean change of score in points."""
    cost: float
    """Of which less is better: the ratio, or the score lost."""


class _Axis(NamedTuple):
    title: str
    log: bool
    low: float
    high: float


def size_picture(cells: Sequence[CellDocument]) -> Picture | None:
    """Bits a weight of the whole model against quality; None unless at least two recipes have a size."""
    whole = max((_bits(cell) for cell in cells if cell.role == "baseline" and cell.size), default=math.inf)
    sized = [cell for cell in cells if cell.role in ("candidate", "reference") and _bits(cell) < whole]
    text, scores = _texts(sized), _scores(sized)
    if max(len(text), len(scores)) < 2:
        return None
    panels, bits = [], [_bits(cell) for cell in sized]
    if len(text) > 1:
        low, high = _ends(text, least=0.5, most=_WORST)
        panels.append(_drawn(text, _Axis("perplexity ÷ baseline's, worst corpus (log)", True, low, high), bits))
    if len(scores) > 1:
        low, high = _ends(scores, least=_LOSS, most=-_LOSS)
        panels.append(_drawn(scores, _Axis("mean change of score, points", False, low - 1, high + 1), bits))
    return Picture(
        name="size-and-quality",
        title=_finding(sized, text, scores),
        description=(
            "Each recipe by its bits per weight over the whole model and by its perplexity as a multiple of the "
            "uncompressed model's, and by its mean change of score where every task was decided. A line joins the "
            "recipes that pass and than which none that passes is both smaller and better. Points beyond the scale "
            "stand at its edge."
        ),
        table=_table(sized, text, scores),
        chart=alt.hconcat(*panels, spacing=24),
    )


def _texts(cells: Sequence[CellDocument]) -> list[_Point]:
    found = [(cell, [figure.ratio for figure in figures([cell], "perplexity")]) for cell in cells]
    return [_Point(cell, _bits(cell), max(ratios), max(ratios)) for cell, ratios in found if ratios]


def _scores(cells: Sequence[CellDocument]) -> list[_Point]:
    """Cells of which every task was decided: a mean over the few items of those left undecided says nothing."""
    points = []
    for cell in cells:
        found = list(figures([cell], "zero-shot"))
        if found and all(figure.gate.verdict != "INCONCLUSIVE" for figure in found):
            mean = 100 * sum(figure.change for figure in found) / len(found)
            points.append(_Point(cell, _bits(cell), mean, -mean))
    return points


def _bits(cell: CellDocument) -> float:
    return cell.size.model_bits_per_weight if cell.size else math.nan


def _ends(points: Sequence[_Point], *, least: float, most: float) -> tuple[float, float]:
    finite = [min(max(point.quality, least), most) for point in points if math.isfinite(point.quality)] or [least, most]
    return min(finite), max(finite)


def _front(points: Sequence[_Point]) -> list[_Point]:
    """Those that pass and than which no other that passes is both smaller and better, the smallest first."""
    best, found = math.inf, []
    passed = [point for point in points if point.cell.verdict == "PASS"]
    for point in sorted(passed, key=lambda p: (round(p.bits, 1), p.cost)):
        if point.cost < best:
            best = point.cost
            found.append(point)
    return found


def _drawn(points: Sequence[_Point], axis: _Axis, bits: Sequence[float]) -> Panel:
    front = {point.cell.id for point in _front(points)}
    rows: Rows = [
        {
            "bits": point.bits,
            "quality": min(max(point.quality, axis.low), axis.high),
            "verdict": point.cell.verdict,
            "front": point.cell.id in front,
            "label": point.cell.recipe if point.cell.id in front or point.cell.role == "candidate" else "",
            "tip": f"{role_mark(point.cell)}: {point.bits:.2f} bits a weight, {_said(point, axis)}: "
            f"{SYMBOLS[point.cell.verdict]} {point.cell.verdict}",
            "href": link(point.cell),
        }
        for point in sorted(points, key=lambda one: one.cell.role)  # candidates get their labels first
    ]
    _place_labels(rows, (min(bits), max(bits)), (axis.low, axis.high))
    scale, drawn = alt.Scale(domain=[axis.low, axis.high], nice=False), alt.Axis(title=axis.title, tickCount=7)
    if axis.log:
        scale, drawn = log_axis(axis.title, [axis.low, axis.high])
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X(
            "bits:Q", title="bits per weight, whole model", scale=alt.Scale(domain=[min(bits), max(bits)], padding=24)
        ),
        y=alt.Y("quality:Q", scale=scale, axis=drawn),
    )
    marks = base.encode(tooltip="tip:N", description="tip:N", href="href:N")
    sides: dict[Literal["left", "right"], int] = {"left": 8, "right": -8}  # pixels from point to label
    places = [(side, dx, line, dy) for side, dx in sides.items() for line, dy in _LINES.items()]
    labels = [
        base.transform_filter(f"datum.side == '{side}' && datum.line == '{line}'")
        .mark_text(align=side, dx=dx, dy=dy, fontSize=11, color="var(--fg)")
        .encode(text="label:N")
        for side, dx, line, dy in places
    ]
    return alt.layer(
        base.transform_filter("datum.front").mark_line(color="var(--dim)", strokeDash=[4, 3], interpolate="step-after"),
        marks.mark_point(filled=True, size=80, opacity=1).encode(color=verdict_colour(), shape=verdict_shape()),
        *labels,
    ).properties(width=380, height=300)


def _place_labels(rows: Rows, across: tuple[float, float], up: tuple[float, float]) -> None:
    """Say of each label on which side of its point it stands; those that would lie on another are left out."""
    spans = [high - low or 1.0 for low, high in (across, up)]
    middle = sum(across) / 2
    taken: list[tuple[float, float, str]] = []
    for row in rows:
        row["side"] = "left" if row["bits"] <= middle else "right"
        at = row["bits"] / spans[0], row["quality"] / spans[1]
        near = {line for x, y, line in taken if abs(at[0] - x) < _NEAR[0] and abs(at[1] - y) < _NEAR[1]}
        free = [line for line in _LINES if line not in near]
        row["line"] = free[0] if free and row["label"] else ""
        if row["line"]:
            taken.append((*at, row["line"]))


def _said(point: _Point, axis: _Axis) -> str:
    return f"perplexity {as_multiple(point.quality)}" if axis.log else f"score {_points(point.quality)}"


def _points(change: float) -> str:
    return POINTS.text(change / POINTS.factor)


def _finding(cells: Sequence[CellDocument], text: Sequence[_Point], scores: Sequence[_Point]) -> str:
    passed = [cell for cell in cells if cell.verdict == "PASS"]
    passed = [cell for cell in passed if cell.role == "candidate"] or passed
    if not passed:
        undecided = any(cell.verdict in ("INCONCLUSIVE", "INFRA") for cell in cells)
        kept = "is shown to keep" if undecided else "keeps"
        return f"No recipe that makes the model smaller {kept} within what is accepted"
    bits = sorted(_bits(cell) for cell in passed)
    what = "candidate" if passed[0].role == "candidate" else "recipe"
    sizes = f"{bits[0]:.1f}" if f"{bits[0]:.1f}" == f"{bits[-1]:.1f}" else f"{bits[0]:.1f} to {bits[-1]:.1f}"
    count = f"{len(passed)} {what}s pass" if len(passed) > 1 else f"1 {what} passes"
    smaller = (
        ""
        if any(_bits(cell) < bits[0] - _SAME and cell not in passed for cell in cells)
        else "nothing smaller was tried"
    )
    smaller = smaller or "nothing smaller passes"
    costs = [point for point in text if point.cell in passed] or [point for point in scores if point.cell in passed]
    if not costs:
        return f"{count} at {sizes} bits per weight; {smaller}"
    best = min(costs, key=lambda point: point.cost)
    said = f"perplexity {as_multiple(best.quality)}" if best in text else f"score {_points(best.quality)}"
    return f"{count} at {sizes} bits per weight; {smaller}; {best.cell.recipe} costs least, {said}"


def _table(cells: Sequence[CellDocument], text: Sequence[_Point], scores: Sequence[_Point]) -> pd.DataFrame:
    ratios, changes = ({p.cell.id: p.quality for p in points} for points in (text, scores))
    front = {p.cell.id for points in (text, scores) for p in _front(points)}
    rows = [
        {
            "recipe": role_mark(cell),
            "bits, whole model": f"{cell.size.model_bits_per_weight:.2f}" if cell.size else "",
            "bits, compressed weights": f"{cell.size.compressed_bits_per_weight:.2f}" if cell.size else "",
            "perplexity ÷ baseline's": as_multiple(ratios[cell.id]) if cell.id in ratios else "",
            "mean change of score": _points(changes[cell.id]) if cell.id in changes else "",
            "passes, and none smaller and better": "yes" if cell.id in front else "",
            "verdict": f"{SYMBOLS[cell.verdict]} {cell.verdict}",
        }
        for cell in cells
    ]
    return pd.DataFrame(rows)
