"""`superweight baseline`: make a run the release baseline, and say what that changes."""

from __future__ import annotations

import os
from pathlib import Path

from superweight.errors import InfraError
from superweight.report.comparison_text import comparison_text
from superweight.runs.compare import compare_runs
from superweight.runs.compare_cells import GateLookup
from superweight.runs.read import read_run, snapshots_of
from superweight.runs.release_baselines import baseline_path, objections, promote, read_baseline
from superweight.runs.snapshot import Snapshot


def promote_run(run: Path, baselines: Path, gates: GateLookup, *, force: bool = False) -> tuple[bool, str]:
    """Promote every model of a run.

    Args:
        run: the run directory.
        baselines: directory of the release baselines.
        gates: finds the gate card that sets a margin, for what changed against the baselines before.
        force: also a run that is red, asked for a part of its tier, or without its items; and over a baseline that
            cannot be read.

    Returns:
        whether it was promoted, and what to tell.

    Raises:
        InfraError: the run or a baseline cannot be read, or a baseline cannot be written.

    """
    document = read_run(run)
    snapshots = snapshots_of(document)
    problems = objections(document, snapshots)
    lines = [f"{run}: {problem}" for problem in problems]
    if (problems and not force) or not snapshots:
        return False, "\n".join([*lines, "not promoted; --force promotes it all the same", ""])
    earlier = [_earlier(baselines, one, lines, force=force) for one in snapshots]
    before = [one for one in earlier if one is not None]
    if before:
        models = {one.model for one in before}
        after = [one for one in snapshots if one.model in models]
        comparison = compare_runs(before, after, gates, names=("the baseline until now", str(run)))
        lines += [comparison_text(comparison)]
    for snapshot in snapshots:
        lines.append(f"{snapshot.model} in the {snapshot.tier} tier: {promote(baselines, snapshot)}")
    return True, "\n".join([*lines, "commit it to keep it", ""])


def _earlier(baselines: Path, snapshot: Snapshot, lines: list[str], *, force: bool) -> Snapshot | None:
    try:
        return read_baseline(baselines, snapshot.tier, snapshot.model)
    except InfraError as error:
        if not force or not os.path.lexists(baseline_path(baselines, snapshot.tier, snapshot.model)):
            raise
        lines.append(f"{error} Replaced.")
        return None
