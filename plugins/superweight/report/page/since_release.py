"""The page's section on what changed since the release and since the last run."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from superweight.report.comparison_text import SYMBOLS, change_rows, headline, sentences, unchanged
from superweight.report.format import number
from superweight.runs.change import Change
from superweight.runs.compare import ModelComparison, RunComparison
from superweight.runs.document import RunDocument
from superweight.runs.environment_diff import Difference

_WORSE = 3  # figures that are named


class ModelView(NamedTuple):
    """One model."""

    model: str
    before: str
    table: pd.DataFrame
    sentences: list[str]
    asides: list[str]
    """Of what decides nothing."""
    unchanged: str
    surroundings: list[Difference]


class ComparisonView(NamedTuple):
    """Against one earlier run."""

    name: str
    headline: str
    verdict: str
    brief: list[str]
    models: list[ModelView]
    repeats: bool
    """Whether it says what the comparison before it said."""


def comparisons(document: RunDocument) -> list[ComparisonView]:
    """Against the release baseline and against the last run, where there are such."""
    earlier = (document.look_back.against_release, document.look_back.against_last)
    views: list[ComparisonView] = []
    for comparison in earlier:
        if comparison is not None:
            models = [_model(model) for model in comparison.models]
            brief = [line for model in comparison.models for line in _brief(model, alone=len(models) == 1)]
            repeats = any(view.brief == brief and _rows(view.models) == _rows(models) for view in views)
            views.append(_compared(comparison, models, brief, repeats))
    return views


def _compared(comparison: RunComparison, models: list[ModelView], brief: list[str], repeats: bool) -> ComparisonView:
    return ComparisonView(
        name=_named(comparison),
        headline=headline(comparison),
        verdict=comparison.verdict.replace(" ", "-"),
        brief=brief,
        models=models,
        repeats=repeats,
    )


def _named(comparison: RunComparison) -> str:
    """`release baseline of 2026-11-08 (commit abc)`."""
    taken = {model.before.taken[:10] for model in comparison.models if model.before is not None}
    commits = {model.before.commit for model in comparison.models if model.before is not None} - {""}
    when = f" of {', '.join(sorted(taken))}" if taken else ""
    return f"{comparison.before}{when}{f' (commit {commits.pop()})' if len(commits) == 1 else ''}"


def _brief(model: ModelComparison, *, alone: bool) -> list[str]:
    """What got worse, what is as it was, and what differs around the runs, in a few lines."""
    about = "" if alone else f"{model.model}: "
    worse = [change for change in model.changes if change.verdict == "REGRESSION" and change.decides]
    lines = [f"{about}Worse: {change.recipe}: {_figure(change)}" for change in worse[:_WORSE]]
    lines += [f"{about}and {len(worse) - _WORSE} more figures are worse"] if len(worse) > _WORSE else []
    lines.append(f"{about}{unchanged(model)}")
    if model.surroundings:
        around = "; ".join(difference.describe() for difference in model.surroundings[:_WORSE])
        lines.append(f"{about}Differs around the runs: {around}{'; …' if len(model.surroundings) > _WORSE else ''}")
    return lines


def _figure(change: Change) -> str:
    if change.before is None or change.after is None:
        return f"{change.gate}: {change.message}"
    return f"{change.gate} {number(change.before, change.metric)} → {number(change.after, change.metric)}"


def _rows(models: list[ModelView]) -> list[list[list[object]]]:
    return [model.table.to_numpy().tolist() for model in models]


def _model(model: ModelComparison) -> ModelView:
    lines = [(f"{SYMBOLS[verdict]} {text}", decides) for verdict, text, decides in sentences(model)]
    return ModelView(
        model=model.model,
        before=_side_text(model),
        table=change_rows(model, idle=False),
        sentences=[text for text, decides in lines if decides],
        asides=[text for text, decides in lines if not decides],
        unchanged=unchanged(model),
        surroundings=model.surroundings,
    )


def _side_text(model: ModelComparison) -> str:
    side = model.before
    if side is None:
        return "not in the earlier run"
    parts = [side.taken, f"commit {side.commit}" if side.commit else "", side.verdict]
    return " · ".join([*(part for part in parts if part), *([f"promoted {side.promoted}"] if side.promoted else [])])
