"""What an adapter that brings super weights back does, as text for the terminal."""

from __future__ import annotations

from pathlib import Path

from tabulate import tabulate

from superweight.evidence.adapter import Exactness, RestoredWeight, RestoringAdapter


def adapter_text(found: RestoringAdapter, path: Path) -> str:
    """What it is for, what it adds, in which arithmetic that is exact, and how it is used."""
    about = [
        f"{path}: rank {found.rank} on {len(found.modules)} modules, {found.bytes / 1e3:,.1f} kB",
        f"for {found.base.path} ({found.base.format}, sha256 {found.base.sha256[:12]}…)",
        f"beside {found.reference}; super weights by {found.named_by}",
    ]
    weights = tabulate(
        [_row(one) for one in found.super_weights],
        headers=["super weight", "original", "in the file", "added", "terms"],
        disable_numparse=True,
    )
    sums = tabulate(
        [_sum(one) for one in found.exactness],
        headers=["base loaded in", "adapter kept in", "exact", "furthest off"],
        disable_numparse=True,
    )
    return "\n\n".join(["\n".join(about), weights, sums, _use(found)]) + "\n"


def _row(one: RestoredWeight) -> list[str]:
    return [
        f"{one.coordinate} {one.status}".strip(),
        f"{one.original:.9g} ({one.original_dtype})",
        f"{one.base:.9g} ({one.base_dtype})",
        f"{one.correction:+.9g}",
        " ".join(f"{part:+.7g}" for part in one.parts) or "none",
    ]


def _sum(one: Exactness) -> list[str]:
    mark = "✓" if one.whole else "✗" if one.required else "–"
    return [one.base, one.adapter, f"{mark} {one.exact} of {one.of}", "" if one.whole else f"{one.worst:.2g}"]


def _use(found: RestoringAdapter) -> str:
    dtypes = sorted({one.base_dtype for one in found.super_weights})
    return (
        f"The base counts as loaded in {' or '.join(dtypes)}, or dequantised when it is loaded (dequantize=True) in "
        "another dtype. Keep the adapter beside it: merged into quantised weights it would be rounded again."
    )
