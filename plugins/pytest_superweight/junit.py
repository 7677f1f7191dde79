"""The figures in `--junitxml`, as properties of the suite: those of single tests break the xunit2 schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from superweight.report import RunDocument


def add_properties(config: pytest.Config, document: RunDocument) -> None:
    """Hand the run's figures to pytest's JUnit writer, if there is one in this process."""
    from _pytest.junitxml import xml_key  # the public fixture is per test session and unknown to xdist's controller

    writer = config.stash.get(xml_key, None)
    if writer is not None:
        for name, value in properties(document):
            writer.add_global_property(name, value)


def properties(document: RunDocument) -> Iterator[tuple[str, str]]:
    """Names and values: the run's verdict, each cell's, and each gate's with its figures."""
    yield "superweight.verdict", document.verdict
    for cell in document.cells:
        yield f"superweight.{cell.id}", cell.verdict
        for gate in cell.gates:
            figures = {
                "value": gate.value,
                "baseline": gate.baseline,
                "difference": gate.difference,
                "low": gate.interval and gate.interval[0],
                "high": gate.interval and gate.interval[1],
                "margin": gate.margin,
                "n": gate.n,
                "planned": gate.planned,
            }
            told = [f"{name}={value!r}" for name, value in figures.items() if value is not None]
            waived = [f"waived={gate.waiver['ticket']!r} until={gate.waiver['expires']!r}"] if gate.waiver else []
            yield f"superweight.{cell.id}.{gate.gate}", " ".join([gate.verdict, *told, *waived])
