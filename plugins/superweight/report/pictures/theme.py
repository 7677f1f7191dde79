"""Colours, shapes and axes that all pictures share. Colours are the page's variables, so that they follow its theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import altair as alt

from superweight.evidence.measured import Verdict

Panel = alt.LayerChart | alt.FacetChart
"""One of the charts that make up a picture."""

VERDICTS: list[Verdict] = list(get_args(Verdict))
COLOURS = ["var(--pass)", "var(--regression)", "var(--inconclusive)", "var(--infra)"]
SHAPES = ["circle", "cross", "diamond", "square"]
SERIES = [f"var(--series-{number})" for number in range(1, 8)]
BEYOND = "triangle-right"
ROW = 19  # pixels
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"  # metrics by which text is measured where no browser is
SMALL = 12


def verdict_colour(legend: bool = True) -> alt.Color:
    """Colour by the field `verdict`."""
    shown = alt.Legend(title="verdict", symbolOpacity=1) if legend else None
    return alt.Color("verdict:N", scale=alt.Scale(domain=VERDICTS, range=COLOURS), legend=shown)


def verdict_shape(legend: bool = True) -> alt.Shape:
    """Shape by the field `verdict`, so that nothing rests on colour alone."""
    shown = alt.Legend(title="verdict") if legend else None
    return alt.Shape("verdict:N", scale=alt.Scale(domain=VERDICTS, range=SHAPES), legend=shown)


def series_colour(names: Sequence[str], title: str) -> alt.Color:
    """Colour by the field `series`, in the order given."""
    scale = alt.Scale(domain=list(names), range=SERIES[: len(names)])
    return alt.Color("series:N", scale=scale, legend=alt.Legend(title=title, labelLimit=260))


def series_dash(names: Sequence[str], title: str) -> alt.StrokeDash:
    """Dashes by the field `series`, beside the colour."""
    dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 2], [1, 3]]
    scale = alt.Scale(domain=list(names), range=dashes[: len(names)])
    return alt.StrokeDash("series:N", scale=scale, legend=alt.Legend(title=title, labelLimit=260))


def themed(chart: Any) -> Any:
    """A chart in the page's colours, without a frame."""
    text = {"labelFont": FONT, "titleFont": FONT, "labelColor": "var(--fg)", "titleColor": "var(--dim)"}
    return (
        chart.configure(background="transparent", font=FONT, padding=4)
        .configure_view(stroke="var(--line)")
        .configure_axis(
            **text,
            labelFontSize=SMALL,
            titleFontSize=SMALL,
            titleFontWeight="normal",
            gridColor="var(--line)",
            domainColor="var(--line)",
            tickColor="var(--line)",
            labelLimit=260,
        )
        .configure_legend(**text, labelFontSize=SMALL, titleFontSize=SMALL, titleFontWeight="normal", orient="bottom")
        .configure_title(color="var(--fg)", font=FONT, fontSize=13, fontWeight="bold", anchor="start")
        .configure_header(**text)
    )
