"""What a recipe's own parameters leave to try, as its kind advises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from superweight.cards.methods import method_of


def finer_settings(parameters: Mapping[str, Any]) -> list[str]:
    """What to set otherwise when text or answers got worse.

    Args:
        parameters: the method of a recipe card, as in evidence.

    Returns:
        sentences, the likeliest first; empty for recipes whose damage is meant, and of kinds that are not known here.

    """
    method = method_of(parameters)
    return method.next_settings() if method else []


def settings_that_keep_super_weights(parameters: Mapping[str, Any]) -> list[str]:
    """What to set otherwise when super weights lost their bits; empty for recipes that mean to change them."""
    method = method_of(parameters)
    return method.settings_that_keep_super_weights() if method else []
