"""Each figure over the runs so far, with releases marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import altair as alt
import pandas as pd

from superweight.cards.gate_kinds import required_kinds
from superweight.ids import CellId, GateId
from superweight.report.format import number
from superweight.report.pictures.picture import Picture, Rows
from superweight.report.pictures.theme import Panel, series_colour, series_dash
from superweight.runs.history import FigureEntry, RunEntry
from superweight.verdict.kinds import IN_MESSAGES, Scale, scale_of

_RUNS = 40  # the latest
_SERIES = 6
_PANELS = 2  # side by side


class _Seen(NamedTuple):
    run: RunEntry
    recipe: str
    role: str
    gate: str
    figure: FigureEntry

    @property
    def scale(self) -> Scale:
        """How the figure is compared and written."""
        return scale_of(GateId.parse(self.gate).kind, self.figure.margin, self.figure.value, self.figure.baseline)

    @property
    def change(self) -> float:
        """Against the uncompressed model of the same run."""
        return self.figure.difference or 0.0


def history_picture(
    runs: Sequence[RunEntry], model: str, tier: str, alarms: Sequence[str] | None = None
) -> Picture | None:
    """One panel a figure, one line a recipe; None unless there are two runs of the model in the tier.

    Args:
        runs: in the order of time, as a store has them.
        model: model id.
        tier: whose runs are shown; those of others measured something else.
        alarms: what drifts, for the title; None if nobody looked.

    """
    shown = [run for run in runs if run.tier == tier and model in run.snapshots][-_RUNS:]
    seen = [point for run in shown for point in _figures(run, model)]
    if len(shown) < 2 or not seen:
        return None
    recipes = _recipes(seen)
    gates = list(dict.fromkeys(point.gate for point in seen if point.recipe in recipes))
    panels = [
        _drawn([point for point in seen if point.gate == gate and point.recipe in recipes], gate, shown, recipes)
        for gate in gates
    ]
    rows = [alt.hconcat(*panels[at : at + _PANELS], spacing=24) for at in range(0, len(panels), _PANELS)]
    return Picture(
        name="history",
        title=_finding(shown, [point for point in seen if point.recipe in recipes], alarms),
        description=(
            f"The last {len(shown)} runs of the {tier} tier in the order of time, one panel for each of "
            f"{', '.join(gates)}: change against the uncompressed model of the same run, one line for each of "
            f"{', '.join(recipes)}. Vertical lines mark runs that were made release baselines."
        ),
        table=_table(seen, recipes),
        chart=alt.vconcat(*rows) if len(rows) > 1 else rows[0],
    )


def _figures(run: RunEntry, model: str) -> Iterator[_Seen]:
    for cell, figures in run.figures.items():
        of, recipe = CellId.parse(cell)
        if of == model and run.roles.get(cell) in ("candidate", "reference"):
            for gate, figure in figures.items():
                if GateId.parse(gate).kind in required_kinds() and figure.difference is not None:
                    yield _Seen(run, recipe, run.roles[cell], gate, figure)


def _recipes(seen: Sequence[_Seen]) -> list[str]:
    """Those that may ship; where none may, the others."""
    candidates = dict.fromkeys(point.recipe for point in seen if point.role == "candidate")
    return list(candidates or dict.fromkeys(point.recipe for point in seen))[:_SERIES]


def _label(run: RunEntry, place: int) -> str:
    return f"{run.when:%b %d} ({place + 1})"


def _drawn(seen: Sequence[_Seen], gate: str, runs: Sequence[RunEntry], recipes: Sequence[str]) -> Panel:
    labels = {run.id: _label(run, place) for place, run in enumerate(runs)}
    kind, of = GateId.parse(gate)
    scale, worse = seen[0].scale, -1 if seen[0].figure.higher_is_better else 1
    title = f"change of {'perplexity' if kind == 'perplexity' else 'score'}{scale.axis}"
    rows: Rows = [
        {
            "run": labels[point.run.id],
            "change": scale.factor * point.change,
            "series": point.recipe,
            "tip": f"{point.recipe}, {point.run.when:%Y-%m-%d %H:%M}, commit {point.run.commit or 'unknown'}: "
            f"{point.scale.text(point.change, IN_MESSAGES)} over {point.figure.n}: {point.figure.verdict}",
        }
        for point in seen
    ]
    margins = [point.figure.margin for point in seen if point.figure.margin is not None]
    x = alt.X("run:N", sort=list(labels.values()), title="run", axis=alt.Axis(labelAngle=-60, labelOverlap=True))
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=x, y=alt.Y("change:Q", title=title), color=series_colour(recipes, "recipe")
    )
    layers = [
        base.mark_line().encode(strokeDash=series_dash(recipes, "recipe")),
        base.mark_point(filled=True, size=45, opacity=1).encode(tooltip="tip:N", description="tip:N"),
    ]
    if margins:
        limit = pd.DataFrame({"change": [scale.factor * worse * max(margins)]})
        layers.append(alt.Chart(limit).mark_rule(color="var(--regression)", strokeDash=[4, 3]).encode(y="change:Q"))
    if released := [labels[run.id] for run in runs if run.released]:
        marked = pd.DataFrame({"run": released, "label": "release"})
        layers.append(alt.Chart(marked).mark_rule(color="var(--infra)", strokeDash=[2, 2]).encode(x=x))
        text = alt.Chart(marked).mark_text(align="left", baseline="top", dx=3, fontSize=11, color="var(--infra)")
        layers.append(text.encode(x=x, y=alt.value(0), text="label:N"))
    return alt.layer(*layers).properties(width=340, height=180, title=of)


def _finding(runs: Sequence[RunEntry], seen: Sequence[_Seen], alarms: Sequence[str] | None) -> str:
    since = f"{len(runs)} runs since {runs[0].when:%Y-%m-%d}"
    last = [point for point in seen if point.run is runs[-1] and point.figure.verdict == "REGRESSION"]
    if last:
        worst = max(last, key=_share)
        before = [
            point for point in seen[: seen.index(worst)] if (point.recipe, point.gate) == (worst.recipe, worst.gate)
        ]
        now = worst.scale.text(worst.change)
        change = f"{before[-1].scale.text(before[-1].change)} → {now}" if before else now
        more = f", and {len(last) - 1} more beyond what is accepted" if len(last) > 1 else ""
        return f"Last run: {worst.recipe} {change} on {GateId.parse(worst.gate).of}{more}; {since}"
    if alarms:
        return f"{alarms[0]}{f'; and {len(alarms) - 1} more' if len(alarms) > 1 else ''}; {since}"
    said = "no figure drifts" if alarms is not None else "no figure of the last run is beyond what is accepted"
    return f"{since}: {said}"


def _share(point: _Seen) -> float:
    """How much of the margin a change uses up."""
    return (-point.change if point.figure.higher_is_better else point.change) / (point.figure.margin or 1.0)


def _table(seen: Sequence[_Seen], recipes: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "run": f"{point.run.when:%Y-%m-%d %H:%M}{' (release)' if point.run.released else ''}",
                "commit": point.run.commit,
                "recipe": point.recipe,
                "figure": point.gate,
                "value": number(point.figure.value, point.figure.metric),
                "change": point.scale.text(point.change, IN_MESSAGES),
                "n": str(point.figure.n or ""),
                "verdict": point.figure.verdict,
            }
            for point in seen
            if point.recipe in recipes
        ]
    )
