"""Look back when a run ends: compare it with the release and the last run, and look for drift."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from superweight.errors import InfraError
from superweight.runs.compare import RunComparison, compare_runs
from superweight.runs.compare_cells import GateLookup
from superweight.runs.document import LookBack, RunDocument
from superweight.runs.drift import FigureAlarm
from superweight.runs.drift_alarms import drift_alarms
from superweight.runs.history import append_run, last_snapshot, read_history
from superweight.runs.release_baselines import first_release_baseline, read_release_baseline
from superweight.runs.snapshot import Snapshot

Earlier = Callable[[Snapshot], Snapshot | None]


def look_back(
    document: RunDocument,
    snapshots: Sequence[Snapshot],
    gates: GateLookup,
    *,
    baselines: Path,
    store: Path | None = None,
) -> LookBack:
    """Compare a run with the release and the last run, add it to the history, and look for drift.

    No trouble in these stops a run; it is told in `notes`.

    Args:
        document: of the run, judged.
        snapshots: of the run, one a model, as `snapshots_of` makes them.
        gates: finds the gate card that sets a margin.
        baselines: directory of the release baselines.
        store: directory of the history; nothing is kept, and neither last run nor drift seen, without one.

    """
    notes: list[str] = []
    releases = _earlier(snapshots, lambda now: read_release_baseline(baselines, now.tier, now.model), notes)
    last = _earlier(snapshots, lambda now: last_snapshot(store, now.model, now.tier) if store else None, notes)
    kept = ""
    try:
        kept = first_release_baseline(baselines, document, snapshots)
    except InfraError as error:
        notes.append(str(error))
    name, alarms = ("", []) if store is None else _remembered(document, snapshots, gates, store, releases, notes)
    return LookBack(
        run=name,
        baseline=kept,
        against_release=_compared(releases, snapshots, gates, "release baseline"),
        against_last=_compared(last, snapshots, gates, "last run"),
        alarms=alarms,
        notes=notes,
    )


def _earlier(snapshots: Sequence[Snapshot], find: Earlier, notes: list[str]) -> dict[str, Snapshot]:
    """What came before each model's snapshot, where there is something that can be read."""
    by_model = {}
    for snapshot in snapshots:
        try:
            earlier = find(snapshot)
        except InfraError as error:
            notes.append(str(error))
        else:
            by_model.update({snapshot.model: earlier} if earlier else {})
    return by_model


def _compared(
    earlier: dict[str, Snapshot], snapshots: Sequence[Snapshot], gates: GateLookup, name: str
) -> RunComparison | None:
    after = [snapshot for snapshot in snapshots if snapshot.model in earlier]
    return compare_runs(list(earlier.values()), after, gates, names=(name, "this run")) if after else None


def _remembered(
    document: RunDocument,
    snapshots: Sequence[Snapshot],
    gates: GateLookup,
    store: Path,
    releases: dict[str, Snapshot],
    notes: list[str],
) -> tuple[str, list[FigureAlarm]]:
    """Add the run to the store; its name there, and what drifts."""
    name, alarms = "", []
    try:
        name = append_run(store, document, snapshots, {model: release.taken for model, release in releases.items()}).id
        history = read_history(store)
        notes += history.notes
        for snapshot in snapshots:
            alarms += drift_alarms(history.runs, snapshot, releases.get(snapshot.model), gates)
    except InfraError as error:
        notes.append(str(error))
    return name, alarms
