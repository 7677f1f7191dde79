"""`evidence.json`: the document of one run and its JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field

from superweight.cards.model import Role
from superweight.evidence.compact import without_infinities
from superweight.evidence.measured import CellEvidence, Record, Verdict
from superweight.evidence.moment import Moment
from superweight.evidence.seal import sealed
from superweight.ids import CellId
from superweight.runs.compare import RunComparison
from superweight.runs.drift import FigureAlarm
from superweight.verdict import GateResult, JudgedCell, Reason, judge_run

SCHEMA_VERSION = "1.3"


class LeftOut(Record):
    """Something of its tier that a run was not asked to measure."""

    cell: str = Field(default="", description="`model/recipe`, where only a part of a cell was left out")
    gate: str = Field(
        default="", description="of the cell; `sanity` stands for super weights too, which are looked at with it"
    )
    recipe: str = Field(default="", description="a recipe that no model was measured under")
    role: Role | None = Field(default=None, description="a role of which the run has no cell")

    def __str__(self) -> str:
        if self.cell:
            return f"{self.cell} {'sanity and super weights' if self.gate == 'sanity' else self.gate}"
        return str(CellId("*", self.recipe)) if self.recipe else f"no {self.role} in this run"


class RunInfo(Record):
    """Where, when and with what a run was made."""

    started: Moment = Field(description="ISO 8601, UTC")
    finished: str = ""
    command: str = ""
    tier: str
    expression: str = Field(default="", description="the -k expression, empty for all")
    commit: str = ""
    left_out: list[str] = Field(default_factory=list, description="what of the tier this run was not asked to measure")
    not_asked: list[LeftOut] = Field(
        default_factory=list, description="the same, part by part; empty in evidence of versions before 1.3"
    )
    environment: dict[str, str] = Field(default_factory=dict, description="machine, device, library versions")


class CellDocument(CellEvidence):
    """A cell's evidence with its judgement."""

    verdict: Verdict
    argument: str = ""
    gates: list[GateResult] = Field(default_factory=list)


class LookBack(Record):
    """A run beside its release baseline and the runs before it; all of it empty where there is neither."""

    run: str = Field(default="", description="the run's name in the store; empty if it was not added to one")
    baseline: str = Field(default="", description="what became of the baseline: kept, or why there is none")
    against_release: RunComparison | None = Field(default=None, description="none if no model has a baseline yet")
    against_last: RunComparison | None = Field(default=None, description="none if there was no run before")
    alarms: list[FigureAlarm] = Field(default_factory=list, description="figures that drift")
    notes: list[str] = Field(default_factory=list, description="what could not be read or written")


class RunDocument(Record):
    """Everything one run measured and decided."""

    schema_version: str = SCHEMA_VERSION
    run: RunInfo
    verdict: Verdict
    reasons: list[str] = Field(default_factory=list, description="what drove the verdict")
    causes: list[Reason] = Field(
        default_factory=list, description="the same, each with its cell; empty in evidence of versions before 1.3"
    )
    cells: list[CellDocument] = Field(default_factory=list)
    look_back: LookBack = Field(default_factory=LookBack, description="against the release and the runs before")
    tables: dict[str, str] = Field(
        default_factory=dict, description="the files under items/ as the run wrote them, and the sha256 of each"
    )
    digest: str = Field(default="", description="sha256 of everything else in this document, as canonical JSON")
    doubts: list[str] = Field(
        default_factory=list, exclude=True, description="found on reading: why nothing that it says may count as a PASS"
    )


def build_document(run: RunInfo, cells: Sequence[JudgedCell], outside: Sequence[str] = ()) -> RunDocument:
    """Put evidence and judgement of all cells into one document, judged as a whole.

    Args:
        run: where, when and with what.
        cells: every cell, judged.
        outside: what went wrong outside any cell (an interrupted run, a worker that died); makes the run INFRA.

    """
    decision = judge_run(cells, outside)
    return RunDocument(
        run=run,
        verdict=decision.verdict,
        reasons=decision.reasons,
        causes=decision.causes,
        cells=[
            CellDocument(
                **{name: getattr(cell.evidence, name) for name in CellEvidence.model_fields},
                verdict=cell.verdict,
                argument=cell.argument,
                gates=cell.gates,
            )
            for cell in cells
        ],
    )


def to_json(document: RunDocument) -> str:
    """`evidence.json`, as strict JSON."""
    raw = document.model_dump(mode="python")
    for cell in raw["cells"]:
        for figure in cell["zero_shot"].values():
            figure.update({name: value for name, value in figure["metrics"].items() if name not in figure})
    return strict_json(sealed(raw))


def strict_json(value: Any) -> str:
    """JSON that every parser reads: infinities and NaN become the strings "inf", "-inf" and "nan"."""
    return json.dumps(without_infinities(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of `evidence.json`. Anything may be added to a document; nothing listed may go."""
    schema = RunDocument.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "pytest-superweight evidence"
    return _numbers_may_be_infinite(schema)  # type: ignore[no-any-return]


def _numbers_may_be_infinite(node: Any) -> Any:
    if isinstance(node, dict):
        node = {key: _numbers_may_be_infinite(value) for key, value in node.items()}
        if node.get("type") == "number":
            node = {**node, "type": ["number", "string"], "pattern": "^(-?inf|nan)$"}
        return node
    if isinstance(node, list):
        return [_numbers_may_be_infinite(item) for item in node]
    return node
