"""The first screen of a report in words, the same in HTML, in Markdown and on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from superweight.cards.model import Role
from superweight.evidence.measured import Verdict, ZeroShot
from superweight.ids import CellId
from superweight.report.format import SYMBOLS, difference, margin
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult, Reason, combine, decides, severity, unmeasured
from superweight.verdict.result import QUALITY

_WORDS = {"REGRESSION": "must not ship", "INCONCLUSIVE": "not decided", "INFRA": "not measured", "PASS": "may ship"}
_NOT_RELEASED = "passed, but this run releases nothing"
_ROLES: tuple[Role, ...] = ("candidate", "baseline", "control", "reference")
_BY_CHANCE = "among so many candidates one looks like this by chance: it decides this cell and not the run"


class Fix(NamedTuple):
    """Something to try, and where it would help."""

    sentence: str
    cells: list[CellId]


class ReasonView(NamedTuple):
    """Why the run got its verdict: one cell, or something outside all cells."""

    cell: CellDocument | None
    said: list[str]


class ModelLine(NamedTuple):
    """One model's verdict, and what drove it."""

    model: str
    verdict: Verdict
    words: str


def headline(document: RunDocument) -> str:
    """The verdict in words; a run that was asked for a part of its tier never says that a model may ship."""
    waived = sum(gate.waiver is not None for cell in document.cells if decides(cell.role) for gate in cell.gates)
    besides = f", with {waived} waived failure{'' if waived == 1 else 's'}" if waived else ""
    return f"{SYMBOLS[document.verdict]} {document.verdict}{_headline(document)}{besides}"


def _headline(document: RunDocument) -> str:
    verdict, lines = document.verdict, model_verdicts(document)
    if document.doubts:
        return f": {document.doubts[0]}"
    if verdict == "PASS" and document.run.left_out:
        return " in part: not the whole tier, so no release decision"
    if verdict == "INFRA" and failed_controls(document):
        return ": the gate failed its own check, so no verdict counts"
    same = sum(line.verdict == verdict for line in lines)
    if len(lines) > 1 and 0 < same < len(lines):
        return f": {same} of {len(lines)} models {_WORDS[verdict]}"
    return f": {_WORDS[verdict]}"


def releases(document: RunDocument) -> bool:
    """Whether what passed in a run may be shipped: not if the run is INFRA, or was asked for a part of its tier."""
    return document.verdict != "INFRA" and not document.run.left_out


def failed_controls(document: RunDocument) -> list[CellDocument]:
    """Controls whose figures say something else than they declare."""
    return [cell for cell in _missed(document) if not unmeasured(cell.verdict, cell.gates)]


def silent(document: RunDocument) -> list[CellDocument]:
    """Controls that were not measured, so that nothing vouches for the gate."""
    return [cell for cell in _missed(document) if unmeasured(cell.verdict, cell.gates)]


def _missed(document: RunDocument) -> list[CellDocument]:
    return [cell for cell in document.cells if cell.role == "control" and cell.verdict != cell.expects and _asked(cell)]


def _asked(cell: CellDocument) -> bool:
    return cell.verdict == "INFRA" or any(gate.kind in QUALITY for gate in cell.gates)


def model_verdicts(document: RunDocument) -> list[ModelLine]:
    """Each model by the worst verdict of its baseline and candidates, worst first."""
    lines = []
    for model in dict.fromkeys(cell.model for cell in document.cells):
        deciding = [cell for cell in document.cells if cell.model == model and decides(cell.role)]
        if deciding:
            verdict = combine(cell.verdict for cell in deciding)
            driving = [cell for cell in deciding if cell.verdict == verdict != "PASS"]
            words = "; ".join(f"{cell.recipe}: {_first(cell)}" for cell in driving[:2])
            more = f"; and {len(driving) - 2} more" if len(driving) > 2 else ""
            answer = _WORDS[verdict] if verdict != "PASS" or releases(document) else _NOT_RELEASED
            lines.append(ModelLine(model, verdict, f"{answer}{f': {words}{more}' if words else ''}"))
    return sorted(lines, key=lambda line: severity(line.verdict))


