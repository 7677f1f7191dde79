"""The tiers of a gate."""

from __future__ import annotations

from typing import Literal, get_args

Tier = Literal["smoke", "nightly", "release", "quantisers"]

TIERS: tuple[Tier, ...] = get_args(Tier)

LADDER: tuple[Tier, ...] = ("smoke", "nightly", "release")
"""Those that ask the same of more and more items, smallest first."""
