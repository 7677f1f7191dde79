"""What `superweight baseline` says of a run that became the release baseline, or did not."""

from __future__ import annotations

from superweight.report.comparison_text import comparison_text
from superweight.runs.release_baselines import Promotion


def promotion_text(promotion: Promotion) -> str:
    """For a terminal: what speaks against the run, what changes against the baselines until now, and the new files."""
    lines = [f"{promotion.run}: {objection}" for objection in promotion.objections]
    if not promotion.promoted:
        return "\n".join([*lines, "not promoted; --force promotes it all the same", ""])
    lines += [f"{error} Replaced." for error in promotion.unreadable]
    if promotion.comparison is not None:
        lines.append(comparison_text(promotion.comparison))
    lines += [f"{each.model} in the {each.tier} tier: {each.path}" for each in promotion.promoted]
    return "\n".join([*lines, "commit it to keep it", ""])
