"""`evidence.json`: the document of one run, its JSON Schema, and how it is read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from superweight.errors import InfraError
from superweight.evidence.compact import without_infinities
from superweight.evidence.measured import CellEvidence, Record, Verdict
from superweight.evidence.moment import Moment
from superweight.evidence.seal import sealed
from superweight.plain_files import read_plain_text
from superweight.runs.doubts import doubts_of
from superweight.runs.retrospect import LookBack
from superweight.verdict import GateResult, JudgedCell, combine, judge_run

SCHEMA_VERSION = "1.2"


class RunInfo(Record):
    """Where, when and with what a run was made."""

    started: Moment = Field(description="ISO 8601, UTC")
    finished: str = ""
    command: str = ""
    tier: str
    expression: str = Field(default="", description="the -k expression, empty for all")
    commit: str = ""
    left_out: list[str] = Field(default_factory=list, description="what of the tier this run was not asked to measure")
    environment: dict[str, str] = Field(default_factory=dict, description="machine, device, library versions")


class CellDocument(CellEvidence):
    """A cell's evidence with its judgement."""

    verdict: Verdict
    argument: str = ""
    gates: list[GateResult] = Field(default_factory=list)


class RunDocument(Record):
    """Everything one run measured and decided."""

    schema_version: str = SCHEMA_VERSION
    run: RunInfo
    verdict: Verdict
    reasons: list[str] = Field(default_factory=list, description="what drove the verdict")
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


def read_document(path: Path) -> RunDocument:
    """Read `evidence.json`, or the one in a run directory.

    What is not as the run wrote it, or contradicts itself, is INFRA unless it is a REGRESSION; `doubts` says why.

    Raises:
        InfraError: no such file, not JSON, or not evidence.

    """
    path = path / "evidence.json" if path.is_dir() else path
    try:
        text = read_plain_text(path)
        document = RunDocument.model_validate_json(text)
    except OSError as error:
        raise InfraError(
            f"{path}: cannot be read ({error.strerror}); expected a run directory or its evidence.json.",
            reason="not-found",
        ) from error
    except UnicodeDecodeError as error:
        raise InfraError(f"{path}: not evidence of a run: not UTF-8 text ({error}).", reason="corrupt") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InfraError(f"{path}: not evidence of a run: {where}: {first['msg']}.", reason="corrupt") from error
    return held_in_doubt(document, doubts_of(document, text))


def held_in_doubt(document: RunDocument, doubts: Sequence[str]) -> RunDocument:
    """A document that says at its head why it is not relied on; as it is, if there are no doubts."""
    if not doubts:
        return document
    verdict = combine([document.verdict, "INFRA"])
    reasons = [*doubts, *document.reasons]
    return document.model_copy(update={"verdict": verdict, "reasons": reasons, "doubts": list(doubts)})


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
