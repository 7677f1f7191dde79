"""The state of one run: cards, cells, what was measured, and the merging of what xdist workers hand over."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from pytest_superweight.options import Settings

if TYPE_CHECKING:  # imported where they are used: test suites that are not ours pay for none of it
    from superweight.cards import Cell, Library, TierCard, TierPerplexity, TierTask
    from superweight.evidence import CellEvidence
    from superweight.measure import Workbench
    from superweight.report import RunDocument
    from superweight.verdict import JudgedCell

KEY: pytest.StashKey[GateSession] = pytest.StashKey()


@dataclass
class GateSession:
    """Everything that lives as long as the pytest session."""

    settings: Settings
    arguments: Sequence[str] = ()
    started: str = field(default_factory=lambda: _now())
    asked: dict[str, list[TierPerplexity | TierTask]] = field(default_factory=dict)
    evidence: dict[str, CellEvidence] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    bad_card: str = ""
    document: RunDocument | None = None

    @cached_property
    def library(self) -> Library:
        """Built-in cards and the user's."""
        from superweight.cards import load_library

        return load_library(self.settings.cards)

    @cached_property
    def matrix(self) -> list[Cell]:
        """Every cell of this run, before -k."""
        from pytest_superweight.selection import selected_cells

        return selected_cells(self.settings, self.library, self.arguments)

    @property
    def tier(self) -> TierCard:
        """What is measured in this run."""
        return self.library.tiers[self.settings.tier]

    @cached_property
    def workbench(self) -> Workbench:
        """Where cells are measured; made, with torch, when the first cell runs."""
        from superweight.measure import Workbench, default_device, share_cores

        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        share_cores(min(workers, len({cell.model.id for cell in self.matrix})))
        device = self.settings.device or default_device(worker)
        bench = Workbench(self.library, self.evidence, device=device, dtype=self.settings.dtype)
        for model, entries in self.asked.items():
            bench.plan(model, entries)
        return bench

    @property
    def gate_cards(self) -> dict[str, Any]:
        """The gate card of each kind."""
        return {card.kind: card for card in self.library.gates.values()}

    def judged(self, cell_id: str) -> JudgedCell:
        """A cell as far as it has been measured."""
        from superweight.verdict import gates_of, judge_cell

        evidence = self.evidence[cell_id]
        baseline = next((e for e in self.evidence.values() if e.model == evidence.model and e.role == "baseline"), None)
        return judge_cell(evidence, gates_of(evidence, baseline, self.gate_cards))

    def crashed(self, cell: Cell, stage: str, message: str) -> None:
        """Record that a test of this cell died of something that nobody foresaw."""
        from superweight.evidence import CellEvidence, Failure

        evidence = self.evidence.setdefault(cell.id, CellEvidence.of(cell))
        evidence.failures.append(Failure(stage=stage, reason="crash", message=message))

    def hand_over(self) -> str:
        """What a worker gives to the controller: plain JSON, per-item tables included."""
        return json.dumps(
            [
                e.model_dump(mode="python")
                | {"zero_shot": {t: f.model_dump(mode="python") | {"items": f.items} for t, f in e.zero_shot.items()}}
                for e in self.evidence.values()
            ]
        )

    def take(self, handed_over: str) -> None:
        """What the controller does with it. A cell that two workers measured keeps the figures of both."""
        from superweight.evidence import CellEvidence

        for raw in json.loads(handed_over):
            evidence = CellEvidence.model_validate(raw)
            known = self.evidence.get(evidence.id)
            self.evidence[evidence.id] = evidence if known is None else _merged(known, evidence)

    def finish(self, config: pytest.Config) -> None:
        """Judge the run and write its directory."""
        from superweight.report import RunInfo, build_document, write_run

        order = {cell.id: index for index, cell in enumerate(self.matrix)}
        cells = [self.judged(cell_id) for cell_id in sorted(self.evidence, key=lambda i: order.get(i, len(order)))]
        run = RunInfo(
            started=self.started,
            finished=_now(),
            command=" ".join(["pytest", *map(str, config.invocation_params.args)]),
            tier=self.settings.tier,
            expression=self.settings.expression,
            commit=_commit(config),
            environment=_environment(self.evidence.values()),
        )
        self.document = build_document(run, cells, self.outside)
        write_run(self.settings.out, self.document, [cell.evidence for cell in cells])


def _merged(one: CellEvidence, other: CellEvidence) -> CellEvidence:
    update = {
        name: getattr(other, name)
        for name in ("detection", "sanity", "size", "super_weights", "checkpoint")
        if not getattr(one, name)
    }
    return one.model_copy(
        update=update
        | {
            "perplexity": {**other.perplexity, **one.perplexity},
            "zero_shot": {**other.zero_shot, **one.zero_shot},
            "failures": [*one.failures, *(failure for failure in other.failures if failure not in one.failures)],
            "seconds": {**other.seconds, **one.seconds},
        }
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _commit(config: pytest.Config) -> str:
    try:
        command = ["git", "-C", str(config.rootpath), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("CI_COMMIT_SHA", os.environ.get("GITHUB_SHA", ""))


def _environment(evidence: Iterable[CellEvidence]) -> dict[str, str]:
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "pytest": pytest.__version__,
        "cpus": str(os.cpu_count()),
    }
    for cell in evidence:
        found.update(cell.checkpoint.get("environment", {}))
    return found | {"executable": sys.implementation.name}
