"""`badge.json`: the verdict as a badge for a README, in the JSON of the Shields endpoint."""

from __future__ import annotations

import json

from superweight.evidence.measured import Verdict
from superweight.report.overview import failed_controls
from superweight.runs.document import RunDocument

_SAID: dict[Verdict, tuple[str, str]] = {
    "PASS": ("may ship", "brightgreen"),
    "REGRESSION": ("must not ship", "red"),
    "INCONCLUSIVE": ("not decided", "yellow"),
    "INFRA": ("not measured", "blueviolet"),
}


def badge(document: RunDocument) -> str:
    """What `https://shields.io/badges/endpoint-badge` reads; a run of a part of its tier says so."""
    message, colour = _SAID[document.verdict]
    if document.verdict == "PASS" and document.run.left_out:
        message, colour = "passed in part", "yellow"
    if failed_controls(document):
        message = "gate failed its check"
    if document.doubts:
        message = "evidence damaged"
    label = f"compression gate ({document.run.tier})"
    said = {"schemaVersion": 1, "label": label, "message": message, "color": colour}
    return json.dumps(said | ({"isError": True} if document.verdict == "INFRA" else {})) + "\n"
