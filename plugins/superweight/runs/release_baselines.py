"""Release baselines: which run a model was last released on, one committed file a tier and model."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from superweight.errors import InfraError
from superweight.ids import CellId
from superweight.runs.compare import RunComparison, compare_runs
from superweight.runs.compare_cells import GateLookup
from superweight.runs.document import RunDocument
from superweight.runs.read import read_run, snapshots_of
from superweight.runs.snapshot import Snapshot, read_snapshot, write_snapshot

_NAME = re.compile(r"[a-z0-9][a-z0-9.\-_]*")  # as ids of cards


def release_baseline_path(directory: Path, tier: str, model: str) -> Path:
    """Where the baseline of a model in a tier is kept.

    Raises:
        InfraError: one of them is no id, and so no file name (`unsupported`).

    """
    for name in (tier, model):
        if not _NAME.fullmatch(name):
            raise InfraError(f"'{name}' is no id of a tier or a model, so it names no baseline.", reason="unsupported")
    return directory / tier / f"{model}.json"


def read_release_baseline(directory: Path, tier: str, model: str) -> Snapshot | None:
    """The release baseline of a model in a tier; None if there is none.

    Raises:
        InfraError: there is one, but it cannot be read, or it is another model's or another tier's.

    """
    path = release_baseline_path(directory, tier, model)
    if not os.path.lexists(path):  # a link to nowhere is no baseline that was never there
        return None
    snapshot = read_snapshot(path)
    if (snapshot.tier, snapshot.model) != (tier, model):
        raise InfraError(
            f"{path}: expected the baseline of {model} in the {tier} tier, found {snapshot.model} in {snapshot.tier}.",
            reason="corrupt",
        )
    return snapshot


class Objection(NamedTuple):
    """Why a run should not become a release baseline."""

    brief: str
    details: str = ""
    """What the run's own reasons say, where those are shown elsewhere too."""

    def __str__(self) -> str:
        return f"{self.brief}: {self.details}" if self.details else self.brief


class Promoted(NamedTuple):
    """A model whose release baseline a run became."""

    model: str
    tier: str
    path: Path


class Promotion(NamedTuple):
    """What became of a run that was to be the release baseline.

    Attributes:
        run: the run directory.
        objections: why it should not become one.
        unreadable: baselines that were replaced without a look, and why they could not be read.
        comparison: with the baselines until now; None if there were none.
        promoted: models, each with its new baseline; none if the run was not promoted.

    """

    run: Path
    objections: list[Objection]
    unreadable: list[str]
    comparison: RunComparison | None
    promoted: list[Promoted]


def promote_run(run: Path, baselines: Path, gates: GateLookup, *, force: bool = False) -> Promotion:
    """Make a run the release baseline of each of its models.

    Args:
        run: the run directory.
        baselines: directory of the release baselines.
        gates: finds the gate card that sets a margin, for what changed against the baselines before.
        force: also a run that is red, asked for a part of its tier, or without its items; and over a baseline that
            cannot be read.

    Raises:
        InfraError: the run or a baseline cannot be read, or a baseline cannot be written.

    """
    document = read_run(run)
    snapshots = snapshots_of(document)
    problems = objections(document, snapshots)
    if (problems and not force) or not snapshots:
        return Promotion(run, problems, [], None, [])
    unreadable: list[str] = []
    earlier = [_until_now(baselines, snapshot, unreadable, force=force) for snapshot in snapshots]
    before = [snapshot for snapshot in earlier if snapshot is not None]
    comparison = None
    if before:
        models = {snapshot.model for snapshot in before}
        after = [snapshot for snapshot in snapshots if snapshot.model in models]
        comparison = compare_runs(before, after, gates, names=("the baseline until now", str(run)))
    promoted = [Promoted(snapshot.model, snapshot.tier, promote(baselines, snapshot)) for snapshot in snapshots]
    return Promotion(run, problems, unreadable, comparison, promoted)


def _until_now(baselines: Path, snapshot: Snapshot, unreadable: list[str], *, force: bool) -> Snapshot | None:
    try:
        return read_release_baseline(baselines, snapshot.tier, snapshot.model)
    except InfraError as error:
        if not force or not os.path.lexists(release_baseline_path(baselines, snapshot.tier, snapshot.model)):
            raise
        unreadable.append(str(error))
        return None


def objections(document: RunDocument, snapshots: Sequence[Snapshot]) -> list[Objection]:
    """Why a run should not become a baseline; empty if it may."""
    problems = []
    if document.verdict in ("REGRESSION", "INFRA"):
        problems.append(Objection(f"the run is {document.verdict}", "".join(document.reasons[:1])))
    if document.run.left_out:
        left_out = document.run.left_out
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        problems.append(Objection(f"it was asked for a part of its tier only; left out: {left_out[0]}{more}"))
    if not snapshots:
        problems.append(Objection("it measured nothing"))
    without = [figure for snapshot in snapshots for figure in _without_scores(snapshot)]
    return problems + [Objection(f"items are missing: {figure}") for figure in without]


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
    path = release_baseline_path(directory, snapshot.tier, snapshot.model)
    now = when or datetime.now(UTC).isoformat(timespec="seconds")
    write_snapshot(path, snapshot.model_copy(update={"promoted": now}))
    return path


def first_release_baseline(directory: Path, document: RunDocument, snapshots: Sequence[Snapshot]) -> str:
    """Keep the first good run of a model in a tier as its baseline; one that is there is never moved.

    Returns:
        what was kept, or why nothing was; empty if every model has a baseline.

    Raises:
        InfraError: it cannot be written.

    """
    without = [
        each for each in snapshots if not os.path.lexists(release_baseline_path(directory, each.tier, each.model))
    ]
    if not without:
        return ""
    names = ", ".join(snapshot.model for snapshot in without)
    problems = objections(document, without)
    if document.verdict != "PASS" and not problems:
        sentence = f"the run is {document.verdict}; `superweight baseline RUN` promotes it if it is to be one"
        problems = [Objection(sentence)]
    if problems:  # a red run's reasons stand above this line already
        why = problems[0].brief
        return f"{names}: no release baseline in the {document.run.tier} tier yet, and this run is none: {why}"
    paths = ", ".join(_from_here(promote(directory, snapshot)) for snapshot in without)
    return (
        f"{names}: first whole run in the {document.run.tier} tier; kept as release baseline in {paths}. Commit it; "
        "`superweight baseline RUN` replaces it"
    )


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _without_scores(snapshot: Snapshot) -> list[str]:
    return [
        f"{CellId(snapshot.model, recipe)} {task}"
        for recipe, cell in snapshot.cells.items()
        for task, figure in cell.zero_shot.items()
        if figure.n and not figure.aligned()
    ]
