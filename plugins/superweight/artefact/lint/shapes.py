"""Scales and codes of a shape that their matrix does not have."""

from __future__ import annotations

from collections.abc import Iterator

from superweight.artefact.container import Artefact
from superweight.artefact.lint.rule import Fault, Rule, Subject

_ADVICE = "Quantise this layer again: its scales and codes are not of the same matrix."


def _scale_shape(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None:
        return
    yield from subject.format_faults("scale-shape", _ADVICE)
    for module, here in artefact.leaves.items():
        if "weight_scale_inv" in here and "weight" in here:
            yield from _blocks(artefact, module)


def _blocks(artefact: Artefact, module: str) -> Iterator[Fault]:
    """float8 with a scale for each block of rows and columns."""
    here = artefact.leaves[module]
    shape, found = here["weight"].shape, here["weight_scale_inv"].shape
    block = artefact.settings.get("weight_block_size")
    if len(shape) != 2 or not isinstance(block, list) or not all(type(side) is int and side > 0 for side in block):
        return
    expected = tuple(-(-size // side) for size, side in zip(shape, block, strict=False))
    if found != expected:
        file = here["weight_scale_inv"].file.name
        yield Fault(
            f"{file}: {module}.weight_scale_inv", f"expected {expected} for a matrix {shape}, found {found}", _ADVICE
        )


RULES = (Rule("scale-shape", "Scales of another layer's size multiply the wrong weights.", "error", _scale_shape),)
