"""The tiers of a gate, smallest first."""

from __future__ import annotations

from typing import Literal, get_args

Tier = Literal["smoke", "nightly", "release"]

TIERS: tuple[Tier, ...] = get_args(Tier)
