"""Colours, shapes and axes that all pictures share. Colours are the page's variables, so that they follow its theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
_WIDE = 20  # from lowest to highest, beyond which ticks stand at powers of ten
_TICKS = 7
_THOUSANDS = 1e5


_TEXT = {"labelFont": FONT, "titleFont": FONT, "labelColor": "var(--fg)", "titleColor": "var(--dim)"}
_SIZES = {"labelFontSize": SMALL, "titleFontSize": SMALL, "titleFontWeight": "normal"}
_LINES = dict.fromkeys(("gridColor", "domainColor", "tickColor"), "var(--line)")
_CONFIG = {
    "background": "transparent",
    "font": FONT,
    "padding": 4,
    "view": {"stroke": "var(--line)"},
    "axis": _TEXT | _SIZES | _LINES | {"labelLimit": 260},
    "legend": _TEXT | _SIZES | {"orient": "bottom"},
    "title": {"color": "var(--fg)", "font": FONT, "fontSize": 13, "fontWeight": "bold", "anchor": "start"},
    "header": _TEXT,
}


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
    return alt.Color("series:N", scale=scale, legend=alt.Legend(title=title, labelLimit=260, symbolOpacity=1))


def series_dash(names: Sequence[str], title: str) -> alt.StrokeDash:
    """Dashes by the field `series`, beside the colour."""
    dashes = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 2], [1, 3]]
    scale = alt.Scale(domain=list(names), range=dashes[: len(names)])
    return alt.StrokeDash("series:N", scale=scale, legend=alt.Legend(title=title, labelLimit=260))


def log_axis(title: str, values: Iterable[float]) -> tuple[alt.Scale, alt.Axis]:
    """Scale and axis for positive values on a logarithmic scale, with few ticks on round numbers."""
    found = [value for value in values if value > 0 and math.isfinite(value)] or [1.0]
    low, high = min(found), max(found)
    if high / low > _WIDE:
        first, last = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        ticks = [10.0**power for power in range(first, last + 1, max(1, (last - first) // 6))]
        low, high = min(low, ticks[0]), max(high, ticks[-1])
    else:
        low, high = low / 1.02, high * 1.02
        step = 10.0 ** math.floor(math.log10((high - low) / 2))
        step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= _TICKS)
        ticks = [round(place * step, 12) for place in range(math.ceil(low / step), math.floor(high / step) + 1)]
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return scale, alt.Axis(title=title, values=ticks, format="~s" if high > _THOUSANDS else "~g")


def specification(chart: Any) -> dict[str, Any]:
    """A chart as Vega-Lite in the page's colours, without a frame; its form is checked by tests, not here."""
    with alt.data_transformers.enable("default", max_rows=None):
        found: dict[str, Any] = chart.to_dict(validate=False)
    return found | {"config": _CONFIG}
