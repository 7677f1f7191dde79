"""The largest activations around each down projection, before and after compression."""

from __future__ import annotations

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

from superweight.evidence.measured import LayerPeaks, Peak, SuperActivation
from superweight.report.pictures.figures import first_few
from superweight.report.pictures.picture import Picture, Rows
from superweight.report.pictures.theme import Panel, log_axis, series_colour, series_dash
from superweight.runs.document import CellDocument

_SERIES = 6
_SIDES = {"down_input": "input of down_proj", "down_output": "output of down_proj"}
_CHANGED = 0.05  # relative


def layer_picture(cells: Sequence[CellDocument]) -> Picture | None:
    """Largest magnitude by layer under the checkpoint and under recipes; None if it was not measured."""
    base = next((cell for cell in cells if cell.role == "baseline" and cell.peaks), None)
    others = [cell for cell in cells if cell.role != "baseline" and cell.peaks]
    if base is None or not others:
        return None
    shown = _chosen(others)
    names = ["checkpoint", *(cell.recipe for cell in shown)]
    drawn = dict(zip(names, (base, *shown), strict=True))
    activations = base.detection.super_activations if base.detection else []
    panels = [_drawn(drawn, side, activations) for side in _SIDES]
    return Picture(
        name="activations-by-layer",
        title=_finding(base, shown, activations),
        description=(
            "The entry of largest magnitude at the input and at the output of each layer's down projection on the "
            f"prompt that detection uses, on a logarithmic axis, for {', '.join(names)}. Vertical lines mark layers "
            "that write a super activation."
        ),
        table=_table(drawn),
        chart=alt.hconcat(*panels, spacing=24),
    )


def _chosen(cells: Sequence[CellDocument]) -> list[CellDocument]:
    """What may ship, then what shows the effect of the super weights, then what got worst."""
    rank = {"candidate": 0, "control": 1, "reference": 2}

    def key(cell: CellDocument) -> tuple[bool, int, bool]:
        method = cell.method
        prunes = method is not None and method.super_weight_factor == 0
        return (method is not None and method.changes_nothing, 1 if prunes else rank[cell.role] * 2, False)

    return sorted(cells, key=key)[:_SERIES]


def _drawn(cells: dict[str, CellDocument], side: str, activations: Sequence[SuperActivation]) -> Panel:
    rows: Rows = [
        {
            "layer": peaks.layer,
            "size": abs(_of(peaks, side).value),
            "series": name,
            "tip": f"{name}, layer {peaks.layer}: {_of(peaks, side).value:.4g} in channel {_of(peaks, side).channel}",
        }
        for name, cell in cells.items()
        for peaks in cell.peaks
        if _of(peaks, side).value
    ]
    names = list(cells)
    scale, axis = log_axis("largest magnitude (log)", [row["size"] for row in rows])
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X(
            "layer:Q", title="decoder layer", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(nice=False)
        ),
        y=alt.Y("size:Q", scale=scale, axis=axis),
        color=series_colour(names, "under"),
    )
    lines = base.mark_line().encode(strokeDash=series_dash(names, "under"))
    marks = base.mark_point(filled=True, size=28, opacity=1).encode(tooltip="tip:N", description="tip:N")
    if not activations:
        return alt.layer(lines, marks).properties(width=360, height=240, title=_SIDES[side])
    written = pd.DataFrame({"layer": sorted({activation.layer for activation in activations})})
    written["label"] = "super activation"
    rule = alt.Chart(written).mark_rule(color="var(--infra)", strokeDash=[2, 2]).encode(x="layer:Q")
    label = (
        alt.Chart(written.head(1))
        .mark_text(align="left", baseline="top", dx=4, dy=2, fontSize=11, color="var(--infra)")
        .encode(x="layer:Q", y=alt.value(0), text="label:N")
    )
    return alt.layer(rule, lines, marks, label).properties(width=360, height=240, title=_SIDES[side])


def _of(peaks: LayerPeaks, side: str) -> Peak:
    found: Peak = getattr(peaks, side)
    return found


def _finding(base: CellDocument, cells: Sequence[CellDocument], activations: Sequence[SuperActivation]) -> str:
    if not activations:
        return "This model has no super activation: the largest entries by layer"
    first = max(activations, key=lambda activation: abs(activation.value))
    layer, channel = first.layer, first.channel
    was = _at(base, layer, channel)
    said = f"The super activation that layer {layer} writes ({_short(was)} in channel {channel})"
    if not was:
        return f"The super activation is written in layer {layer}, channel {channel}"
    outcome: dict[str, list[str]] = {"stays within 5 %": [], "loses more than half": [], "changes": [], "is gone": []}
    for cell in cells:
        now = _at(cell, layer, channel)
        outcome[_became(was, now)].append(cell.recipe)
    parts = [f"{what} under {first_few(names)}" for what, names in outcome.items() if names]
    return f"{said} {', and '.join(parts)}"


def _became(was: float, now: float | None) -> str:
    """What happened to an activation; gone if another entry is the largest of its layer now."""
    if now is None or not math.isfinite(now):
        return "is gone" if now is None else "changes"
    if abs(now / was - 1) <= _CHANGED:
        return "stays within 5 %"
    return "loses more than half" if abs(now) < abs(was) / 2 else "changes"


def _at(cell: CellDocument, layer: int, channel: int) -> float | None:
    """The largest entry a layer's down projection gives, if it is in this channel."""
    peaks = [peaks.down_output for peaks in cell.peaks if peaks.layer == layer]
    return peaks[0].value if peaks and peaks[0].channel == channel else None


def _short(value: float | None) -> str:
    return "nothing" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(cells: dict[str, CellDocument]) -> pd.DataFrame:
    layers = sorted({peaks.layer for cell in cells.values() for peaks in cell.peaks})
    columns: dict[str, list[str]] = {"layer": [str(layer) for layer in layers]}
    for name, cell in cells.items():
        by_layer = {peaks.layer: peaks for peaks in cell.peaks}
        for side, word in (("down_input", "in"), ("down_output", "out")):
            columns[f"{name}, {word}"] = [
                f"{_of(by_layer[layer], side).value:.4g}" if layer in by_layer else "" for layer in layers
            ]
    return pd.DataFrame(columns)
