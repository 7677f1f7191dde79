"""The hand-over of evidence between processes that share one gate, and the merging of what they measured.

Any scheduler may spread a gate over processes, on one machine or on several. Each process makes a `GateRun` of the same
plan and settings and measures some of the cells; one of them, which may measure nothing itself, takes what the others
hand over and finishes the run:

    worker    text = run.hand_over()        as often as it likes: after every cell, in case it does not live to the end
    finisher  run.merge(text, worker)       `worker` is any name that is the worker's own
              document = run.finish()

Cells of one model belong into one process, since each process loads the model and measures its baseline. A cell that
two processes measured all the same, as most baselines are, keeps the figures of both.

What goes between processes is one JSON text, with NaN and Infinity as Python writes them:

    {
      "requested_gates": [["model/recipe", "perplexity:wiki"], ["model/recipe", ""], ...],
      "cells": [{...}, ...]
    }

`requested_gates` are what the worker was asked for, so that what it did not live to measure is missed; the empty gate
is the cell itself. Each of `cells` is a `CellEvidence` with the item tables of its tasks (`zero_shot.<task>.items`),
which evidence.json leaves out. A text holds the cells that changed since the worker's last one, each of them whole: a
cell that comes again takes the place of what the same worker handed over before.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from superweight.evidence import CellEvidence, Failure
from superweight.gate.plan import Plan, RequestedGate
from superweight.ids import GateId

_MEASURED_AT_ONCE = (
    "detection",
    "sanity",
    "size",
    "super_weights",
    "peaks",
    "coverage",
    "checkpoint",
    "recipe_figures",
    "key",
)


class Outbox:
    """What a process has handed over, so that it hands over only what is new."""

    def __init__(self) -> None:
        self._sent: dict[str, str] = {}

    def text(self, cells: Iterable[CellEvidence], requested_gates: Iterable[tuple[str, str]]) -> str:
        """The JSON text that hands over what changed of these cells."""
        texts = {evidence.id: _as_json(evidence) for evidence in cells}
        news = {name: text for name, text in texts.items() if self._sent.get(name) != text}
        self._sent |= news
        return f'{{"requested_gates": {json.dumps(sorted(requested_gates))}, "cells": [{", ".join(news.values())}]}}'


class Inbox:
    """What other processes have handed over."""

    def __init__(self) -> None:
        self._cells: dict[str, dict[str, CellEvidence]] = {}

    def take(self, text: str, worker: str) -> set[RequestedGate]:
        """Keep what a worker hands over.

        Returns:
            the gates that it was asked for.

        """
        given = json.loads(text)
        cells = self._cells.setdefault(worker, {})
        for raw in given["cells"]:
            evidence = CellEvidence.model_validate(raw)
            cells[evidence.id] = evidence
        return {RequestedGate(cell, gate) for cell, gate in given["requested_gates"]}

    def merged_with(self, own: dict[str, CellEvidence]) -> dict[str, CellEvidence]:
        """Every cell by id, with the figures of all workers and those that this process measured itself.

        Args:
            own: what this process measured; returned as it is if nobody handed anything over.

        """
        return merged([*self._cells.values(), own]) if self._cells else own


def merged(parts: Iterable[Mapping[str, CellEvidence]]) -> dict[str, CellEvidence]:
    """Evidence by cell id, of a cell that is in several parts the figures of all; where two have one, the first's."""
    versions: dict[str, list[CellEvidence]] = {}
    for part in parts:
        for name, evidence in part.items():
            versions.setdefault(name, []).append(evidence)
    return {name: reduce(_merged_cell, found) for name, found in versions.items()}


def _merged_cell(one: CellEvidence, other: CellEvidence) -> CellEvidence:
    update: dict[str, Any] = {
        name: getattr(other, name) for name in _MEASURED_AT_ONCE if getattr(other, name) and not getattr(one, name)
    }
    if "checkpoint" in update:  # the process that described the checkpoint also wrote down the recipe as it was applied
        update |= {"recipe_parameters": other.recipe_parameters, "stands_in": other.stands_in}
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


def fail_unmeasured(evidence: dict[str, CellEvidence], plan: Plan) -> None:
    """Write a failure for whatever was asked for and has neither a figure nor a failure: INFRA, never silence.

    Args:
        evidence: of every cell by id; filled here.
        plan: the cells, and what was asked of them.

    """
    for cell_id, gate in sorted(plan.requested_gates):
        found = evidence.setdefault(cell_id, CellEvidence.of(plan.cell_by_id[cell_id]))
        nothing = not (found.seconds or found.failures)
        if nothing or _lacks(found, gate):
            message = "asked for, but the run ended before it was measured"
            found.failures.append(Failure(stage=gate or "cell", reason="interrupted", message=message))


def _lacks(evidence: CellEvidence, gate: str) -> bool:
    kind, name = GateId.parse(gate)
    figures = {"perplexity": set(evidence.perplexity), "zero-shot": set(evidence.zero_shot)}
    failed = any(failure.stage == gate for failure in evidence.failures)
    return kind in figures and name not in figures[kind] and not failed


def _as_json(evidence: CellEvidence) -> str:
    tables = {task: f.model_dump(mode="python") | {"items": f.items} for task, f in evidence.zero_shot.items()}
    return json.dumps(evidence.model_dump(mode="python") | {"zero_shot": tables})
