"""A detection as text for a terminal."""

from __future__ import annotations

from tabulate import tabulate

from superweight.detect.result import Detection, SuperWeight


def as_table(detection: Detection, *, title: str) -> str:
    """A table of the examined weights and of the super activations they create.

    Args:
        detection: what was found.
        title: its first line.

    """
    counts = {status: _count(detection, status) for status in ("causal", "spoke", "inert")}
    answer = ", ".join(f"{count} {status}" for status, count in counts.items()) if detection.found else "none"
    lines = [
        title,
        f"super weights: {answer}",
        f"perplexity {detection.perplexity:.4g} on {detection.tokens} tokens of prose; effects are ratios to it",
    ]
    if detection.super_weights:
        weights = tabulate(
            [_weight_row(detection, weight) for weight in detection.super_weights],
            headers=["weight", "value", "status", "alone", "98 % interval", "null", "group", "super activation"],
            disable_numparse=True,
        )
        lines += ["", weights]
    if detection.groups:
        groups = [[g.kind, ", ".join(map(str, g.members)), f"×{g.effect:.4g}"] for g in detection.groups]
        lines += ["", tabulate(groups, headers=["together", "weights", "effect"], disable_numparse=True)]
    return "\n".join(lines)


def _count(detection: Detection, status: str) -> int:
    return sum(weight.status == status for weight in detection.super_weights)


def _weight_row(detection: Detection, weight: SuperWeight) -> list[str]:
    activation = detection.super_activations[weight.activation]
    return [
        str(weight.coordinate),
        f"{weight.value:.5g}",
        weight.status,
        f"×{weight.effect:.4g}",
        f"{weight.interval[0]:.4g}–{weight.interval[1]:.4g}",
        "" if weight.null_effect is None else f"×{weight.null_effect:.4g}",
        "" if weight.group_effect is None else f"×{weight.group_effect:.4g} ({weight.group})",
        f"{activation.value:.4g} in channel {activation.channel} at token {activation.token} "
        f"{activation.token_text!r}, layers {activation.first_layer}–{activation.last_layer}",
    ]