def _first(cell: CellDocument) -> str:
    return (verdict_reasons(cell) or [cell.argument])[0]


def verdict_reasons(cell: CellDocument) -> list[str]:
    """What drove a cell's verdict, a sentence a gate or failure."""
    same = [gate for gate in cell.gates if gate.verdict == cell.verdict != "PASS" and gate.waiver is None]
    waived = [gate for gate in cell.gates if gate.waiver is not None]
    failures = [f"{failure.stage}: {_line(failure.message)} ({failure.reason})" for failure in cell.failures]
    sentences = [_sentence(gate, cell) for gate in same if not (gate.verdict == "INFRA" and failures)]
    sentences += failures if cell.verdict == "INFRA" else []
    return sentences + [
        f"{_sentence(gate, cell)}; waived until {(gate.waiver or {}).get('expires')}" for gate in waived
    ]


def _sentence(gate: GateResult, cell: CellDocument) -> str:
    """What one gate found, in a line."""
    if gate.kind == "super-weights" and gate.value is not None and gate.baseline is not None:
        lost = f"{gate.baseline - gate.value:.0f} of {gate.baseline:.0f} super weights lost"
        return f"{lost}, which it promises to keep" if cell.promises else lost
    if gate.difference is None or gate.margin is None:
        return _line(gate.headline or gate.gate)
    figure = {"perplexity": f"perplexity on {gate.of}", "zero-shot": gate.of}.get(gate.kind, gate.gate)
    few = " (too few to tell)" if gate.verdict == "INCONCLUSIVE" else ""
    return f"{figure} {difference(gate)}, {margin(gate)} is accepted{few}"


def reasons(document: RunDocument) -> list[ReasonView]:
    """Why the run got its verdict, the gravest first; what happened outside any cell comes before.

    Evidence of versions before 1.3 says why in sentences alone, which are shown as they are.
    """
    if document.reasons and not document.causes:
        return [ReasonView(None, [text]) for text in document.reasons]
    elsewhere = [ReasonView(None, [str(cause)]) for cause in document.causes if not cause.cell]
    chance = {cause.cell for cause in document.causes if cause.by_chance}
    controls = [ReasonView(cell, [cell.argument]) for cell in failed_controls(document)]
    driving = [cell for cell in document.cells if decides(cell.role) and (cell.verdict != "PASS" or _waived(cell))]
    driving += [cell for cell in document.cells if cell.role == "reference" and cell.verdict == "INFRA"]
    views = []
    for cell in sorted(driving, key=lambda cell: severity(cell.verdict)):
        sentences = verdict_reasons(cell) or [cell.argument]
        views.append(ReasonView(cell, [*sentences, _BY_CHANCE] if cell.id in chance else sentences))
    unvouched = [ReasonView(cell, [cell.argument]) for cell in silent(document)]
    return [*elsewhere, *controls, *views, *unvouched]


def reason_lines(document: RunDocument) -> list[str]:
    """The run's reasons for a terminal, a line each: what several cells have in common is said once."""
    cells: dict[str, list[str]] = {}
    for cause in document.causes or [Reason(text=text) for text in document.reasons]:
        cells.setdefault(" ".join(cause.text.splitlines()), []).append(cause.cell)
    return [f"{_named(names)}{text}" for text, names in cells.items()]


def _named(cells: Sequence[str]) -> str:
    more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"{cells[0]}{more}: " if cells[0] else ""


def _waived(cell: CellDocument) -> bool:
    return any(gate.waiver is not None for gate in cell.gates)


def tally(document: RunDocument) -> list[tuple[Role, Verdict, int]]:
    """Role, verdict, and how many cells: what decides comes first."""
    numbers = Counter((cell.role, cell.verdict) for cell in document.cells)
    ordered = sorted(numbers, key=lambda pair: (rank(pair[0]), severity(pair[1])))
    return [(role, verdict, numbers[role, verdict]) for role, verdict in ordered]


