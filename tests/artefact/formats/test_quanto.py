"""Scalars of optimum-quanto's files are what the loaded tensor dequantises to, to the bit."""

import numpy as np
import pytest

from superweight.artefact.check import check
from superweight.artefact.formats.quanto import group_size
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell
from support.edited import array, edited, read_safetensors, tensor
from support.made_artefacts import ARTEFACTS, MODULE, REFERENCE, SUPER_WEIGHTS, expect_library, made, scalar

FILES = ARTEFACTS / "quanto"
W = f"{MODULE}.weight"


def stored(name, part, kind):
    return array(read_safetensors(FILES / name / "model.safetensors")[0][f"{W}.{part}"], kind)


def typed(kind):
    return {"quanto_qmap.json": lambda known: known[MODULE].update(weights=kind)}


@pytest.mark.parametrize("name", made("quanto"))
def test_the_whole_matrix_is_what_the_library_decodes(name):
    expect_library(FILES / name)


@pytest.mark.parametrize("name", made("quanto"))
def test_super_weights_are_within_a_step(name):
    where = {Coordinate(layer=0, row=row, column=column): "listed" for row, column in SUPER_WEIGHTS}
    found = check(open_reader(FILES / name), open_reader(REFERENCE), where, Promise.of("within-step"))
    assert {weight.outcome for weight in found.super_weights} <= {"exact", "within-step"}
    assert not found.broken


def test_int4_shares_bytes_between_groups_half_of_all_apart():
    """[30, 150] by hand: n = 30 · 192 + 150 = 5910, group 61 of 64, element 54; group 61 is the high half of row 29."""
    code = stored("qint4-float32", "_data._data", np.uint8)[61 - 32, 54] >> 4
    scale, shift = (stored("qint4-float32", part, np.float32)[61, 0] for part in ("_scale", "_shift"))
    assert scalar(FILES / "qint4-float32", 30, 150).value == float(np.float32(scale * np.float32(code)) - shift)


@pytest.mark.parametrize(
    ("columns", "size"), [(64, 0), (128, 0), (192, 96), (1536, 128), (160, 32), (1376, 32), (200, 0), (576, 96)]
)
def test_groups_are_as_large_as_quanto_makes_them(columns, size):
    assert group_size(columns) == size


@pytest.mark.parametrize(
    ("name", "kind"),
    [("qint8", "qint4"), ("qint8", "qfloat8_e4m3fn"), ("qint4", "qint2"), ("qint4", "qint8"), ("qint8", "qint3"),
     ("qint8", "none"), ("qfloat8", "qfloat8_e4m3fnuz"), ("qfloat8", "qfloat8_e5m2"), ("qint8", 8)],
)  # fmt: skip
def test_a_map_of_another_type_cannot_be_told(tmp_path, name, kind):
    assert isinstance(scalar(edited(FILES / name, tmp_path / "x", other=typed(kind)), 5, 7), CannotTell)


def test_a_module_that_the_map_does_not_name_stays_unloaded(tmp_path):
    path = edited(FILES / "qint8", tmp_path / "x", other={"quanto_qmap.json": lambda known: known.clear()})
    found = scalar(path, 5, 7)
    assert isinstance(found, CannotTell)
    assert "unloaded" in found.reason


def test_without_the_map_nothing_is_guessed(tmp_path):
    path = edited(FILES / "qint8", tmp_path / "x")
    (path / "quanto_qmap.json").unlink()
    with pytest.raises(InfraError, match="does not know what is quantised"):
        scalar(path, 5, 7)


@pytest.mark.parametrize("leaf", ["_scale", "_shift"])
def test_a_missing_part_cannot_be_told(tmp_path, leaf):
    assert isinstance(scalar(edited(FILES / "qint4", tmp_path / "x", drop=[f"{W}.{leaf}"]), 5, 7), CannotTell)


def test_a_width_that_does_not_fit_the_groups_cannot_be_told(tmp_path):
    for number, rows in enumerate((None, 33, 64, 16)):
        path = edited(
            FILES / "qint4", tmp_path / str(number), config=lambda said, rows=rows: said.update(hidden_size=rows)
        )
        assert isinstance(scalar(path, 5, 7), CannotTell)


def test_shifts_that_are_whole_numbers_come_off_before_scaling(tmp_path):
    shifts = tensor("U8", np.full((64, 1), 3, np.uint8))
    found = scalar(edited(FILES / "qint4-float32", tmp_path / "x", put={f"{W}._shift": shifts}), 30, 150)
    code = stored("qint4-float32", "_data._data", np.uint8)[61 - 32, 54] >> 4
    assert found.value == float((int(code) - 3) * stored("qint4-float32", "_scale", np.float32)[61, 0])


@pytest.mark.parametrize("name", ["qint8", "qint4"])
@pytest.mark.parametrize(("row", "column"), [(32, 0), (0, 192)])
def test_outside_the_matrix_is_nothing(name, row, column):
    assert isinstance(scalar(FILES / name, row, column), CannotTell)
