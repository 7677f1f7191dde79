"""What a check of artefacts found, as text for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from superweight.cards.base import Coordinate
from superweight.evidence.artefact import ArtefactCheck, CheckedWeight, Finding
from superweight.plain_text import visible

_OUTCOMES = {
    "exact": "✓ exact",
    "within-step": "✓ within one step",
    "moved": "✗ moved",
    "lost": "✗ LOST",
    "cannot-tell": "? cannot tell",
}


def check_text(found: ArtefactCheck) -> str:
    """One artefact: what it is, its super weights, its faults, and the answer."""
    about = [
        f"{found.artefact}: {found.format}, {found.bytes / 1e6:,.1f} MB",
        f"beside {found.reference}; super weights by {found.named_by}; promised: {found.promise}"
        if found.reference
        else "the format alone"
        if found.format_only
        else "without a reference: super weights were not looked at",
    ]
    table = tabulate(
        [_row(weight) for weight in found.super_weights],
        headers=["super weight", "original", "in the file", "code", "change", "steps", "", "bits"],
        disable_numparse=True,
    )
    parts = ["\n".join(about), *([table] if found.super_weights else []), *_reasons(found.super_weights)]
    parts += [_finding(finding) for finding in found.findings]
    parts += [f"? {rule} could not be applied: {why}" for rule, why in found.unchecked.items()]
    return visible("\n\n".join([*parts, verdict_line(found)])) + "\n"


def checks_table(found: Sequence[ArtefactCheck], unread: Mapping[str, str] | None = None) -> str:
    """Several artefacts, a line each.

    Args:
        found: those that were checked.
        unread: path → why nothing is known, of those that could not be.
    """
    rows = [
        [
            check.artefact.rpartition("/")[2],
            check.format,
            f"{check.bytes / 1e6:,.1f}",
            *_worst(check.super_weights),
            len([one for one in check.findings if one.severity == "error"]) or "",
            verdict_line(check),
        ]
        for check in found
    ]
    rows += [[path.rpartition("/")[2], "", "", "", "", "", "? could not be checked"] for path in unread or ()]
    headers = ["artefact", "format", "MB", "super weights", "largest change", "faults", ""]
    return visible(tabulate(rows, headers=headers, disable_numparse=True)) + "\n"


def verdict_line(found: ArtefactCheck) -> str:
    """The answer, in a line."""
    if found.answer == "broken":
        return "✗ do not ship: " + ", ".join(_charges(found))
    if found.answer == "kept":
        weights = f"all {len(found.super_weights)} super weights as promised ({found.promise})"
        return "✓ " + ("no fault of the format" if found.format_only else weights)
    if not found.format_only and not found.reference:
        return "? no fault of the format; nothing is known of super weights without --reference"
    untold = sum(weight.outcome == "cannot-tell" for weight in found.super_weights)
    why = [f"{untold} of {len(found.super_weights)} super weights"] if untold else []
    why += ["no super weight was looked for"] if not (found.super_weights or found.format_only) else []
    why += [f"rules that could not be applied ({', '.join(found.unchecked)})"] if found.unchecked else []
    return "? cannot tell: " + ", ".join(why)


def _charges(found: ArtefactCheck) -> list[str]:
    broken = [weight for weight in found.super_weights if not weight.kept and weight.outcome != "cannot-tell"]
    errors = sorted({finding.rule for finding in found.findings if finding.severity == "error"})
    lost = [f"{len(broken)} of {len(found.super_weights)} super weights not as promised"] if broken else []
    return [*lost, *errors]


def _row(weight: CheckedWeight) -> list[str]:
    mark = _OUTCOMES[weight.outcome]
    if weight.outcome not in ("lost", "cannot-tell"):
        mark = ("✓" if weight.kept else "✗") + mark[1:]
    return [
        f"{_where(weight)} {weight.status}".strip(),
        f"{weight.original:.7g}",
        "" if weight.value is None else f"{weight.value:.7g} ({weight.dtype})",
        weight.code,
        "" if weight.change is None else f"{weight.change:+.2%}",
        "" if weight.steps is None else f"{weight.steps:.2f}",
        mark,
        f"{weight.original_bits} → {weight.bits}" if weight.bits else weight.original_bits,
    ]


def _where(weight: Coordinate) -> str:
    return str(weight.coordinate)


def _reasons(weights: Sequence[CheckedWeight]) -> list[str]:
    return list(dict.fromkeys(f"? {_where(one)}: {one.reason}" for one in weights if one.reason))


def _finding(finding: Finding) -> str:
    mark = "✗" if finding.severity == "error" else "!"
    return f"{mark} {finding.rule}: {finding.where}\n  {finding.found}\n  {finding.advice}"


def _worst(weights: Sequence[CheckedWeight]) -> tuple[str, str]:
    kept = sum(weight.kept for weight in weights)
    changes = [abs(weight.change) for weight in weights if weight.change is not None]
    return (f"{kept}/{len(weights)} kept" if weights else "", f"{max(changes):.2%}" if changes else "")