def rank(role: Role) -> int:
    """The place of a role where cells are listed: what may ship first, what only informs last."""
    return _ROLES.index(role)


def counts(document: RunDocument) -> str:
    """How many cells of which role got which verdict."""
    return ", ".join(f"{n} {role} {verdict}" for role, verdict, n in tally(document))


def in_order(cells: Sequence[CellDocument]) -> list[CellDocument]:
    """Cells as people look for them: by model, what decides first, and the gravest of them first."""
    models = list(dict.fromkeys(cell.model for cell in cells))

    def key(cell: CellDocument) -> tuple[int, int, int]:
        return models.index(cell.model), rank(cell.role), severity(cell.verdict)

    return sorted(cells, key=key)


def measured_share(document: RunDocument) -> str:
    """How many windows and items the compressed models were measured on, of those that were planned."""
    parts = []
    for kind, unit in (("perplexity", "windows"), ("zero-shot", "items")):
        gates = [g for cell in document.cells if cell.role != "baseline" for g in cell.gates if g.kind == kind]
        used, planned = sum(g.n or 0 for g in gates), sum(g.planned or g.n or 0 for g in gates)
        if used < planned:
            parts.append(f"{used:,} of {planned:,} {unit}")
    if not parts:
        return ""
    return f"Used {' and '.join(parts)}: each measurement stopped as soon as the verdict that it serves was valid."


def model_notes(document: RunDocument) -> list[str]:
    """What a reader of the figures should know of the models: their cards' notes, and what the run found out."""
    return sorted({str(cell.checkpoint["note"]) for cell in document.cells if cell.checkpoint.get("note")}) + remarks(
        document
    )


def remarks(document: RunDocument) -> list[str]:
    """What the run found out about the models' files, the tasks' rows, and itself."""
    loading = {(cell.model, line) for cell in document.cells for line in _lines(cell.checkpoint.get("loading"))}
    slow = {(cell.model, str(cell.checkpoint["slow"])) for cell in document.cells if cell.checkpoint.get("slow")}
    lines = [f"{model}: {line}" for model, line in sorted(loading)] + _without_super_weights(document)
    lines += [f"{model}, {task}: {line}" for model, task, line in _warnings(document)]
    lines += [f"{model}: every answer was computed alone, since {why}" for model, why in sorted(slow)]
    return lines + _not_to_be_had(document)


def _not_to_be_had(document: RunDocument) -> list[str]:
    """What the runners of some cells cannot do, said once of all cells that it is true of."""
    cells: dict[tuple[str, str], list[str]] = {}
    for cell in document.cells:
        cannot = cell.checkpoint.get("cannot")
        for ability, why in sorted(cannot.items()) if isinstance(cannot, dict) else ():
            cells.setdefault((str(ability), str(why)), []).append(cell.id)
    return [f"{_named(ids)}no {ability}: {why}" for (ability, why), ids in cells.items()]


def _without_super_weights(document: RunDocument) -> list[str]:
    """Models in which none is known, and what the controls did to them instead."""
    lines = []
    for baseline in (cell for cell in document.cells if cell.role == "baseline" and cell.detection is not None):
        if baseline.super_weights:
            continue
        instead = {
            f"{cell.recipe} did {cell.recipe_parameters.get('kind')} instead"
            for cell in document.cells
            if cell.model == baseline.model and cell.stands_in
        }
        none = f"{baseline.model}: no super weights found, so there are none to lose"
        lines.append("; ".join([none, *sorted(instead)]))
    return lines


def _warnings(document: RunDocument) -> list[tuple[str, str, str]]:
    """Model, task and what is to be known of the task's figures, once each."""
    figures = [(cell.model, task, figure) for cell in document.cells for task, figure in cell.zero_shot.items()]
    lines = {(model, task, line) for model, task, figure in figures for line in figure.warnings}
    lines |= {(model, task, _left_out(figure)) for model, task, figure in figures if figure.left_out}
    return sorted(lines)


