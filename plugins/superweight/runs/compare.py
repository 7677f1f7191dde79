"""Two runs compared: what changed on every model, as one document."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from superweight.evidence.measured import Record, Verdict
from superweight.runs.change import Change, ChangeVerdict, overall
from superweight.runs.compare_cells import GateLookup, compare_cells
from superweight.runs.environment_diff import Difference, baseline_moved, environment_diff
from superweight.runs.snapshot import SNAPSHOT_VERSION, Snapshot

COMPARISON_VERSION = "1.0"

EXIT_CODES: dict[ChangeVerdict, int] = {"REGRESSION": 1, "CANNOT COMPARE": 2}
"""Of the command; 0 for the rest."""


class Side(Record):
    """Where one side of a comparison comes from."""

    tier: str
    taken: str = Field(description="when the run was started")
    promoted: str = Field(default="", description="when it became the release baseline; empty if it is none")
    verdict: Verdict
    commit: str = ""
    whole: bool = True


class ModelComparison(Record):
    """One model in two runs; a side is missing where a run has not this model."""

    model: str
    before: Side | None
    after: Side | None
    surroundings: list[Difference] = Field(default_factory=list, description="checkpoint, machine, libraries")
    alarms: list[str] = Field(
        default_factory=list, description="figures of the uncompressed model that changed although it did not"
    )
    changes: list[Change] = Field(default_factory=list)


class RunComparison(Record):
    """Two runs."""

    schema_version: str = COMPARISON_VERSION
    before: str = Field(description="what was compared, as it was named")
    after: str
    verdict: ChangeVerdict = Field(description="whether the later run is worse")
    models: list[ModelComparison] = Field(default_factory=list)


def compare_runs(
    before: Sequence[Snapshot],
    after: Sequence[Snapshot],
    gates: GateLookup,
    *,
    names: tuple[str, str] = ("before", "after"),
) -> RunComparison:
    """Compare model by model.

    Args:
        before: snapshots of the earlier run.
        after: snapshots of the later run.
        gates: finds the gate card that sets a margin, as `library.book.gate`.
        names: what the two are called.

    """
    old, new = ({snapshot.model: snapshot for snapshot in side} for side in (before, after))
    models = [_compare(model, old.get(model), new.get(model), gates) for model in dict.fromkeys([*old, *new])]
    verdict = overall(change for model in models for change in model.changes)
    if verdict in ("PASS", "INCONCLUSIVE") and any(snapshot.doubts for snapshot in (*before, *after)):
        verdict = "CANNOT COMPARE"
    return RunComparison(before=names[0], after=names[1], verdict=verdict, models=models)


def _compare(model: str, before: Snapshot | None, after: Snapshot | None, gates: GateLookup) -> ModelComparison:
    both = before is not None and after is not None
    old, new = before or _nothing(model), after or _nothing(model)
    doubts = [f"not relied on: {doubt}" for doubt in (*old.doubts, *new.doubts)]
    return ModelComparison(
        model=model,
        before=_side(before),
        after=_side(after),
        surroundings=environment_diff(old, new) if both else [],
        alarms=doubts + (baseline_moved(old, new) if both else []),
        changes=compare_cells(old, new, gates),
    )


def _nothing(model: str) -> Snapshot:
    """A run that was not asked for a model: runs measure the models that somebody named."""
    return Snapshot(schema_version=SNAPSHOT_VERSION, model=model, tier="", taken="", verdict="INFRA", whole=False)


def _side(snapshot: Snapshot | None) -> Side | None:
    if snapshot is None:
        return None
    return Side(**{name: getattr(snapshot, name) for name in Side.model_fields})
