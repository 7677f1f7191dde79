"""How a model answers to other values of its super weights (arXiv:2411.07191, figure 6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import altair as alt
import pandas as pd

from superweight.report.format import difference
from superweight.report.pictures.figures import Figure, figures, link, mark_text, role_mark
from superweight.report.pictures.picture import Picture, Rows
from superweight.report.pictures.theme import Panel, log_axis, series_colour, series_dash
from superweight.runs.document import CellDocument
from superweight.verdict.kinds import POINTS, as_multiple


class _Point(NamedTuple):
    figure: Figure | None
    """None of the uncompressed model."""
    factor: float
    of: str


def scale_picture(cells: Sequence[CellDocument]) -> Picture | None:
    """Factor on the super weights against perplexity and accuracy; None unless a recipe scales them."""
    text, answers = _points(cells, "perplexity"), _points(cells, "zero-shot")
    if not any(point.factor not in (0, 1) for point in (*text, *answers)):
        return None
    panels = []
    if text:
        ratios = [1.0, *(point.figure.ratio for point in text if point.figure)]
        panels.append(_drawn(text, log_axis("perplexity ÷ baseline's (log)", ratios), lambda figure: figure.ratio, 1.0))
    if answers:
        axis = alt.Scale(padding=8), alt.Axis(title="change of score, points")
        panels.append(_drawn(answers, axis, lambda figure: POINTS.factor * figure.change, 0.0))
    return Picture(
        name="super-weight-scale",
        title=_finding(text),
        description=(
            "The factor by which every super weight was multiplied, 0 being removal and 1 the checkpoint as it is, "
            "against perplexity as a multiple of the uncompressed model's and against the change of each score."
        ),
        table=_table([*text, *answers]),
        chart=alt.hconcat(*panels, spacing=24).resolve_scale(color="independent", strokeDash="independent"),
    )


def _points(cells: Sequence[CellDocument], kind: str) -> list[_Point]:
    found = [
        _Point(figure, factor, figure.of)
        for cell in cells
        if (factor := _factor(cell)) is not None
        for figure in figures([cell], kind)
    ]
    names = list(dict.fromkeys(point.of for point in found))
    every = [*found, *(_Point(None, 1.0, name) for name in names)]
    return sorted(every, key=lambda point: (names.index(point.of), point.factor))


def _factor(cell: CellDocument) -> float | None:
    return cell.method.super_weight_factor if cell.method else None


def _drawn(
    points: Sequence[_Point], axis: tuple[alt.Scale, alt.Axis], value: Callable[[Figure], float], untouched: float
) -> Panel:
    rows: Rows = [
        {
            "factor": point.factor,
            "value": value(point.figure) if point.figure else untouched,
            "series": point.of,
            "tip": mark_text(point.figure, f"{point.of} {difference(point.figure.gate)}")
            if point.figure
            else "as it is",
            "href": link(point.figure.cell) if point.figure else "#",
        }
        for point in points
    ]
    frame = pd.DataFrame([row for row in rows if math.isfinite(row["value"])])
    names = list(dict.fromkeys(point.of for point in points))
    base = alt.Chart(frame).encode(
        x=alt.X("factor:Q", title="factor on the super weights", scale=alt.Scale(nice=False, padding=10)),
        y=alt.Y("value:Q", scale=axis[0], axis=axis[1]),
        color=series_colour(names, "on"),
    )
    marks = base.encode(tooltip="tip:N", description="tip:N", href="href:N")
    return alt.layer(
        alt.Chart(pd.DataFrame({"value": [untouched]}))
        .mark_rule(color="var(--dim)", strokeDash=[4, 3])
        .encode(y="value:Q"),
        base.mark_line().encode(strokeDash=series_dash(names, "on")),
        marks.mark_point(filled=True, size=60, opacity=1),
    ).properties(width=340, height=240)


def _finding(points: Sequence[_Point]) -> str:
    measured = [point for point in points if point.figure is not None]
    if not measured:
        return "Scores at other values of the super weights"
    first = measured[0].of
    here = {point.factor: point.figure.ratio for point in measured if point.of == first and point.figure}
    low = min(here)
    removed = "Removing the super weights" if low == 0 else f"Scaling the super weights by {low:g}"
    others = {factor: ratio for factor, ratio in here.items() if factor > 1}
    said = f"{removed} makes perplexity {as_multiple(here[low])} on {first}"
    if others:
        worst = max(others, key=lambda factor: others[factor])
        less = "less" if others[worst] < here[low] else "more"
        said += f"; enlarging them costs {less}, {as_multiple(others[worst])} at {worst:g} times"
    return said


def _table(points: Sequence[_Point]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "factor": f"{point.factor:g}",
                "recipe": role_mark(point.figure.cell) if point.figure else "baseline",
                "on": point.of,
                "change [interval]": difference(point.figure.gate) if point.figure else "none",
            }
            for point in points
        ]
    )