def _left_out(figure: ZeroShot) -> str:
    rows = (figure.planned or figure.n) + len(figure.left_out)
    named = [f"row {row.get('doc_id', '?')} {row.get('reason', '')}" for row in figure.left_out[:3]]
    more = f", and {len(figure.left_out) - 3} more" if len(figure.left_out) > 3 else ""
    return f"{len(figure.left_out)} of {rows} rows left out: {'; '.join(named)}{more}"


def suggestions(document: RunDocument) -> list[Fix]:
    """What to try about cells that decide and did not pass: what passes instead, and what their arguments say."""
    cells: dict[str, list[CellId]] = {}
    for cell in document.cells:
        if cell.verdict == "PASS" or not decides(cell.role):
            continue
        advised = [each.text for gate in cell.gates for each in gate.advice if each.kind != "beside"]
        for sentence in dict.fromkeys(map(_capital, [*_instead(cell, document), *advised])):
            cells.setdefault(sentence, []).append(CellId(cell.model, cell.recipe))
    return [Fix(sentence, helped) for sentence, helped in cells.items()]


def _instead(cell: CellDocument, document: RunDocument) -> list[str]:
    """Candidates of the same model that pass, the smallest first."""
    if cell.role != "candidate" or not releases(document):
        return []
    passed = [
        (other.size.model_bits_per_weight, other.recipe)
        for other in document.cells
        if other.model == cell.model and other.role == "candidate" and other.size is not None
        if other.verdict == "PASS" and not _waived(other)
    ]
    named = [f"{recipe} ({bits:.2f} bits per weight)" for bits, recipe in sorted(passed, key=lambda pair: pair[0])]
    if not named:
        return []
    return [f"ship {' or '.join(named[:3])} instead: {'it passes' if len(named) == 1 else 'they pass'} in this run"]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def not_measured(document: RunDocument) -> list[str]:
    """What was asked for and failed, and what was not asked for."""
    failed = {
        f"{cell.id}: not applicable, as no super weight is known in this model"
        if cell.not_applicable
        else f"{cell.id} {failure.stage}: {failure.reason}: {_line(failure.message)}": None
        for cell in document.cells
        for failure in cell.failures
    }
    unjudged = [
        f"{cell.id} {gate.gate}: {gate.reason or 'not judged'}: {_line(gate.headline)}"
        for cell in document.cells
        for gate in cell.gates
        if gate.verdict == "INFRA" and not _is_explained(cell, gate)
    ]
    return [*failed, *unjudged, *_not_asked(document)]


def _not_asked(document: RunDocument) -> list[str]:
    run = document.run
    if run.left_out and not run.not_asked:  # of a version before 1.3
        return [f"Left out: {line}" for line in run.left_out]
    return [
        f"No {part.role} was run" if part.role else f"Not asked for: {part.recipe or part}" for part in run.not_asked
    ]


def _is_explained(cell: CellDocument, gate: GateResult) -> bool:
    """Whether a failure of the cell tells why a gate was not judged."""
    return any(failure.stage in (gate.gate, gate.details.get("stage")) for failure in cell.failures)


def machine_line(document: RunDocument) -> str:
    """Machine and main libraries in one line."""
    environment = document.run.environment
    names = ("torch", "transformers", "lm-eval", "pytest-superweight")
    versions = [f"{name} {environment[name]}" for name in names if environment.get(name)]
    return " · ".join(part for part in (environment.get("device", ""), *versions) if part)


def _lines(value: Any) -> list[str]:
    """A list of lines, or of whatever else a document holds in its place."""
    return [str(line) for line in value] if isinstance(value, list | tuple) else [str(value)] if value else []


def _line(text: str) -> str:
    return " ".join(text.split())
