"""How much perplexity or accuracy changed under each recipe, with its interval, beside what is accepted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import altair as alt
import pandas as pd

from superweight.report.format import count, difference, end_of_loss, margin, number, verdict_text
from superweight.report.pictures.figures import Figure, figures, first_few, link, mark_text, role_mark
from superweight.report.pictures.picture import Picture, Rows
from superweight.report.pictures.theme import BEYOND, ROW, Panel, verdict_colour, verdict_shape
from superweight.report.shippable import used
from superweight.runs.document import CellDocument
from superweight.verdict import GateResult
from superweight.verdict.kinds import Scale, scale_of_gate
from superweight.verdict.result import QUALITY

_SPAN, _LEAST = 4.0, 1.5  # margins on the losing side; what lies beyond is drawn at the edge
_WIDTH = 760  # pixels, shared by the panels
_PANELS = 4  # side by side; more go below


class _Kind(NamedTuple):
    name: str
    word: str
    figure: str


_KINDS = {
    "perplexity": _Kind("perplexity", "Perplexity", "perplexity"),
    "zero-shot": _Kind("accuracy", "Accuracy", "score"),
}


def change_picture(cells: Sequence[CellDocument], kind: str, *, candidates: bool = True) -> Picture | None:
    """One panel a corpus or task, one row a recipe; None if nothing was measured against a baseline.

    Args:
        cells: of one model.
        kind: `perplexity` or `zero-shot`.
        candidates: show what may ship; else what only informs.

    """
    found = [figure for figure in figures(cells, kind) if (figure.cell.role == "candidate") == candidates]
    if not found:
        return None
    about = _KINDS[kind]
    order = [role_mark(cell) for cell in _ordered(found)]
    panels = [_panel(found, of, about) for of in dict.fromkeys(figure.of for figure in found)]
    width = max(120, _WIDTH // min(len(panels), _PANELS))
    charts = [_drawn(panel, about, order, width, labels=place % _PANELS == 0) for place, panel in enumerate(panels)]
    rows = [alt.hconcat(*charts[at : at + _PANELS], spacing=12) for at in range(0, len(charts), _PANELS)]
    return Picture(
        name=f"{about.name}-{'by-recipe' if candidates else 'of-references'}",
        title=_finding(found, about, cells) if candidates else _of_references(found, about),
        description=(
            f"One row a recipe and one panel for each of {', '.join(panel.of for panel in panels)}: the change against "
            "the uncompressed model on the same windows or items with its interval, a dashed line at no change and "
            "the loss that is not accepted shaded. Changes beyond the scale stand at its edge as triangles."
        ),
        table=_table(found),
        chart=alt.vconcat(*rows) if len(rows) > 1 else rows[0],
    )


class _Panel(NamedTuple):
    of: str
    axis: str
    rows: Rows
    low: float
    high: float
    margin: float
    """At which what is not accepted begins, on the losing side."""


def _ordered(found: Sequence[Figure]) -> list[CellDocument]:
    """Cells by what they lost on the first corpus or task, the least first."""
    worse: dict[str, tuple[float, CellDocument]] = {}
    for figure in found:
        sign = -1 if figure.gate.higher_is_better else 1
        worse.setdefault(figure.cell.id, (sign * figure.change, figure.cell))
    return [cell for _, cell in sorted(worse.values(), key=lambda pair: pair[0])]


def _panel(found: Sequence[Figure], of: str, about: _Kind) -> _Panel:
    here = [figure for figure in found if figure.of == of]
    scale, worse = scale_of_gate(here[0].gate), -1 if here[0].gate.higher_is_better else 1
    accepted = scale.factor * max((figure.gate.margin or 0.0) for figure in here) or 0.05 * scale.factor
    ends = [worse * end for figure in here for end in _ends(figure, scale) if math.isfinite(end)]
    loss = min(_SPAN, max(_LEAST, *(1.1 * end / accepted for end in ends))) * accepted
    gain = min(_SPAN / 2, max(_LEAST / 2, *(-1.1 * end / accepted for end in ends))) * accepted
    low, high = (-gain, loss) if worse > 0 else (-loss, gain)
    rows = [_row(figure, scale, low, high) for figure in here]
    return _Panel(of, f"change of {about.figure}{scale.axis}", rows, low, high, accepted * worse)


def _ends(figure: Figure, scale: Scale) -> tuple[float, ...]:
    return tuple(scale.factor * end for end in (figure.change, *(figure.gate.interval or ())))


def _row(figure: Figure, scale: Scale, low: float, high: float) -> dict[str, object]:
    value, *interval = _ends(figure, scale)
    ends = interval or [value, value]
    beyond = not low <= value <= high
    return {
        "recipe": role_mark(figure.cell),
        "verdict": figure.gate.verdict,
        "at": min(max(value, low), high),
        "low": min(max(ends[0], low), high),
        "high": min(max(ends[1], low), high),
        "beyond": beyond,
        "turned": 180 if value < low else 0,
        "label": difference(figure.gate).value if beyond else "",
        "opacity": 0.4 if _left_open(figure) else 1.0,
        "tip": mark_text(
            figure, f"{figure.of} {difference(figure.gate)}, accepted {margin(figure.gate) or 'not judged'}"
        ),
        "href": link(figure.cell),
    }


def _left_open(figure: Figure) -> bool:
    """Whether a figure was not pursued on a cell that does not decide, or was decided by another figure."""
    return figure.gate.verdict == "INCONCLUSIVE" and figure.cell.verdict != "INCONCLUSIVE"


def _drawn(panel: _Panel, about: _Kind, order: Sequence[str], width: float, *, labels: bool) -> Panel:
    data = pd.DataFrame(panel.rows)
    x = alt.X(
        "at:Q",
        title=panel.axis,
        scale=alt.Scale(domain=[panel.low, panel.high], nice=False),
        axis=alt.Axis(tickCount=5),
    )
    axis = alt.Axis(title=None, labelPadding=6, grid=True) if labels else None
    y = alt.Y("recipe:N", sort=list(order), axis=axis, scale=alt.Scale(domain=list(order)))
    edge = panel.high if panel.margin > 0 else panel.low
    limit = pd.DataFrame({"from": [panel.margin], "to": [edge]})
    base = alt.Chart(data).encode(y=y, tooltip=alt.Tooltip("tip:N"), description="tip:N", href="href:N")
    colour, shape = verdict_colour(), verdict_shape()
    opacity = alt.Opacity("opacity:Q", scale=None)
    return alt.layer(
        alt.Chart(limit).mark_rect(color="var(--regression)", opacity=0.09).encode(x=alt.X("from:Q"), x2="to:Q"),
        alt.Chart(pd.DataFrame({"at": [0]})).mark_rule(color="var(--dim)", strokeDash=[4, 3]).encode(x="at:Q"),
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", color=colour, opacity=opacity),
        base.transform_filter("!datum.beyond")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, color=colour, shape=shape),
        base.transform_filter("datum.beyond")
        .mark_point(filled=True, size=70, opacity=1, shape=BEYOND)
        .encode(x=x, color=colour, angle=alt.Angle("turned:Q", scale=None)),
        *_labels(base, x),
    ).properties(width=width, height=alt.Step(ROW), title=f"{about.name} on {panel.of}")


def _labels(base: alt.Chart, x: alt.X) -> list[alt.Chart]:
    """Figures of marks at the edge, inside it, on a halo so that intervals do not cross them."""
    layers: list[alt.Chart] = []
    sides: dict[Literal["left", "right"], tuple[int, int]] = {"right": (0, -8), "left": (180, 8)}
    for align, (turned, dx) in sides.items():
        here = base.transform_filter(f"datum.beyond && datum.turned == {turned}").encode(x=x, text="label:N")
        layers += [
            here.mark_text(
                align=align,
                dx=dx,
                fontSize=11,
                stroke="var(--bg)",
                strokeWidth=4,
                strokeJoin="round",
                color="var(--bg)",
            ),
            here.mark_text(align=align, dx=dx, fontSize=11, color="var(--fg)"),
        ]
    return layers


def _finding(found: Sequence[Figure], about: _Kind, cells: Sequence[CellDocument]) -> str:
    candidates = [cell for cell in cells if cell.role == "candidate"]
    passed = [cell.recipe for cell in candidates if _passes(cell, found[0].gate.kind)]
    lost = [figure for figure in found if figure.gate.verdict == "REGRESSION"]
    recipes = {figure.cell.recipe for figure in lost}
    undecided = [c.recipe for c in candidates if c.recipe not in {*recipes, *passed} and _open(c, found[0].gate.kind)]
    missing = [cell.recipe for cell in candidates if cell.recipe not in {*recipes, *passed, *undecided}]
    items = QUALITY[found[0].gate.kind].items
    also = f"; too few {items} to tell for {first_few(undecided)}" if undecided else ""
    also += f"; {first_few(missing)} not judged" if missing else ""
    if lost:
        most = max(lost, key=lambda figure: _share(figure.gate))
        others = [one for one in dict.fromkeys(figure.cell.recipe for figure in lost) if one != most.cell.recipe]
        also = (f", and {first_few(others)} more than is accepted too" if others else "") + also
        finding = f"{most.cell.recipe} lost {difference(most.gate).value} on {most.of}"
        return f"{about.word}: {finding}, {margin(most.gate)} is accepted{also}"
    if not passed:
        return f"{about.word}: no candidate is shown to pass{also}"
    nearest = max((figure for figure in found if figure.cell.recipe in passed), key=lambda figure: used(figure.gate))
    if len(passed) < len(candidates):
        every = f"{len(passed)} of {len(candidates)} candidates pass{'es' if len(passed) == 1 else ''}"
    else:
        few = {1: "the only candidate passes", 2: "both candidates pass"}
        every = few.get(len(passed), f"all {len(passed)} candidates pass")
    return (
        f"{about.word}: {every}; {nearest.cell.recipe} has least room, at worst {end_of_loss(nearest.gate)} on "
        f"{nearest.of} where {margin(nearest.gate)} is accepted{also}"
    )


def _passes(cell: CellDocument, kind: str) -> bool:
    """Whether every gate of a kind passed or is waived, and there is one."""
    gates = [gate for gate in cell.gates if gate.kind == kind]
    return bool(gates) and all(gate.verdict == "PASS" or gate.waiver is not None for gate in gates)


def _open(cell: CellDocument, kind: str) -> bool:
    return any(gate.verdict == "INCONCLUSIVE" for gate in cell.gates if gate.kind == kind)


def _of_references(found: Sequence[Figure], about: _Kind) -> str:
    recipes = dict.fromkeys(figure.cell.recipe for figure in found)
    lost = {figure.cell.recipe for figure in found if figure.gate.verdict == "REGRESSION"}
    return f"{about.word} of references and controls: {len(lost)} of {len(recipes)} lose more than is accepted"


def _share(gate: GateResult) -> float:
    """How much of the margin a change uses up."""
    change = gate.difference or 0.0
    return (-change if gate.higher_is_better else change) / (gate.margin or 1.0)


def _table(found: Sequence[Figure]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "recipe": role_mark(figure.cell),
                "on": figure.of,
                "baseline": number(figure.gate.baseline, figure.gate.metric),
                "value": number(figure.gate.value, figure.gate.metric),
                "change [interval]": str(difference(figure.gate)),
                "accepted": margin(figure.gate),
                "n": count(figure.gate),
                "verdict": verdict_text(figure.gate),
            }
            for figure in found
        ]
    )
