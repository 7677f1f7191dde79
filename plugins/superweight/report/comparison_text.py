"""A comparison of two runs in words: for the terminal and as `compare.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from superweight.evidence.write import write_text
from superweight.report.format import difference, displayable, margin, number
from superweight.report.table import markdown_table
from superweight.runs.change import Change, ChangeVerdict
from superweight.runs.compare import ModelComparison, RunComparison, Side
from superweight.runs.document import LookBack, strict_json
from superweight.verdict.result import GateResult

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
_LINES = 10  # of one comparison, beside a run on a terminal
_WORSE: tuple[ChangeVerdict, ...] = ("REGRESSION", "CANNOT COMPARE", "INCONCLUSIVE")


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


def look_back_lines(look_back: LookBack) -> list[str]:
    """What a terminal shows of a run beside its release and the runs before it."""
    lines = [look_back.baseline] if look_back.baseline else []
    for comparison in (look_back.against_release, look_back.against_last):
        lines += [] if comparison is None else _in_brief(comparison)
    lines += [f"{alarm.kind} since the release: {alarm.message}" for alarm in look_back.alarms]
    return lines + [f"note: {note}" for note in look_back.notes]


def _in_brief(comparison: RunComparison) -> list[str]:
    worse = [
        f"  {SYMBOLS[verdict]} {text}"
        for model in comparison.models
        for verdict, text, decides in sentences(model)
        if decides and verdict in _WORSE
    ]
    more = [f"  and {len(worse) - _LINES} more"] if len(worse) > _LINES else []
    return [f"against the {comparison.before}: {headline(comparison)}", *worse[:_LINES], *more]


def headline(comparison: RunComparison) -> str:
    """The answer in one line."""
    answer = _HEADLINES[comparison.verdict]
    if comparison.verdict == "PASS" and _asked_less(comparison):
        answer = f"of what both runs measured, {answer}"
    red = any(model.after is not None and model.after.verdict == "INFRA" for model in comparison.models)
    if comparison.verdict in ("PASS", "INCONCLUSIVE") and red:
        answer += "; but the later run is INFRA, and releases nothing"
    return f"{SYMBOLS[comparison.verdict]} {comparison.verdict}: {answer}"


def _asked_less(comparison: RunComparison) -> bool:
    return any(
        change.decides and change.verdict == "CANNOT COMPARE" for model in comparison.models for change in model.changes
    )


def change_rows(model: ModelComparison, *, idle: bool = True) -> pd.DataFrame:
    """One row for each figure that is not the same, as text.

    Args:
        model: one model in two runs.
        idle: also figures that decide nothing and differ in no digit that is shown.

    """
    shown = [change for change in model.changes if change.before is not None and not _same(change)]
    table = [_row(change) for change in shown if idle or not _is_idle(change)]
    return pd.DataFrame(table, columns=list(COLUMNS))


def _is_idle(change: Change) -> bool:
    digits = {number(figure, change.metric) for figure in (change.before, change.after)}
    return not change.decides and change.verdict != "NOTE" and len(digits) == 1


def sentences(model: ModelComparison) -> Iterator[tuple[ChangeVerdict, str, bool]]:
    """What the table cannot say, worst first, and whether it decides; what is true of several recipes is said once."""
    for alarm in model.alarms:
        yield "CANNOT COMPARE", alarm, True
    grouped: dict[_Said, list[str]] = {}
    for change in model.changes:
        if change.verdict != "PASS" or (change.kind == "super-weights" and not _same(change)):
            about = "" if change.names_its_gate else f" {change.gate}:"
            key = _Said(change.verdict, change.decides, change.gate, f"{about} {change.message}")
            grouped.setdefault(key, []).append(change.recipe)
    for said, recipes in sorted(grouped.items(), key=lambda item: _rank(item[0])):
        aside = "" if said.decides or said.verdict == "NOTE" else f" ({said.verdict}, but nothing that decides)"
        verdict = f" {said.verdict}," if said.decides and said.verdict != "NOTE" else ""
        yield said.verdict, f"{_named(recipes)}:{verdict}{said.text}{aside}", said.decides


class _Said(NamedTuple):
    """What may be true of several recipes."""

    verdict: ChangeVerdict
    decides: bool
    gate: str
    text: str


def unchanged(model: ModelComparison) -> str:
    """How many figures are the same to the last digit."""
    count = sum(change.before is not None and _same(change) for change in model.changes)
    return f"{count} figures are the same to the last digit."


def _rank(said: _Said) -> tuple[bool, int]:
    return (not said.decides, _ORDER.index(said.verdict))


def _named(recipes: Iterable[str]) -> str:
    recipes = list(recipes)
    return ", ".join(recipes[:_SHOWN]) + (f" and {len(recipes) - _SHOWN} more" if len(recipes) > _SHOWN else "")


def _same(change: Change) -> bool:
    return change.difference == 0 and change.verdict == "PASS"


def _row(change: Change) -> tuple[str, ...]:
    gate = _as_gate(change)
    verdict = f"{SYMBOLS[change.verdict]} {change.verdict}" if change.verdict != "NOTE" else ""
    return (
        change.recipe,
        change.gate,
        number(change.before, change.metric),
        number(change.after, change.metric),
        str(difference(gate)) or _signed(change),
        margin(gate),
        "" if change.n is None else str(change.n),
        verdict if change.decides or not verdict else f"({verdict})",
    )


def _signed(change: Change) -> str:
    return f"{change.difference:+.3g}" if change.difference else ""


def _as_gate(change: Change) -> GateResult:
    """The change as a gate's result, so that figures are written as they are everywhere else."""
    judged = change.margin is not None
    return GateResult(
        gate=change.gate,
        kind=change.kind if judged else "measurement",
        verdict="PASS",
        message="",
        metric=change.metric,
        value=change.after,
        baseline=change.before,
        difference=change.difference if judged else None,
        interval=change.interval,
        margin=change.margin,
        higher_is_better=change.higher_is_better,
    )


def _facts(model: ModelComparison) -> list[str]:
    facts = [f"before: {_side_text(model.before)}", f"after: {_side_text(model.after)}"]
    if any(difference.name == "checkpoint content_hash" for difference in model.surroundings):
        facts.append("the checkpoint is another one, so figures of the uncompressed model may differ as well")
    if model.surroundings:
        facts.append("differs: " + "; ".join(difference.describe() for difference in model.surroundings))
    return facts


def _side_text(side: Side | None) -> str:
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
