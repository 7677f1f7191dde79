"""Finds the files under tests/data/artefacts, and reads whole matrices out of them scalar by scalar."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

import numpy as np

from superweight.artefact.formats import Decoded, Place, format_of
from superweight.artefact.lint import lint
from superweight.artefact.lint.rule import Subject
from superweight.artefact.reading import open_reader

ARTEFACTS = Path(__file__).parents[1] / "data" / "artefacts"
REFERENCE = ARTEFACTS / "reference"
MODULE = "model.layers.0.mlp.down_proj"
ROWS, COLUMNS = 32, 192
SUPER_WEIGHTS = {(5, 7): 3.1337, (30, 150): -2.7182}


def made(tool):
    """Names of a tool's files, for `pytest.mark.parametrize`."""
    return sorted(path.name for path in (ARTEFACTS / tool).iterdir())


def scalar(path, row, column):
    """What the format that holds the down projection makes of one scalar."""
    artefact = open_reader(path).artefact
    return format_of(artefact, MODULE).scalar(artefact, Place(MODULE, row, column))


def matrix(path):
    """The whole matrix as float32, and the dtypes that its scalars are of."""
    artefact = open_reader(path).artefact
    artefact.raw = functools.cache(artefact.raw)  # a tensor is mapped once, not at every scalar
    held = format_of(artefact, MODULE)
    values, dtypes = np.empty((ROWS, COLUMNS)), set()
    for row, column in np.ndindex(values.shape):
        found = held.scalar(artefact, Place(MODULE, row, column))
        assert isinstance(found, Decoded), found
        values[row, column] = found.value
        dtypes.add(found.dtype)
    assert (values == values.astype("<f4")).all() or np.isnan(values).any()
    return values.astype("<f4"), dtypes


def expect_library(path):
    """Every scalar is what the tool's own decoder made of the file, by the hash that lies beside it."""
    expected = json.loads((path / "expected.json").read_text())
    values, dtypes = matrix(path)
    assert [float(values[row, column]) for row, column, _ in expected["some"]] == [one[2] for one in expected["some"]]
    assert dtypes == {expected["dtype"]}
    assert hashlib.sha256(values.tobytes()).hexdigest() == expected["float32_sha256"]


def faults(path):
    """Ids of the rules that find something, thorough; no rule may be left out."""
    findings, unchecked = lint(Subject(open_reader(path), thorough=True))
    assert not unchecked
    return {finding.rule for finding in findings}
