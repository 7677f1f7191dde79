"""The first things that anybody asks of a run, in words: the same in HTML, in Markdown and on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from superweight.cards.model import Role
from superweight.evidence.measured import Verdict, ZeroShot
from superweight.report.format import SYMBOLS, difference, margin
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult, unmeasured
from superweight.verdict.result import QUALITY

_WORDS = {"REGRESSION": "must not ship", "INCONCLUSIVE": "not decided", "INFRA": "not measured", "PASS": "may ship"}
_NOT_RELEASED = "passed, but this run releases nothing"
_SEVERITY: tuple[Verdict, ...] = ("REGRESSION", "INFRA", "INCONCLUSIVE", "PASS")
_ROLES: tuple[Role, ...] = ("candidate", "baseline", "control", "reference")
_TRY, _BESIDE, _CHANCE = "try: ", "in this run ", "looks like this by chance"


class Fix(NamedTuple):
    """Something to try, and where it would help."""

    sentence: str
    cells: list[str]


class Reason(NamedTuple):
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
    waived = sum(gate.waiver is not None for cell in document.cells if decides(cell) for gate in cell.gates)
    told = f", with {waived} waived failure{'' if waived == 1 else 's'}" if waived else ""
    return f"{SYMBOLS[document.verdict]} {document.verdict}{_headline(document)}{told}"


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
    found = []
    for model in dict.fromkeys(cell.model for cell in document.cells):
        deciding = [cell for cell in document.cells if cell.model == model and decides(cell)]
        if deciding:
            worst = min(deciding, key=lambda cell: _SEVERITY.index(cell.verdict)).verdict
            driving = [cell for cell in deciding if cell.verdict == worst != "PASS"]
            words = "; ".join(f"{cell.recipe}: {_first(cell)}" for cell in driving[:2])
            more = f"; and {len(driving) - 2} more" if len(driving) > 2 else ""
            said = _WORDS[worst] if worst != "PASS" or releases(document) else _NOT_RELEASED
            found.append(ModelLine(model, worst, f"{said}{f': {words}{more}' if words else ''}"))
    return sorted(found, key=lambda line: _SEVERITY.index(line.verdict))


def _first(cell: CellDocument) -> str:
    return (verdict_reasons(cell) or [cell.argument])[0]


def verdict_reasons(cell: CellDocument) -> list[str]:
    """What drove a cell's verdict, a sentence a gate or failure."""
    same = [gate for gate in cell.gates if gate.verdict == cell.verdict != "PASS" and gate.waiver is None]
    waived = [gate for gate in cell.gates if gate.waiver is not None]
    failed = [
        f"{failure.stage}: {_line(failure.message).removeprefix(f'{failure.stage}: ')} ({failure.reason})"
        for failure in cell.failures
    ]
    said = [_said(gate, cell) for gate in same if not (gate.verdict == "INFRA" and failed)]
    said += failed if cell.verdict == "INFRA" else []
    return said + [f"{_said(gate, cell)}; waived until {(gate.waiver or {}).get('expires')}" for gate in waived]


def _said(gate: GateResult, cell: CellDocument) -> str:
    kind, _, of = gate.gate.partition(":")
    if gate.kind == "super-weights" and gate.value is not None and gate.baseline is not None:
        lost = f"{gate.baseline - gate.value:.0f} of {gate.baseline:.0f} super weights lost"
        return f"{lost}, which it promises to keep" if cell.promises else lost
    if gate.difference is None or gate.margin is None:
        return _line(gate.message.splitlines()[0] if gate.message else gate.gate)
    what = f"{kind} on {of}" if gate.kind == "perplexity" else gate.gate.replace("zero-shot:", "")
    accepted = f"{margin(gate)} is accepted"
    few = " (too few to tell)" if gate.verdict == "INCONCLUSIVE" else ""
    return f"{what} {difference(gate)}, {accepted}{few}"


