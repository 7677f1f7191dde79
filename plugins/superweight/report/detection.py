"""What detection found, as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate


def describe_detection(found: Mapping[str, Any], *, title: str, inert: int = 5) -> str:
    """The super weights with their measured effect, and the super activations they write.

    Args:
        found: a detection as its `as_dict()` gives it.
        title: the model and where it came from.
        inert: how many of the examined weights that do nothing are listed.
    """
    weights: Sequence[Mapping[str, Any]] = found["super_weights"]
    super_weights = [weight for weight in weights if weight["status"] != "inert"]
    others = [weight for weight in weights if weight["status"] == "inert"]
    lines = [title, ""]
    if super_weights:
        lines += [_count(super_weights), "", _weights(super_weights, found["super_activations"])]
    else:
        lines.append("none: no weight of a down projection was found whose removal harms this model")
    if others:
        lines += ["", f"examined and inert ({len(others)}; the first {min(inert, len(others))}):"]
        lines += ["", _weights(others[:inert], found["super_activations"])]
    groups = [group for group in found.get("groups", []) if group["kind"] != "all"]
    if groups:
        lines += ["", "zeroed jointly:", "", _groups(groups)]
    lines += [
        "",
        f"perplexity ratios on {found['tokens']} tokens of built-in prose (perplexity {found['perplexity']:.4g} untouched)",
    ]
    return "\n".join(lines)


def _count(weights: Sequence[Mapping[str, Any]]) -> str:
    kinds = [weight["status"] for weight in weights]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("causal", "spoke") if kind in kinds)


def _where(weight: Mapping[str, Any]) -> str:
    expert = "" if weight.get("expert") is None else f" expert {weight['expert']}"
    return f"layer {weight['layer']}{expert} [{weight['row']}, {weight['column']}]"


def _weights(weights: Sequence[Mapping[str, Any]], activations: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for weight in weights:
        activation = activations[weight["activation"]] if weight.get("activation") is not None else None
        null = weight.get("null_effect")
        rows.append(
            [
                _where(weight),
                f"{weight['value']:.5g}",
                weight["status"],
                f"×{weight['effect']:.4g}",
                "" if null is None else f"×{null:.4g}",
                "" if activation is None else _activation(activation),
            ]
        )
    headers = ["weight", "value", "status", "perplexity if zeroed", "equally large others", "super activation"]
    return tabulate(rows, headers=headers, disable_numparse=True)


def _activation(activation: Mapping[str, Any]) -> str:
    return (
        f"channel {activation['channel']}, token {activation['token']} ({activation['token_text']!r}): "
        f"{activation['value']:.4g} after layer {activation['layer']}, lasts to layer {activation['last_layer']}"
    )


def _groups(groups: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [group["kind"], "; ".join(_where(member) for member in group["members"]), f"×{group['effect']:.4g}"]
        for group in groups
    ]
    return tabulate(rows, headers=["sharing a", "weights", "perplexity if zeroed"], disable_numparse=True)
