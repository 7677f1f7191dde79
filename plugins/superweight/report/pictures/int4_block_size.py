"""What larger blocks cost, with clipping and restoring and without (arXiv:2411.07191, figure 7)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import altair as alt
import pandas as pd

from superweight.cards.methods import CLIPPED_AND_RESTORED, TO_NEAREST
from superweight.report.format import SYMBOLS
from superweight.report.pictures.figures import Figure, figures, link, role_mark
from superweight.report.pictures.picture import Picture
from superweight.report.pictures.theme import Panel, log_axis, series_colour, series_dash, verdict_shape
from superweight.runs.document import CellDocument
from superweight.verdict.kinds import as_multiple

_SAME = 0.02  # relative: less is no difference worth a sentence


class _Point(NamedTuple):
    figure: Figure
    family: str
    bits: int
    block: int


def block_picture(cells: Sequence[CellDocument]) -> Picture | None:
    """Elements a block against perplexity; None unless two sizes of block of the same bits were measured."""
    found = [point for cell in cells for figure in figures([cell], "perplexity") for point in _point(figure)]
    sizes = Counter(bits for _, bits, _ in {(p.family, p.bits, p.block) for p in found})
    if not sizes or max(sizes.values()) < 2:
        return None
    bits = max(sizes, key=lambda one: sizes[one])
    found = [point for point in found if point.bits == bits]
    corpora = list(dict.fromkeys(point.figure.of for point in found))
    if max(len({p.block for p in found if p.family == family}) for family in {p.family for p in found}) < 2:
        return None
    families = sorted({point.family for point in found}, key=lambda name: (name != TO_NEAREST, name))
    panels = [_drawn([p for p in found if p.figure.of == corpus], corpus, families) for corpus in corpora]
    return Picture(
        name=f"int{bits}-block-size",
        title=_finding(found, bits, corpora[0]),
        description=(
            f"Elements that share one INT{bits} scale against perplexity as a multiple of the uncompressed model's, "
            f"both on logarithmic axes, on {' and '.join(corpora)}; one line for each of {' and '.join(families)}."
        ),
        table=_table(found),
        chart=alt.hconcat(*panels, spacing=24),
    )


def _point(figure: Figure) -> list[_Point]:
    method = figure.cell.method
    blocks = method.weight_blocks if method else None
    if blocks is None or not math.isfinite(figure.ratio):
        return []
    return [_Point(figure, blocks.rounding, blocks.bits, blocks.elements)]


def _drawn(points: Sequence[_Point], corpus: str, families: Sequence[str]) -> Panel:
    rows = [
        {
            "block": point.block,
            "ratio": point.figure.ratio,
            "low": 1 + point.figure.gate.interval[0] if point.figure.gate.interval else point.figure.ratio,
            "high": 1 + point.figure.gate.interval[1] if point.figure.gate.interval else point.figure.ratio,
            "series": point.family,
            "verdict": point.figure.gate.verdict,
            "tip": f"{role_mark(point.figure.cell)}: {as_multiple(point.figure.ratio)} at {point.block:,} elements: "
            f"{SYMBOLS[point.figure.gate.verdict]} {point.figure.gate.verdict}",
            "href": link(point.figure.cell),
        }
        for point in points
    ]
    frame = pd.DataFrame(rows)
    decided = frame["verdict"] != "INCONCLUSIVE"  # the others' intervals are those of the few windows that were read
    frame.loc[~decided, ["low", "high"]] = frame["ratio"]
    frame[["low", "high"]] = frame[["low", "high"]].clip(lower=frame["ratio"].min(), upper=10 * frame["ratio"].max())
    colour = series_colour(families, "INT codes by")
    scale, axis = log_axis("perplexity ÷ baseline's (log)", [*frame["ratio"], *frame["high"]])
    elements = sorted(set(frame["block"]))
    sizes = alt.Axis(title="elements that share a scale (log)", values=elements, labelOverlap=True, labelAngle=-30)
    base = alt.Chart(frame).encode(
        x=alt.X(
            "block:Q",
            axis=sizes,
            scale=alt.Scale(type="log", base=2, domain=[elements[0] / 1.5, elements[-1] * 1.5], nice=False),
        ),
        color=colour,
    )
    lines = base.mark_line().encode(
        y=alt.Y("ratio:Q", scale=scale, axis=axis),
        strokeDash=series_dash(families, "INT codes by"),
    )
    marks = base.encode(tooltip="tip:N", description="tip:N", href="href:N")
    return alt.layer(
        lines,
        base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q"), y2="high:Q"),
        marks.mark_point(filled=True, size=70, opacity=1).encode(y="ratio:Q", shape=verdict_shape()),
    ).properties(width=340, height=260, title=corpus)


def _finding(points: Sequence[_Point], bits: int, corpus: str) -> str:
    ratio = {(p.family, p.block): p.figure.ratio for p in points if p.figure.of == corpus}
    rtn, clip = TO_NEAREST, CLIPPED_AND_RESTORED
    both = sorted({block for family, block in ratio if (rtn, block) in ratio and (clip, block) in ratio})
    if not both:
        (_, small), (_, large) = min(ratio, key=lambda key: key[1]), max(ratio, key=lambda key: key[1])
        return f"INT{bits}: blocks of {small:,} to {large:,} elements on {corpus}"
    better = [block for block in both if ratio[clip, block] < (1 - _SAME) * ratio[rtn, block]]
    worse = [block for block in both if ratio[clip, block] > (1 + _SAME) * ratio[rtn, block]]
    largest = both[-1]
    figure = f"{as_multiple(ratio[clip, largest])} against {as_multiple(ratio[rtn, largest])} at {largest:,} elements"
    if better and better == both[-len(better) :]:
        where = "at every size of block" if better == both else f"in blocks of {better[0]:,} elements and more"
        return f"INT{bits}: clip and restore helps {where} on {corpus}: {figure}"
    if not better:
        said = "makes no difference" if not worse else "helps nowhere"
        return f"INT{bits}: clip and restore {said} on {corpus}: {figure}"
    listed = ", ".join(f"{block:,}" for block in better)
    return f"INT{bits}: clip and restore helps in blocks of {listed} elements on {corpus}; {figure}"


def _table(points: Sequence[_Point]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "recipe": role_mark(point.figure.cell),
                "by": point.family,
                "elements": f"{point.block:,}",
                "on": point.figure.of,
                "perplexity ÷ baseline's": as_multiple(point.figure.ratio),
                "verdict": f"{SYMBOLS[point.figure.gate.verdict]} {point.figure.gate.verdict}",
            }
            for point in sorted(points, key=lambda p: (p.figure.of, p.block, p.family))
        ]
    )