def reasons(document: RunDocument) -> list[Reason]:
    """Why the run got its verdict, the gravest first; what happened outside any cell comes before."""
    told = {cell.id for cell in document.cells}
    outside = [text for text in document.reasons if text.partition(": ")[0] not in told]
    chance = {text.partition(": ")[0] for text in document.reasons if _CHANCE in text}
    controls = [Reason(cell, [cell.argument]) for cell in failed_controls(document)]
    driving = [cell for cell in document.cells if decides(cell) and (cell.verdict != "PASS" or _waived(cell))]
    driving += [cell for cell in document.cells if cell.role == "reference" and cell.verdict == "INFRA"]
    found = []
    for cell in sorted(driving, key=lambda one: _SEVERITY.index(one.verdict)):
        said = verdict_reasons(cell) or [cell.argument]
        by_chance = "among so many candidates one looks like this by chance: it decides this cell and not the run"
        found.append(Reason(cell, [*said, by_chance] if cell.id in chance else said))
    unvouched = [Reason(cell, [cell.argument]) for cell in silent(document)]
    return [*(Reason(None, [text]) for text in outside), *controls, *found, *unvouched]


def reason_lines(document: RunDocument) -> list[str]:
    """The run's reasons for a terminal, a line each: what several cells have in common is said once."""
    cells = {cell.id for cell in document.cells}
    said: dict[str, list[str]] = {}
    for reason in document.reasons:
        cell, _, text = " ".join(reason.splitlines()).partition(": ")
        whose = (cell, text) if cell in cells else ("", " ".join(reason.splitlines()))
        said.setdefault(whose[1], []).append(whose[0])
    return [f"{_named(names)}{text}" for text, names in said.items()]


def _named(cells: Sequence[str]) -> str:
    more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"{cells[0]}{more}: " if cells[0] else ""


def _waived(cell: CellDocument) -> bool:
    return any(gate.waiver is not None for gate in cell.gates)


def tally(document: RunDocument) -> list[tuple[Role, Verdict, int]]:
    """Role, verdict, and how many cells: what decides comes first."""
    found = Counter((cell.role, cell.verdict) for cell in document.cells)
    ordered = sorted(found.items(), key=lambda one: (_ROLES.index(one[0][0]), _SEVERITY.index(one[0][1])))
    return [(role, verdict, n) for (role, verdict), n in ordered]


def counts(document: RunDocument) -> str:
    """How many cells of which role got which verdict."""
    return ", ".join(f"{n} {role} {verdict}" for role, verdict, n in tally(document))


def in_order(cells: Sequence[CellDocument]) -> list[CellDocument]:
    """Cells as people look for them: by model, what decides first, and the gravest of them first."""
    model_verdicts = list(dict.fromkeys(cell.model for cell in cells))

    def key(cell: CellDocument) -> tuple[int, int, int]:
        return model_verdicts.index(cell.model), _ROLES.index(cell.role), _SEVERITY.index(cell.verdict)

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
    found = [f"{model}: {line}" for model, line in sorted(loading)] + _without_super_weights(document)
    found += [f"{model}, {task}: {line}" for model, task, line in _warnings(document)]
    return found + [
        f"{model}: every answer was computed alone, since {verdict_reasons}" for model, verdict_reasons in sorted(slow)
    ]


def _without_super_weights(document: RunDocument) -> list[str]:
    """Models in which none is known, and what the controls did to them instead."""
    found = []
    for baseline in (cell for cell in document.cells if cell.role == "baseline" and cell.detection is not None):
        if baseline.super_weights:
            continue
        instead = {
            f"{cell.recipe} did {cell.recipe_parameters.get('kind')} instead"
            for cell in document.cells
            if cell.model == baseline.model and cell.stands_in
        }
        said = [f"{baseline.model}: no super weights found, so there are none to lose", *sorted(instead)]
        found.append("; ".join(said))
    return found


