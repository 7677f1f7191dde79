"""Rules on scales, whatever format they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from superweight.artefact.formats.awq import unpadded
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.numbers import TORCH

_SCALES = (
    *(".weight_scale", ".scales", ".absmax", ".SCB", ".weight_scale_inv", ".weight_block_scale"),
    *(".nested_absmax", "._weight_scale", ".weight._scale"),
    *(".weight_global_scale", ".input_scale", ".output_scale", ".k_scale", ".v_scale"),
)
_UNSIGNED = (
    *(".absmax", ".nested_absmax", ".SCB", ".weight_scale_inv", "._weight_scale", ".weight._scale"),
    *(".weight_global_scale", ".input_scale", ".output_scale", ".k_scale", ".v_scale"),
)
"""Scales that no tool here writes negative; auto-round's GPTQ and compressed-tensors scales carry a sign on purpose."""
_ZERO_IF_EMPTY = (".absmax", ".nested_absmax", ".SCB", ".weight._scale")
"""Scales that are zero where all their weights are; rules of their own look at the codes under them."""


def _not_finite(subject: Subject) -> Iterator[Fault]:
    for name, values in _values(subject, _SCALES):
        if bad := int((~np.isfinite(values)).sum()):
            yield _fault(subject, name, f"{bad} of {values.size} scales are NaN or infinite")


def _zero(subject: Subject) -> Iterator[Fault]:
    for name, values in _values(subject, tuple(ending for ending in _SCALES if ending not in _ZERO_IF_EMPTY)):
        if bad := int((values == 0).sum()):
            yield _fault(subject, name, f"{bad} of {values.size} scales are zero, which makes their weights zero")


def _negative(subject: Subject) -> Iterator[Fault]:
    for name, values in _values(subject, _UNSIGNED):
        if bad := int((values < 0).sum()):
            yield _fault(subject, name, f"{bad} of {values.size} scales are negative, where the format has none")


def _values(subject: Subject, endings: tuple[str, ...]) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    artefact = subject.artefact
    if artefact is None:
        return
    scales = [name for name, info in artefact.tensors.items() if name.endswith(endings) and info.dtype in TORCH]
    for name, values in subject.content(scales):
        yield name, unpadded(artefact, name, values)


def _fault(subject: Subject, name: str, found: str) -> Fault:
    assert subject.artefact is not None
    file = subject.artefact.tensors[name].file.name
    return Fault(f"{file}: {name}", f"expected positive numbers; {found}", "Quantise again; compare with a fresh load.")


RULES = (
    Rule("scale-not-finite", "A scale of NaN or infinity makes every weight under it so.", "error", _not_finite),
    Rule("scale-zero", "A scale of zero erases every weight under it.", "error", _zero),
    Rule("scale-negative", "A negative scale turns the sign of every weight under it.", "error", _negative),
)
