"""How a model answers to other values of its super weights (arXiv:2411.07191, figure 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import altair as alt
import pandas as pd

from superweight.report.document import CellDocument
from superweight.report.format import difference
from superweight.report.pictures.figures import Figure, figures, link, role_mark, times, told
from superweight.report.pictures.picture import Picture
from superweight.report.pictures.theme import Panel, series_colour, series_dash


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
        scale = alt.Scale(type="log", padding=8)
        panels.append(_drawn(text, "perplexity ÷ baseline's (log)", scale, lambda figure: figure.ratio, 1.0))
    if answers:
        scale = alt.Scale(padding=8)
        panels.append(_drawn(answers, "change of score, points", scale, lambda figure: 100 * figure.change, 0.0))
    return Picture(
        name="super-weight-scale",
        title=_finding(text),
        description=(
            "The factor by which every super weight was multiplied, 0 being removal and 1 the checkpoint as it is, "
            "against perplexity as a multiple of the uncompressed model's and against the change of each score."
        ),
        table=_table([*text, *answers]),
        chart=alt.hconcat(*panels, spacing=24),
    )


def _points(cells: Sequence[CellDocument], kind: str) -> list[_Point]:
    found = [
        _Point(figure, factor, figure.of)
        for cell in cells
        if (factor := _factor(cell)) is not None
        for figure in figures([cell], kind)
    ]
    names = dict.fromkeys(point.of for point in found)
    return sorted([*found, *(_Point(None, 1.0, name) for name in names)], key=lambda p: (p.of, p.factor))


def _factor(cell: CellDocument) -> float | None:
    given = cell.recipe_parameters
    match given.get("kind"):
        case "scale-super-weights":
            return float(given["factor"])
        case "prune-super-weights":
            return 0.0
    return None


def _drawn(points: Sequence[_Point], title: str, scale: alt.Scale, value: object, untouched: float) -> Panel:
    rows = [
        {
            "factor": point.factor,
            "value": value(point.figure) if point.figure else untouched,  # type: ignore[operator]
            "series": point.of,
            "tip": told(point.figure, f"{point.of} {difference(point.figure.gate)}") if point.figure else "as it is",
            "href": link(point.figure.cell) if point.figure else "#",
        }
        for point in points
    ]
    frame = pd.DataFrame([row for row in rows if math.isfinite(float(str(row["value"])))])
    names = list(dict.fromkeys(point.of for point in points))
    base = alt.Chart(frame).encode(
        x=alt.X("factor:Q", title="factor on the super weights", scale=alt.Scale(padding=10)),
        y=alt.Y("value:Q", title=title, scale=scale),
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
    removed = "Removing the super weights" if low == 0 else f"Super weights ×{low:g}"
    others = {factor: ratio for factor, ratio in here.items() if factor > 1}
    said = f"{removed} makes perplexity {times(here[low])} on {first}"
    if others:
        best = min(others, key=lambda factor: others[factor])
        said += f"; of larger values, ×{best:g} does least: {times(others[best])}"
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
