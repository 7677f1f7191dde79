"""A gate's interval drawn against its margin: small enough for a table cell, without script or style."""

from __future__ import annotations

import math

from markupsafe import Markup

from superweight.verdict import GateResult

_WIDTH, _HEIGHT, _EDGE = 168, 22, 5
_SPAN = 3.0  # margins on the losing side


def interval_svg(gate: GateResult) -> Markup:
    """The interval of a difference, the difference, zero, and the loss that is not accepted, shaded.

    Empty where there is no difference or no margin. Ends beyond the scale are drawn as arrows. The figures stand beside
    it in words, so it is hidden from readers of the screen.
    """
    if gate.difference is None or gate.margin is None or math.isnan(gate.difference):
        return Markup("")
    worse = -1 if gate.higher_is_better else 1
    margin = gate.margin or 1e-9
    low, high = sorted((-worse * margin * _SPAN / 2, worse * margin * _SPAN))
    ends = gate.interval or (gate.difference, gate.difference)

    def at(value: float) -> float:
        share = (min(max(value, low), high) - low) / (high - low)
        return round(_EDGE + share * (_WIDTH - 2 * _EDGE), 1)

    middle = _HEIGHT / 2
    limit, edge = sorted((at(worse * margin), at(worse * math.inf)))
    left, right = at(ends[0]), at(ends[1])
    parts = [
        f'<rect class="lost" x="{limit}" y="1" width="{round(edge - limit, 1)}" height="{_HEIGHT - 2}"/>',
        f'<path class="zero" d="M{at(0)},1V{_HEIGHT - 1}"/>',
        f'<path class="margin" d="M{at(worse * margin)},1V{_HEIGHT - 1}"/>',
        f'<path class="reach" d="M{left},{middle}H{right}"/>',
    ]
    parts += [f'<path class="arrow" d="M{_EDGE},{middle - 4}l-5,4l5,4z"/>'] if ends[0] < low else []
    parts += [f'<path class="arrow" d="M{_WIDTH - _EDGE},{middle - 4}l5,4l-5,4z"/>'] if ends[1] > high else []
    if low <= gate.difference <= high:
        parts.append(f'<circle class="at" cx="{at(gate.difference)}" cy="{middle}" r="4"/>')
    return Markup(  # nothing but numbers
        f'<svg class="interval {gate.verdict}" aria-hidden="true" viewBox="0 0 {_WIDTH} {_HEIGHT}">'
        f"{''.join(parts)}</svg>"
    )