def _warnings(document: RunDocument) -> list[tuple[str, str, str]]:
    """Model, task and what is to be known of the task's figures, once each."""
    figures = [(cell.model, task, figure) for cell in document.cells for task, figure in cell.zero_shot.items()]
    found = {(model, task, line) for model, task, figure in figures for line in figure.warnings}
    found |= {(model, task, _left_out(figure)) for model, task, figure in figures if figure.left_out}
    return sorted(found)


def _left_out(figure: ZeroShot) -> str:
    rows = (figure.planned or figure.n) + len(figure.left_out)
    named = [f"row {one.get('doc_id', '?')} {one.get('reason', '')}" for one in figure.left_out[:3]]
    more = f", and {len(figure.left_out) - 3} more" if len(figure.left_out) > 3 else ""
    return f"{len(figure.left_out)} of {rows} rows left out: {'; '.join(named)}{more}"


def suggestions(document: RunDocument) -> list[Fix]:
    """What to try about cells that decide and did not pass: what passes instead, and what their arguments say."""
    found: dict[str, list[str]] = {}
    for cell in document.cells:
        if cell.verdict == "PASS" or not decides(cell):
            continue
        lines = [line for gate in cell.gates for line in gate.message.splitlines() if line.startswith(_TRY)]
        said = [line.removeprefix(_TRY) for line in lines]
        for sentence in [*_instead(cell, document), *(one for one in said if not one.startswith(_BESIDE))]:
            if cell.id not in found.setdefault(_capital(sentence), []):
                found[_capital(sentence)].append(cell.id)
    return [Fix(sentence, cells) for sentence, cells in found.items()]


def _instead(cell: CellDocument, document: RunDocument) -> list[str]:
    """Candidates of the same model that pass, the smallest first."""
    if cell.role != "candidate" or not releases(document):
        return []
    passed = [one for one in document.cells if one.model == cell.model and one.role == "candidate" and one.size]
    passed = [one for one in passed if one.verdict == "PASS" and not _waived(one)]
    named = [
        f"{one.recipe} ({one.size.model_bits_per_weight:.2f} bits per weight)"
        for one in sorted(passed, key=lambda one: one.size.model_bits_per_weight if one.size else 0.0)
        if one.size
    ]
    return (
        [f"ship {' or '.join(named[:3])} instead: {'it passes' if len(named) == 1 else 'they pass'} in this run"]
        if named
        else []
    )


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
        f"{cell.id} {gate.gate}: {gate.reason or 'not judged'}: {_line(gate.message.partition(chr(10))[0])}"
        for cell in document.cells
        for gate in cell.gates
        if gate.verdict == "INFRA" and not _told(cell, gate)
    ]
    asked = [
        f"No {line.split()[1]} was run" if line.startswith("no ") else f"Not asked for: {line.removeprefix('*/')}"
        for line in document.run.left_out
    ]
    return [*failed, *unjudged, *asked]


def _told(cell: CellDocument, gate: GateResult) -> bool:
    """Whether a failure of the cell tells why a gate was not judged."""
    return any(failure.stage in (gate.gate, gate.details.get("stage")) for failure in cell.failures)


def decides(cell: CellDocument) -> bool:
    """Whether a cell's verdict can hold up a release."""
    return cell.role in ("candidate", "baseline")


def machine_line(document: RunDocument) -> str:
    """Machine and main libraries in one line."""
    environment = document.run.environment
    names = ("torch", "transformers", "lm-eval", "pytest-superweight")
    versions = [f"{name} {environment[name]}" for name in names if environment.get(name)]
    return " · ".join(part for part in (environment.get("device", ""), *versions) if part)


def _lines(found: Any) -> list[str]:
    """A list of lines, or of whatever else a document holds in its place."""
    return [str(line) for line in found] if isinstance(found, list | tuple) else [str(found)] if found else []


def _line(text: str) -> str:
    return " ".join(text.split())
