"""The state of one run: cards, cells, what was measured, and the merging of what xdist workers hand over."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

import pytest

from pytest_superweight.options import TIERS, Settings
from pytest_superweight.signals import progress_writer
from pytest_superweight.tally import Test
from superweight.gc_pause import gc_paused

if TYPE_CHECKING:  # imported where they are used: test suites that are not ours pay for none of it
    from pytest_superweight.crumbs import Crumbs
    from pytest_superweight.deaths import Death
    from superweight.cards import Cell, Library, TierCard, TierPerplexity, TierTask
    from superweight.evidence import CellEvidence
    from superweight.measure import CellMeasurer
    from superweight.report import RunDocument
    from superweight.verdict import GateResult, JudgedCell, Rules

_LEFT_BEHIND = (
    "evidence.json",
    "summary.md",
    "report.html",
    "badge.json",
    "figures.csv",
    "compare.md",
    "compare.json",
)

KEY: pytest.StashKey[GateSession] = pytest.StashKey()


@dataclass
class GateSession:
    """Everything that lives as long as the pytest session."""

    settings: Settings
    arguments: Sequence[str] = ()
    started: str = field(default_factory=lambda: _now())
    asked: dict[str, list[TierPerplexity | TierTask]] = field(default_factory=dict)
    evidence: dict[str, CellEvidence] = field(default_factory=dict)
    wanted: set[tuple[str, str]] = field(default_factory=set)
    active: bool = False
    outside: list[str] = field(default_factory=list)
    bad_card: str = ""
    unwritten: str = ""
    notes: list[str] = field(default_factory=list)
    document: RunDocument | None = None
    scheduled: bool = False
    """Whether xdist hands out work as our suites ask for."""
    crumbs: Crumbs | None = None
    deaths: dict[str, Death] = field(default_factory=dict)
    not_started: list[str] = field(default_factory=list)
    """Tests for which no worker was left."""
    _handed_over: dict[str, str] = field(default_factory=dict)
    _versions: dict[str, dict[str, CellEvidence]] = field(default_factory=dict)

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
    def workbench(self) -> CellMeasurer:
        """Where cells are measured; made, with torch, when the first cell runs."""
        with gc_paused():
            from superweight.evidence import Store
            from superweight.measure import CellMeasurer, default_device, share_cores

            gc.freeze()  # half a million objects of torch and transformers that stay; collections need not walk them
        name = os.environ.get("PYTEST_XDIST_WORKER", "main")
        worker = int(name.removeprefix("gw")) if name != "main" else 0
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        share_cores(min(workers, len(self.asked)))
        device = self.settings.device or default_device(worker)
        bench = CellMeasurer(
            self.library,
            self.evidence,
            device=device,
            dtype=self.settings.dtype,
            store=None if self.settings.store is None else Store(self.settings.store, waiting=_say),
            stop=self._decided,
            watch=progress_writer(name, None if self.crumbs is None else self.crumbs.directory),
        )
        for model, entries in self.asked.items():
            bench.plan(model, entries)
        return bench

    @property
    def rules(self) -> Rules:
        """By what this run is judged."""
        from superweight.verdict import Rules

        sequential = self.tier.sequential if self.settings.stopping is None else self.settings.stopping
        return Rules(
            book=self.library.book,
            today=datetime.fromisoformat(self.started).date(),
            sequential=sequential,
            planned=self._quality_gates,
            sizes=tier_sizes(self.library.tiers),
        )

    def judged(self, cell_id: str) -> JudgedCell:
        """A cell as far as it has been measured."""
        from superweight.verdict import gates_of, judge_cell

        evidence = self.evidence[cell_id]
        gates = gates_of(evidence, self._baseline_of(evidence), self.rules, list(self.evidence.values()))
        return judge_cell(evidence, gates)

    def stands(self, gate: GateResult) -> bool:
        """Whether a candidate's regression would stand whatever the other candidates come to."""
        if gate.p_adjusted is None or gate.alpha is None:
            return True
        roles = {cell.id: cell.role for cell in self.matrix}
        candidates = {cell_id for cell_id, _ in self.wanted if roles.get(cell_id) == "candidate"}
        return gate.p_adjusted * max(1, len(candidates)) <= gate.alpha

    def _decided(self, evidence: CellEvidence, gate: str) -> bool:
        from superweight.verdict import may_stop

        baseline = self._baseline_of(evidence)
        return baseline is not None and may_stop(evidence, gate, baseline, self.rules)

    def _baseline_of(self, evidence: CellEvidence) -> CellEvidence | None:
        return next((e for e in self.evidence.values() if e.model == evidence.model and e.role == "baseline"), None)

    @property
    def _quality_gates(self) -> dict[str, int]:
        """How many gates that can be wrong by chance each cell but the baseline is asked."""
        from superweight.cards.gate import CORPUS_KINDS, TASK_KINDS

        kinds = {"perplexity": CORPUS_KINDS, "zero-shot": TASK_KINDS}
        count: dict[str, int] = {}
        for cell, gate in self.wanted:
            asked, _, of = gate.partition(":")
            model, _, recipe = cell.partition("/")
            cards = [self.library.book.gate(kind, model, recipe, of) for kind in kinds.get(asked, ())]
            count[cell] = count.get(cell, 0) + sum(card is not None for card in cards)
        roles = {cell.id: cell.role for cell in self.matrix}
        everything = len(self.tier.perplexity) + len(self.tier.tasks)  # what a control is asked in one test
        return {
            cell: max(gates, everything) if roles.get(cell) == "control" else gates
            for cell, gates in count.items()
            if roles.get(cell) != "baseline"
        }

    def begin(self) -> None:
        """Our tests are about to run: what an earlier run left must not be taken for this one's."""
        if not self.active:
            self.active = True
            for name in _LEFT_BEHIND:
                with suppress(OSError):  # a directory that cannot be written to is told when the run is written
                    (self.settings.out / name).unlink()

    def want(self, cell: Cell, parameters: Mapping[str, Any]) -> None:
        """A test was collected that asks for figures of this cell."""
        entries = self.asked.setdefault(cell.model.id, [])
        for name, gate in (("superweight_corpus", "perplexity"), ("superweight_task", "zero-shot")):
            if name in parameters:
                entry = parameters[name]
                entries.append(entry)
                self.wanted.add((cell.id, f"{gate}:{entry.corpus if gate == 'perplexity' else entry.task}"))
        self.wanted.add((cell.id, ""))

    def crashed(self, cell: Cell, stage: str, message: str) -> None:
        """Record that a test of this cell died of something that nobody foresaw."""
        self._fail(cell, stage, "crash", message)

    def failed(self, cell: Cell, stage: str, message: str) -> None:
        """Record that a test of this cell failed for reasons of its own, so that no headline says otherwise."""
        self._fail(cell, stage, "test-failed", message)

    def _fail(self, cell: Cell, stage: str, reason: str, message: str) -> None:
        from superweight.evidence import CellEvidence, Failure

        evidence = self.evidence.setdefault(cell.id, CellEvidence.of(cell))
        evidence.failures.append(Failure(stage=stage, reason=reason, message=message))

    def hand_over(self, cell: Cell | None = None) -> str:
        """What a worker gives to the controller: plain JSON, per-item tables included.

        Args:
            cell: give it and its baseline only, for the case that the worker does not live to give all.

        """
        chosen = [e for e in self.evidence.values() if cell is None or e.id == cell.id or _is_baseline_of(e, cell)]
        cells = {evidence.id: _as_json(evidence) for evidence in chosen}
        news = {name: text for name, text in cells.items() if self._handed_over.get(name) != text}
        self._handed_over |= news
        return json.dumps({"cells": list(news.values()), "wanted": sorted(self.wanted)})

    def take(self, handed_over: str, worker: str) -> None:
        """What the controller does with it. A cell that two workers measured keeps the figures of both."""
        from superweight.evidence import CellEvidence

        given = json.loads(handed_over)
        self.expect({(cell, gate) for cell, gate in given["wanted"]})
        for text in given["cells"]:
            evidence = CellEvidence.model_validate(json.loads(text))
            versions = self._versions.setdefault(evidence.id, {})
            versions[worker] = evidence
            self.evidence[evidence.id] = reduce(_merged, versions.values())

    def expect(self, wanted: set[tuple[str, str]]) -> None:
        """Workers were asked for this."""
        self.wanted |= wanted
        if wanted:
            self.begin()

    def last_started(self, worker: str) -> str | None:
        """The last test that a worker started, empty if it came to none; None if nobody knows."""
        return None if self.crumbs is None else self.crumbs.started(worker)

    def died(self, death: Death) -> None:
        """A worker is gone: what it was asked for is asked for all the same."""
        self.deaths[death.worker] = death
        self.outside.append(str(death))
        if self.crumbs is not None:
            self.expect(self.crumbs.wanted(death.worker))

    def abandon(self, nodeids: Sequence[str]) -> None:
        """No worker was left for these tests."""
        self.not_started = list(nodeids)
        count = "1 test was" if len(nodeids) == 1 else f"{len(nodeids)} tests were"
        self.outside.append(f"{count} not started, since no worker was left to run them: {nodeids[0]}, …")

    def _bury(self) -> None:
        """Tests that a worker died over and tests that nobody started are failures of their cells."""
        told = [(death.fatal, "crash", death.cause) for death in self.deaths.values() if death.fatal]
        told += [(nodeid, "interrupted", "not started: no worker was left to run it") for nodeid in self.not_started]
        cells = {cell.id: cell for cell in self.matrix} if told else {}
        for nodeid, reason, message in told:
            if (test := Test.of(nodeid, cells)) is not None:
                self._fail(cells[test.cell], self._stage(nodeid, test.cell), reason, message)

    def _stage(self, nodeid: str, cell: str) -> str:
        """The gate that a test asks for, or what the test is called if it asks for none or for several."""
        asked = nodeid.rpartition("/")[2].removesuffix("]")
        gates = [gate for one, gate in self.wanted if one == cell and gate.partition(":")[2] == asked]
        return gates[0] if len(gates) == 1 else nodeid.partition("[")[0].rpartition("::")[2]

    def _miss(self) -> None:
        """Whatever was asked for and has no figure and no failure was not measured: that is INFRA, never silence."""
        from superweight.evidence import CellEvidence, Failure

        cells = {cell.id: cell for cell in self.matrix}
        for cell_id, gate in sorted(self.wanted):
            evidence = self.evidence.setdefault(cell_id, CellEvidence.of(cells[cell_id]))
            nothing = not (evidence.seconds or evidence.failures)
            if nothing or _missing(evidence, gate):
                message = "asked for, but the run ended before it was measured"
                evidence.failures.append(Failure(stage=gate or "cell", reason="interrupted", message=message))

    def _left_out(self) -> list[str]:
        """What of the tier was not asked for on the models of this run, so that a part is not taken for the whole."""
        models = {cell_id.split("/")[0] for cell_id, _ in self.wanted}
        gates = [f"perplexity:{entry.corpus}" for entry in self.tier.perplexity]
        gates += [f"zero-shot:{entry.task}" for entry in self.tier.tasks]
        cells = [cell for cell in self.matrix if cell.model.id in models]
        left_out = [f"{cell.id} {gate}" for cell in cells for gate in gates if (cell.id, gate) not in self.wanted]
        for cell in cells:
            found = self.evidence.get(cell.id)
            tried = set() if found is None else {failure.stage for failure in found.failures}
            if cell.role == "baseline" and "detection" not in tried and (found is None or found.detection is None):
                left_out.append(f"{cell.id} detection")
            elif cell.role != "baseline" and "sanity" not in tried and (found is None or found.sanity is None):
                left_out.append(f"{cell.id} sanity and super weights")
        from pytest_superweight.selection import tier_recipes

        asked = {cell.recipe.id for cell in cells}
        left_out += [f"*/{recipe.id}" for recipe in tier_recipes(self.library, self.tier) if recipe.id not in asked]
        missing_roles = {"candidate", "control"} - {cell.role for cell in cells}
        return [*left_out, *(f"no {role} in this run" for role in sorted(missing_roles))]

    def finish(self, config: pytest.Config) -> str:
        """Judge the run and write its directory.

        Returns:
            the verdict of the run.

        Raises:
            InfraError: the directory cannot be written; the judgement is in `document` all the same.
        """
        from superweight.report import (
            RunInfo,
            build_document,
            keep_report,
            look_back,
            snapshots_of,
            write_index,
            write_run,
        )

        self._bury()
        self._miss()
        self.outside += self._lacking()
        order = {cell.id: index for index, cell in enumerate(self.matrix)}
        cells = [self._judged_or_infra(cell) for cell in sorted(self.evidence, key=lambda i: order.get(i, len(order)))]
        run = RunInfo(
            started=self.started,
            finished=_now(),
            command=" ".join(["pytest", *map(str, config.invocation_params.args)]),
            tier=self.settings.tier,
            expression=self.settings.expression,
            commit=_commit(config),
            environment=_environment(self.evidence.values()),
            left_out=self._left_out(),
        )
        evidence = [cell.evidence for cell in cells]
        self.document = build_document(run, cells, self.outside)
        self.document.look_back = look_back(
            self.document,
            snapshots_of(self.document, evidence),
            self.library.book.gate,
            baselines=self.settings.baselines,
            store=self.settings.store,
        )
        try:
            write_run(self.settings.out, self.document, evidence, self.settings.store)
            if self.settings.store is not None and self.document.look_back.run:
                keep_report(self.settings.store, self.document.look_back.run, self.settings.out)
                write_index(self.settings.store)
        except Exception as error:  # evidence.json is written first, and a report can be made of it at any time
            if not (self.settings.out / "evidence.json").is_file():
                raise
            self.notes.append(f"not everything was written: {error}. `superweight report` tries again")
        return self.document.verdict

    def _judged_or_infra(self, cell_id: str) -> JudgedCell:
        """A cell judged, or why it cannot be: a report is written whatever happens."""
        from superweight.evidence import Failure
        from superweight.verdict import infra_gate, judge_cell

        try:
            return self.judged(cell_id)
        except Exception as error:
            failure = Failure(stage="judging", reason="crash", message=f"{type(error).__name__}: {error}")
            return judge_cell(self.evidence[cell_id], [infra_gate("judging", "measurement", failure)])

    def _lacking(self) -> list[str]:
        """What the tier requires and this run did not measure: a green run must have seen it."""
        ran = list(self.evidence)
        problems = [
            f"{cell}: the {self.tier.id} tier requires this cell, and it was not measured: deselected, skipped or "
            "left out by an option"
            for cell in self.tier.missing(ran)
        ]
        required = set(self.tier.required_of(dict.fromkeys(cell.partition("/")[0] for cell in ran)))
        return problems + [
            f"{line}: the {self.tier.id} tier requires this cell whole, and this was not asked for"
            for line in self._left_out()
            if line.partition(" ")[0] in required
        ]


