"""A Hugging Face model card of one cell of a run: what was done, what it costs, and what the gate said."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from superweight.errors import InfraError
from superweight.evidence.measured import StoredWeight
from superweight.report.format import difference, displayable, number, verdict_label, verdict_text
from superweight.report.format import margin as margin_text
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ORIGIN = re.compile(r"hub ([^@\s]+)@(\S+)")
_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
_LINKS = {"://": ":&#8203;//", "www.": "www&#8203;.", "@": "&#64;"}
"""What Markdown makes a link of by itself, and what it does not."""
_LISTED = 12  # cells in a message
_LONGEST = 300  # characters of a text from evidence


def model_card(document: RunDocument, cell: str, *, base_model: str = "") -> str:
    """`README.md`, metadata for the hub included.

    Everything that stems from the evidence is written so that it is text and nothing else, wherever it stands.

    Args:
        document: of the run.
        cell: `model/recipe`.
        base_model: the uncompressed model's id on the hub, where the run does not say.

    Raises:
        InfraError: the run has no such cell (`not-found`), it is a baseline or a control (`not-applicable`), the id is
            none (`unsupported`), or huggingface_hub is not installed (`missing-package`).
    """
    found = cell_of(document, cell)
    base = _base_model(found, base_model)
    lines = [
        f"# {_text(found.model)}, {_text(found.recipe)}",
        "",
        *_summary(document, found, base),
        *_section("What was done", _recipe(found)),
        *_section("Gates", _gates(found)),
        *_section("Super weights", _super_weights(found.super_weights)),
        *_section("Measured on", _provenance(document, found)),
    ]
    head = _metadata(found, base, whole=not (document.run.left_out or document.doubts))
    return f"---\n{head}---\n\n" + displayable("\n".join(lines).rstrip("\n") + "\n")


def write_model_card(place: Path, text: str) -> Path:
    """Write it to a file, or as README.md into a directory; whole or not at all."""
    path = place / "README.md" if place.is_dir() else place
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def cell_of(document: RunDocument, name: str) -> CellDocument:
    """The cell of a run that a card is written of; errors as `model_card`."""
    found = next((cell for cell in document.cells if cell.id == name), None)
    if found is None:
        known = [cell.id for cell in document.cells if cell.role in ("candidate", "reference")]
        listed = ", ".join(known[:_LISTED]) + (", …" if len(known) > _LISTED else "")
        raise InfraError(f"the run has no cell '{name}'. It has {listed or 'none that can ship'}.", reason="not-found")
    if found.role in ("baseline", "control"):
        raise InfraError(
            f"{name} is a {found.role}: a model card is of something that could ship. Name a candidate or a reference.",
            reason="not-applicable",
        )
    return found


def _base_model(cell: CellDocument, given: str) -> str:
    """The uncompressed model's id on the hub; empty if nobody says."""
    if given and not _HUB_ID.fullmatch(given):
        raise InfraError(f"--base-model: expected organisation/name, found {given!r}", reason="unsupported")
    origin = _ORIGIN.match(str(cell.checkpoint.get("origin", "")))
    told = origin[1] if origin and _HUB_ID.fullmatch(origin[1]) else ""
    return given or told


def _metadata(cell: CellDocument, base: str, *, whole: bool) -> str:
    """The block at the head, as the hub reads it; the verdict is among the tags if the run was whole."""
    try:
        from huggingface_hub import ModelCardData
    except ImportError as error:
        raise InfraError(
            "Writing a model card needs the Python package huggingface_hub, which is not installed. Install the "
            "measuring part: pip install 'pytest-superweight[gate]'.",
            reason="missing-package",
        ) from error
    results = list(_results(cell))
    data = ModelCardData(
        base_model=base or None,
        base_model_relation="quantized" if base else None,
        pipeline_tag="text-generation",
        tags=["superweight", "quantized", *([f"superweight-{cell.verdict.lower()}"] if whole else [])],
        model_name=_plain(cell.id) if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml(line_break="\n")) + "\n"


def _results(cell: CellDocument) -> Iterator[Any]:
    """One result a figure that was gated, with the interval of its difference from the uncompressed model's."""
    from huggingface_hub import EvalResult

    for gate in _figures(cell):
        value = gate.value
        if value is None or not math.isfinite(value):
            continue
        yield EvalResult(
            task_type="text-generation",
            dataset_type=_plain(gate.of),
            dataset_name=_plain(gate.of),
            metric_type="perplexity" if gate.kind == "perplexity" else _plain(gate.metric or gate.kind),
            metric_value=value,
            metric_name=_plain(f"{gate.metric or gate.kind}: {gate.verdict}"),
            metric_args={name: one for name, one in _arguments(gate).items() if one is not None},
        )


def _arguments(gate: GateResult) -> Mapping[str, Any]:
    return {
        "uncompressed": _finite(gate.baseline),
        "difference": _finite(gate.difference),
        "difference_interval": [_finite(end) for end in gate.interval] if gate.interval else None,
        "confidence": _finite(gate.confidence),
        "margin": _finite(gate.margin),
        "n": gate.n,
        "verdict": gate.verdict,
    }


