"""Gate and tier cards: how much loss is accepted and why, and how much is measured when."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from superweight.cards.base import Identifier, Strict


class GateCard(Strict):
    """How much worse than the uncompressed model a compressed one may be, with the reason."""

    id: Identifier
    title: str
    kind: Literal["perplexity", "zero-shot"]
    margin: float = Field(
        gt=0,
        description="perplexity: largest accepted ratio to the baseline, minus one; "
        "zero-shot: largest accepted drop of the metric (0.02 = two points)",
    )
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="of the two-sided interval that is compared with the margin"
    )
    why: str = Field(min_length=20, description="where the margin comes from")
    date: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$", description="when the margin was decided")
    ticket: str = ""
    expires: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")


class TierPerplexity(Strict):
    """One perplexity measurement."""

    corpus: Identifier
    window: int = Field(ge=16, description="tokens a window")
    windows: int | None = Field(default=None, ge=2, description="the first so many windows; all if not given")


class TierTask(Strict):
    """One zero-shot measurement."""

    task: Identifier
    limit: int | None = Field(default=None, ge=2, description="the first so many items; all if not given")


class TierCard(Strict):
    """What is measured, on which models, with which recipes."""

    id: Literal["smoke", "nightly", "release"]
    title: str
    models: tuple[str, ...] = Field(strict=False, description="model ids; '*' for every card")
    recipes: tuple[str, ...] = Field(strict=False, description="recipe ids; '*' for every card")
    perplexity: tuple[TierPerplexity, ...] = Field(strict=False)
    tasks: tuple[TierTask, ...] = Field(strict=False)
    inconclusive_is_red: bool = False
