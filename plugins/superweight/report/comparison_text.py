"""A comparison of two runs in words: for the terminal and as `compare.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import pandas as pd
from tabulate import tabulate

from superweight.evidence.write import write_text
from superweight.report.format import difference, displayable, margin, number
from superweight.report.table import markdown_table
from superweight.runs.change import Change, ChangeVerdict
from superweight.runs.compare import ModelComparison, RunComparison, Side
from superweight.runs.document import strict_json
from superweight.verdict.result import GateResult, Kind

COLUMNS = ("recipe", "gate", "before", "after", "difference", "margin", "n", "verdict")
SYMBOLS: dict[ChangeVerdict, str] = {
    "PASS": "✓",
    "REGRESSION": "✗",
    "INCONCLUSIVE": "?",
    "CANNOT COMPARE": "!",
    "NOTE": "·",
}

_HEADLINES: dict[ChangeVerdict, str] = {
    "PASS": "nothing got worse by more than is accepted",
    "REGRESSION": "the later run is worse by more than is accepted",
    "INCONCLUSIVE": "nothing is shown to be worse, but some figures cannot tell",
    "CANNOT COMPARE": "what cannot be compared may be worse",
    "NOTE": "",
}
_ORDER: tuple[ChangeVerdict, ...] = ("REGRESSION", "CANNOT COMPARE", "INCONCLUSIVE", "NOTE", "PASS")
_SHOWN = 6  # recipes named in one sentence


def comparison_text(comparison: RunComparison) -> str:
    """For a terminal."""

    def table(frame: pd.DataFrame) -> str:
        return tabulate(frame.to_numpy().tolist(), headers=list(frame.columns), disable_numparse=True)

    lines = [headline(comparison), f"  before: {comparison.before}", f"  after:  {comparison.after}"]
    for model in comparison.models:
        lines += ["", f"{model.model}", *(f"  {line}" for line in _facts(model))]
        frame = change_rows(model)
        lines += ["", table(frame), ""] if len(frame) else [""]
        lines += [*(f"{SYMBOLS[verdict]} {text}" for verdict, text, _ in sentences(model)), unchanged(model)]
    return displayable("\n".join(lines)) + "\n"


def comparison_markdown(comparison: RunComparison) -> str:
    """For a file or a CI job page."""
    lines = [f"# {headline(comparison)}", "", f"- before: {_plain(comparison.before)}"]
    lines += [f"- after: {_plain(comparison.after)}", ""]
    for model in comparison.models:
        lines += [f"## {_plain(model.model)}", "", *(f"- {_plain(line)}" for line in _facts(model)), ""]
        frame = change_rows(model)
        lines += [markdown_table(frame), ""] if len(frame) else []
        lines += [f"- {SYMBOLS[verdict]} {_plain(text)}" for verdict, text, _ in sentences(model)]
        lines += ["", unchanged(model), ""]
    lines.append(
        "Figures are those of the windows and items that both runs have. Margins are the gate's own, here against the "
        "earlier run instead of the uncompressed model. Verdicts in parentheses are on controls and references, and "
        "never decide."
    )
    return displayable("\n".join(lines)) + "\n"


def write_comparison(directory: Path, comparison: RunComparison) -> None:
    """Write `compare.md` and `compare.json`; each file is whole or as it was.

    Raises:
        InfraError: as `write_text`.

    """
    write_text(directory / "compare.md", comparison_markdown(comparison))
    write_text(directory / "compare.json", strict_json(comparison.model_dump(mode="python")))


def headline(comparison: RunComparison) -> str:
    """The answer in one line."""
    said = _HEADLINES[comparison.verdict]
    if comparison.verdict == "PASS" and _asked_less(comparison):
        said = f"of what both runs measured, {said}"
    red = any(model.after is not None and model.after.verdict == "INFRA" for model in comparison.models)
    if comparison.verdict in ("PASS", "INCONCLUSIVE") and red:
        said += "; but the later run is INFRA, and releases nothing"
    return f"{SYMBOLS[comparison.verdict]} {comparison.verdict}: {said}"


def _asked_less(comparison: RunComparison) -> bool:
    return any(
        change.decides and change.verdict == "CANNOT COMPARE" for model in comparison.models for change in model.changes
    )


def change_rows(model: ModelComparison) -> pd.DataFrame:
    """One row for each figure that is not the same, as text."""
    table = [_row(change) for change in model.changes if change.before is not None and not _same(change)]
    return pd.DataFrame(table, columns=list(COLUMNS))


def sentences(model: ModelComparison) -> Iterator[tuple[ChangeVerdict, str, bool]]:
    """What the table cannot say, worst first, and whether it decides; what is true of several recipes is said once."""
    for alarm in model.alarms:
        yield "CANNOT COMPARE", alarm, True
    grouped: dict[tuple[ChangeVerdict, bool, str, str], list[str]] = {}
    for change in model.changes:
        if change.verdict != "PASS" or (change.kind == "super-weights" and not _same(change)):
            key = (change.verdict, change.decides, change.gate, change.message)
            grouped.setdefault(key, []).append(change.recipe)
    for (verdict, decides, gate, message), recipes in sorted(grouped.items(), key=lambda item: _rank(item[0])):
        about = "" if _named_in(message, gate) else f" {gate}:"
        aside = "" if decides or verdict == "NOTE" else f" ({verdict}, but nothing that decides)"
        said = f" {verdict}," if decides and verdict != "NOTE" else ""
        yield verdict, f"{_named(recipes)}:{said}{about} {message}{aside}", decides


def unchanged(model: ModelComparison) -> str:
    """How many figures are the same to the last digit."""
    count = sum(change.before is not None and _same(change) for change in model.changes)
    return f"{count} figures are the same to the last digit."


def _rank(key: tuple[ChangeVerdict, bool, str, str]) -> tuple[bool, int]:
    return (not key[1], _ORDER.index(key[0]))


def _named(recipes: Iterable[str]) -> str:
    recipes = list(recipes)
    return ", ".join(recipes[:_SHOWN]) + (f" and {len(recipes) - _SHOWN} more" if len(recipes) > _SHOWN else "")


def _named_in(message: str, gate: str) -> bool:
    """Whether a message says by itself which gate it is about."""
    about = gate.partition(":")[2]
    return gate in ("cell", "role", "promise", "size", "super-weights") or about in message.split(":")[0]


def _same(change: Change) -> bool:
    return change.difference == 0 and change.verdict == "PASS"


def _row(change: Change) -> tuple[str, ...]:
    gate = _as_gate(change)
    shown = f"{SYMBOLS[change.verdict]} {change.verdict}" if change.verdict != "NOTE" else ""
    return (
        change.recipe,
        change.gate,
        number(change.before, change.metric),
        number(change.after, change.metric),
        difference(gate) or _signed(change),
        margin(gate),
        "" if change.n is None else str(change.n),
        shown if change.decides or not shown else f"({shown})",
    )


def _signed(change: Change) -> str:
    return f"{change.difference:+.3g}" if change.difference else ""


def _as_gate(change: Change) -> GateResult:
    """The change as a gate's result, so that figures are written as they are everywhere else."""
    kind: Kind = change.kind if change.kind in get_args(Kind) else "measurement"  # type: ignore[assignment]
    measured = kind in ("perplexity", "zero-shot")
    return GateResult(
        gate=change.gate,
        kind=kind,
        verdict="PASS",
        message="",
        metric=change.metric,
        difference=change.difference if measured else None,
        interval=change.interval,
        margin=change.margin,
        higher_is_better=change.higher_is_better,
    )


def _facts(model: ModelComparison) -> list[str]:
    facts = [f"before: {_told(model.before)}", f"after: {_told(model.after)}"]
    if any(one.name == "checkpoint content_hash" for one in model.surroundings):
        facts.append("the checkpoint is another one, so figures of the uncompressed model may differ as well")
    if model.surroundings:
        facts.append("differs: " + "; ".join(one.describe() for one in model.surroundings))
    return facts


def _told(side: Side | None) -> str:
    if side is None:
        return "not in this run"
    parts = [
        f"{side.tier} tier",
        side.taken,
        f"commit {side.commit}" if side.commit else "",
        side.verdict,
        f"release baseline since {side.promoted}" if side.promoted else "",
        "" if side.whole else "asked for a part of its tier",
    ]
    return " · ".join(part for part in parts if part)


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")
