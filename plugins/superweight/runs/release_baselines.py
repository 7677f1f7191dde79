"""Release baselines: which run a model was last released on, one committed file a tier and model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from superweight.errors import InfraError
from superweight.runs.document import RunDocument
from superweight.runs.snapshot import Snapshot, read_snapshot, write_snapshot

_NAME = re.compile(r"[a-z0-9][a-z0-9.\-_]*")  # as ids of cards


def baseline_path(directory: Path, tier: str, model: str) -> Path:
    """Where the baseline of a model in a tier is kept.

    Raises:
        InfraError: one of them is no id, and so no file name (`unsupported`).

    """
    for name in (tier, model):
        if not _NAME.fullmatch(name):
            raise InfraError(f"'{name}' is no id of a tier or a model, so it names no baseline.", reason="unsupported")
    return directory / tier / f"{model}.json"


def read_baseline(directory: Path, tier: str, model: str) -> Snapshot | None:
    """The release baseline of a model in a tier; None if there is none.

    Raises:
        InfraError: there is one, but it cannot be read, or it is another model's or another tier's.

    """
    path = baseline_path(directory, tier, model)
    if not os.path.lexists(path):  # a link to nowhere is no baseline that was never there
        return None
    snapshot = read_snapshot(path)
    if (snapshot.tier, snapshot.model) != (tier, model):
        raise InfraError(
            f"{path}: expected the baseline of {model} in the {tier} tier, found {snapshot.model} in {snapshot.tier}.",
            reason="corrupt",
        )
    return snapshot


def objections(document: RunDocument, snapshots: Sequence[Snapshot]) -> list[str]:
    """Why a run should not become a baseline; empty if it may."""
    found = []
    if document.verdict in ("REGRESSION", "INFRA"):
        because = f": {document.reasons[0]}" if document.reasons else ""
        found.append(f"the run is {document.verdict}{because}")
    if document.run.left_out:
        left_out = document.run.left_out
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        found.append(f"it was asked for a part of its tier only; left out: {left_out[0]}{more}")
    if not snapshots:
        found.append("it measured nothing")
    found += [f"items are missing: {one}" for snapshot in snapshots for one in _without_scores(snapshot)]
    return found


def promote(directory: Path, snapshot: Snapshot, *, when: str = "") -> Path:
    """Make a run the release baseline of its model and tier.

    Args:
        directory: of the baselines.
        snapshot: of the run.
        when: ISO 8601; now if not given.

    Returns:
        the file, written as a whole.

    Raises:
        InfraError: it cannot be written.

    """
    path = baseline_path(directory, snapshot.tier, snapshot.model)
    now = when or datetime.now(UTC).isoformat(timespec="seconds")
    write_snapshot(path, snapshot.model_copy(update={"promoted": now}))
    return path


def first_baseline(directory: Path, document: RunDocument, snapshots: Sequence[Snapshot]) -> str:
    """Keep the first good run of a model in a tier as its baseline; one that is there is never moved.

    Returns:
        what was kept, or why nothing was; empty if every model has a baseline.

    Raises:
        InfraError: it cannot be written.

    """
    without = [one for one in snapshots if not os.path.lexists(baseline_path(directory, one.tier, one.model))]
    if not without:
        return ""
    names = ", ".join(one.model for one in without)
    problems = objections(document, without)
    if document.verdict != "PASS" and not problems:
        problems = [f"the run is {document.verdict}; `superweight baseline RUN` promotes it if it is to be one"]
    if problems:
        why = _briefly(problems[0])
        return f"{names}: no release baseline in the {document.run.tier} tier yet, and this run is none: {why}"
    paths = ", ".join(_from_here(promote(directory, one)) for one in without)
    return (
        f"{names}: first whole run in the {document.run.tier} tier; kept as release baseline in {paths}. Commit it; "
        "`superweight baseline RUN` replaces it"
    )


def _briefly(problem: str) -> str:
    """A red run's reasons stand above this line already."""
    return problem.partition(": ")[0] if problem.startswith("the run is ") else problem


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _without_scores(snapshot: Snapshot) -> list[str]:
    return [
        f"{snapshot.model}/{recipe} {task}"
        for recipe, cell in snapshot.cells.items()
        for task, figure in cell.zero_shot.items()
        if figure.n and not figure.aligned()
    ]
