"""Gate and tier cards: how much loss is accepted and why, and how much is measured when."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

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

    @model_validator(mode="after")
    def _measures_something_once(self) -> Self:
        if not self.perplexity and not self.tasks:
            raise ValueError("a tier without perplexity and without tasks measures nothing")
        for names in ([entry.corpus for entry in self.perplexity], [entry.task for entry in self.tasks]):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"'{name}' is listed twice; figures are kept by this id")
        return self