def tier_sizes(tiers: Mapping[str, TierCard]) -> dict[str, dict[str, int | None]]:
    """Windows or items of each gate by tier, smaller tiers first."""
    from superweight.cards.gate import CORPUS_KINDS, TASK_KINDS

    sizes: dict[str, dict[str, int | None]] = {}
    for name in TIERS:
        for corpus in tiers[name].perplexity:
            for kind in CORPUS_KINDS:
                sizes.setdefault(f"{kind}:{corpus.corpus}", {})[name] = corpus.windows
        for task in tiers[name].tasks:
            for kind in TASK_KINDS:
                sizes.setdefault(f"{kind}:{task.task}", {})[name] = task.limit
    return sizes


def _say(line: str) -> None:
    print(line, file=sys.__stderr__)


def _missing(evidence: CellEvidence, gate: str) -> bool:
    kind, _, name = gate.partition(":")
    figures = {"perplexity": set(evidence.perplexity), "zero-shot": set(evidence.zero_shot)}
    failed = any(failure.stage == gate for failure in evidence.failures)
    return kind in figures and name not in figures[kind] and not failed


def _is_baseline_of(evidence: CellEvidence, cell: Cell) -> bool:
    return evidence.role == "baseline" and evidence.model == cell.model.id


def _as_json(evidence: CellEvidence) -> str:
    tables = {task: f.model_dump(mode="python") | {"items": f.items} for task, f in evidence.zero_shot.items()}
    return json.dumps(evidence.model_dump(mode="python") | {"zero_shot": tables})


def _merged(one: CellEvidence, other: CellEvidence) -> CellEvidence:
    update = {
        name: getattr(other, name)
        for name in ("detection", "sanity", "size", "super_weights", "peaks", "checkpoint", "recipe_figures", "key")
        if not getattr(one, name)
    }
    return one.model_copy(
        update=update
        | {
            "perplexity": {**other.perplexity, **one.perplexity},
            "zero_shot": {**other.zero_shot, **one.zero_shot},
            "noise": {**other.noise, **one.noise},
            "reused": {**other.reused, **one.reused},
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
        "platform": f"{platform.system()} {platform.machine()}",
        "pytest": pytest.__version__,
        "cpus": str(os.cpu_count()),
    }
    for cell in evidence:
        found.update(cell.checkpoint.get("environment", {}))
    return found | {"executable": sys.implementation.name}
