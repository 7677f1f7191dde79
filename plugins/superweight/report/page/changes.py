"""A run beside what came before it, as the page shows it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from superweight.report.comparison import ModelComparison, RunComparison
from superweight.report.comparison_text import SYMBOLS, change_rows, headline, sentences, unchanged
from superweight.report.document import RunDocument
from superweight.verdict.surroundings import Surrounding


class ModelChanges(NamedTuple):
    """One model."""

    model: str
    before: str
    table: pd.DataFrame
    sentences: list[str]
    unchanged: str
    surroundings: list[Surrounding]


class Comparison(NamedTuple):
    """Against one earlier run."""

    name: str
    headline: str
    verdict: str
    models: list[ModelChanges]


def comparisons(document: RunDocument) -> list[Comparison]:
    """Against the release baseline and against the last run, where there are such."""
    earlier = (document.look_back.against_release, document.look_back.against_last)
    return [_compared(comparison) for comparison in earlier if comparison is not None]


def _compared(comparison: RunComparison) -> Comparison:
    return Comparison(
        name=comparison.before,
        headline=headline(comparison),
        verdict=comparison.verdict.replace(" ", "-"),
        models=[_model(model) for model in comparison.models],
    )


def _model(model: ModelComparison) -> ModelChanges:
    return ModelChanges(
        model=model.model,
        before=_told(model),
        table=change_rows(model),
        sentences=[f"{SYMBOLS[verdict]} {text}" for verdict, text, _ in sentences(model)],
        unchanged=unchanged(model),
        surroundings=model.surroundings,
    )


def _told(model: ModelComparison) -> str:
    side: Any = model.before
    if side is None:
        return "not in the earlier run"
    parts = [side.taken, f"commit {side.commit}" if side.commit else "", side.verdict]
    return " · ".join([*(part for part in parts if part), *([f"promoted {side.promoted}"] if side.promoted else [])])
