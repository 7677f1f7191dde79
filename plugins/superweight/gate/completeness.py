"""What of its tier a run did not measure, and whether the tier requires it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from superweight.cards import Cell
from superweight.gate.plan import Plan, gate_name, tier_recipes
from superweight.ids import CellId
from superweight.runs.document import LeftOut

if TYPE_CHECKING:
    from superweight.cards import Role
    from superweight.evidence import CellEvidence


def left_out(plan: Plan, evidence: Mapping[str, CellEvidence]) -> list[LeftOut]:
    """What of the tier is not measured on the models of this run, so that a part is not taken for the whole.

    Args:
        plan: what was asked.
        evidence: of every cell that was measured, by id.

    """
    asked = [cell for cell in plan.cells if cell.model.id in plan.requested_models]
    gates = [(cell.id, gate_name(entry)) for cell in asked for entry in plan.entries]
    parts = [LeftOut(cell=cell, gate=gate) for cell, gate in gates if (cell, gate) not in plan.requested_gates]
    parts += [part for cell in asked for part in _unchecked(cell, evidence.get(cell.id))]
    present = {cell.recipe.id for cell in asked}
    absent = [recipe.id for recipe in tier_recipes(plan.library, plan.tier) if recipe.id not in present]
    roles: tuple[Role, ...] = ("candidate", "control")
    missing = [role for role in roles if role not in {cell.role for cell in asked}]
    return parts + [LeftOut(recipe=recipe) for recipe in absent] + [LeftOut(role=role) for role in missing]


def missing_required(plan: Plan, evidence: Mapping[str, CellEvidence]) -> list[str]:
    """What the tier requires and this run did not measure, in words: a green run must have seen it.

    Args:
        plan: what was asked.
        evidence: of every cell that was measured, by id.

    """
    tier = plan.tier
    problems = [
        f"{cell}: the {tier.id} tier requires this cell, and it was not measured: deselected, skipped or "
        "left out by an option"
        for cell in tier.missing(evidence)
    ]
    required = set(tier.required_of(dict.fromkeys(CellId.parse(cell).model for cell in evidence)))
    return problems + [
        f"{part}: the {tier.id} tier requires this cell whole, and this was not asked for"
        for part in left_out(plan, evidence)
        if part.cell in required
    ]


def _unchecked(cell: Cell, found: CellEvidence | None) -> Iterable[LeftOut]:
    """Detection or integrity of a cell, if it was neither measured nor tried."""
    tried = set() if found is None else {failure.stage for failure in found.failures}
    if cell.role == "baseline":
        if "detection" not in tried and (found is None or found.detection is None):
            yield LeftOut(cell=cell.id, gate="detection")
    elif "sanity" not in tried and (found is None or found.sanity is None):
        yield LeftOut(cell=cell.id, gate="sanity")