def _figures(cell: CellDocument) -> list[GateResult]:
    """Gates that compare a figure with the uncompressed model's."""
    return [gate for gate in cell.gates if gate.of and gate.value is not None]


def _summary(document: RunDocument, cell: CellDocument, base: str) -> Iterator[str]:
    origin = f"[{base}](https://huggingface.co/{base})" if base else _text(_origin(cell) or cell.model)
    yield f"A compressed form of {origin}, measured beside it on the same text and items."
    yield ""
    yield f"**Verdict of the gate: {verdict_label(cell)}.** {_text(cell.argument)}".rstrip()
    if cell.role == "reference":
        yield ""
        yield "The recipe is a reference on this model: it was measured for comparison, and nobody proposed to ship it."
    if left_out := document.run.left_out:
        yield ""
        listed = _text(", ".join(left_out[:_LISTED]) + (", …" if len(left_out) > _LISTED else ""))
        yield f"**The run measured a part of its tier, so this is no release decision.** Not asked for: {listed}"
    for doubt in document.doubts:
        yield ""
        yield f"**This evidence is in doubt:** {_text(doubt)}"
    yield ""


def _origin(cell: CellDocument) -> str:
    """Where the checkpoint came from, without the paths of the machine that it lay on."""
    kind, _, rest = str(cell.checkpoint.get("origin", "")).partition(" ")
    return (
        f"{kind} {rest.rstrip('/').rpartition('/')[2]}" if kind in ("directory", "gguf") else f"{kind} {rest}".strip()
    )


def _recipe(cell: CellDocument) -> Iterator[str]:
    yield _table(
        ("parameter", "value"), [[_text(name), _text(value)] for name, value in cell.recipe_parameters.items()]
    )
    if cell.size is not None:
        yield ""
        yield (
            f"{cell.size.compressed_bits_per_weight:.2f} bits a compressed weight, "
            f"{cell.size.model_bits_per_weight:.2f} a parameter of the model, scales and side tables included."
        )
    if cell.stands_in:
        yield ""
        yield f"No super weight is known: this stands in for {_text(cell.stands_in)}."


def _gates(cell: CellDocument) -> Iterator[str]:
    if not cell.gates:
        yield "None was asked."
        return
    rows = [
        [
            _text(gate.gate),
            verdict_text(gate),
            number(gate.value, gate.metric) if gate.of else "",
            number(gate.baseline, gate.metric) if gate.of else "",
            str(difference(gate)),
            margin_text(gate),
            "" if gate.n is None else str(gate.n),
        ]
        for gate in cell.gates
    ]
    yield _table(("gate", "verdict", "value", "uncompressed", "difference, interval", "margin", "n"), rows)
    for failure in cell.failures:
        yield ""
        yield f"Not measured: {_text(failure.stage)}: {_text(failure.message)}"
    for gate in cell.gates:
        if gate.waiver is not None:
            yield ""
            yield f"{_text(gate.gate)} is waived: " + ", ".join(_text(f"{k} {v}") for k, v in gate.waiver.items())


def _super_weights(weights: list[StoredWeight]) -> Iterator[str]:
    if not weights:
        yield "None is known of this model, or none was looked at."
        return
    rows = [
        [
            str(weight.coordinate),
            _text(weight.status),
            f"{weight.original:.7g} `{_code(weight.original_bits)}`",
            f"{weight.stored:.7g} `{_code(weight.stored_bits)}`",
            "" if weight.reloaded is None else f"{weight.reloaded:.7g} `{_code(weight.reloaded_bits or '')}`",
            "kept" if weight.survived else "**changed**",
        ]
        for weight in weights
    ]
    yield _table(("where", "status", "original", "compressed", "loaded again", ""), rows)


def _provenance(document: RunDocument, cell: CellDocument) -> Iterator[str]:
    facts = {
        "run": f"{document.run.tier} tier, {document.run.started}",
        "checkpoint": _origin(cell),
        "content hash": cell.checkpoint.get("content_hash", ""),
        "dtype": cell.checkpoint.get("dtype", ""),
        "arithmetic": cell.checkpoint.get("compute_dtype", ""),
        **document.run.environment,
    }
    yield _table(("", ""), [[_text(name), _text(value)] for name, value in facts.items() if value])


def _section(title: str, lines: Iterator[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines)


def _text(value: Any) -> str:
    """A value as text in Markdown: one line, no markup, no HTML, no links."""
    short = _plain(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _SPECIAL.sub(r"\\\1", short)
    for link, plain in _LINKS.items():
        text = text.replace(link, plain)
    return text


def _plain(value: Any) -> str:
    """A value in one line that has an end."""
    line = displayable(" ".join(str(value).split()))
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _code(bits: str) -> str:
    """Hexadecimal digits, and nothing else."""
    return bits if re.fullmatch(r"0x[0-9a-f]{1,16}", bits) else "?"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
