"""How a recipe card says that activations are quantised."""

from __future__ import annotations

from superweight.cards.recipe import W8A8, SmoothQuant
from superweight.kernels.activations import ActivationQuantiser


def quantiser_of(method: W8A8 | SmoothQuant) -> ActivationQuantiser:
    """The quantiser of a card's method: super activations are handled if it is W8A8 and says so."""
    if isinstance(method, SmoothQuant) or method.super_activations == "naive":
        return ActivationQuantiser(method.activations)
    return ActivationQuantiser(method.activations, method.entries, method.massive_ratio, method.replacement)
