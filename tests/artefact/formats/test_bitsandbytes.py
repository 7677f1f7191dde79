"""Scalars of bitsandbytes files are what the library decodes, to the bit; what cannot be decoded is not guessed."""

import json
import re

import numpy as np
import pytest

from superweight.artefact.check import check
from superweight.artefact.formats import Decoded, Place, format_of
from superweight.artefact.formats.bitsandbytes_state import TABLES
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell
from support.edited import array, edited, read_safetensors, tensor
from support.made_artefacts import ARTEFACTS, MODULE, REFERENCE, SUPER_WEIGHTS, expect_library, made, scalar

FILES = ARTEFACTS / "bitsandbytes"
W = f"{MODULE}.weight"
STATE = f"{W}.quant_state.bitsandbytes__nf4"
WHERE = {Coordinate(layer=0, row=row, column=column): "listed" for row, column in SUPER_WEIGHTS}


def checked(path, promise="within-step"):
    return check(open_reader(path), open_reader(REFERENCE), WHERE, Promise.of(promise))


def state(**changes):
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [32, 192]} | changes
    return tensor("U8", np.frombuffer(json.dumps(said).encode(), np.uint8))


def stored(name, part, kind):
    return array(read_safetensors(FILES / name / "model.safetensors")[0][part], kind)


@pytest.mark.parametrize("name", made("bitsandbytes"))
def test_the_whole_matrix_is_what_the_library_decodes(name):
    expect_library(FILES / name)


@pytest.mark.parametrize("name", [name for name in made("bitsandbytes") if name not in ("nf4-forward", "fp4-forward")])
def test_super_weights_of_good_files_are_within_a_step(name):
    assert {weight.outcome for weight in checked(FILES / name).super_weights} <= {"exact", "within-step"}


def test_a_block_whose_largest_is_the_super_weight_keeps_it_exactly():
    assert not checked(FILES / "nf4-float32", "exact").broken


@pytest.mark.parametrize("name", ["nf4-forward", "fp4-forward"])
def test_super_weights_of_a_file_saved_after_a_forward_pass_are_lost(name):
    found = checked(FILES / name)
    assert {weight.outcome for weight in found.super_weights} == {"lost"}
    assert {"bnb-absmax-shape", "bnb-absmax-dtype"} <= {finding.rule for finding in found.findings}
    assert found.broken


def test_a_code_is_a_share_of_its_block():
    """Element n: high half of byte n // 2 for even n, block n // 64; by hand for [5, 7], n = 5 · 192 + 7 = 967."""
    byte = stored("nf4-float32", W, np.uint8).reshape(-1)[967 // 2]
    scale = stored("nf4-float32", f"{W}.absmax", np.float32)[967 // 64]
    assert scalar(FILES / "nf4-float32", 5, 7).value == float(np.float32(TABLES["nf4"][byte & 15]) * scale)
    assert scalar(FILES / "nf4-float32", 5, 7).value == float(np.float32(3.1337))


def test_steps_are_those_of_the_uneven_grid():
    found = scalar(FILES / "nf4-float32", 5, 7)
    assert found.code == "15 of 0 to 15"
    assert found.upper == float("inf")
    assert found.lower == pytest.approx((1 - 0.7229568362236023) * 3.1337, rel=1e-6)


def test_a_large_file_is_not_read():
    reader = open_reader(FILES / "nf4-nested")
    reader.scalar(Coordinate(layer=0, row=5, column=7))
    assert reader.read < 500


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (f"{W}.absmax", "missing"),
        (f"{W}.nested_absmax", "no .*nested_absmax"),
        (f"{W}.nested_quant_map", "do not fit"),
    ],
)
def test_a_missing_part_cannot_be_told(tmp_path, part, why):
    found = scalar(edited(FILES / "nf4-nested", tmp_path / "x", drop=[part]), 5, 7)
    assert isinstance(found, CannotTell)
    assert re.search(why, found.reason)


def test_without_its_state_nothing_is_guessed(tmp_path):
    with pytest.raises(InfraError, match="4-bit codes cannot be read"):
        scalar(edited(FILES / "nf4", tmp_path / "x", drop=[STATE]), 5, 7)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocksize": 0},
        {"blocksize": 48},
        {"blocksize": "many"},
        {"quant_type": "nf3"},
        {"dtype": "int8"},
        {"shape": [6144]},
        {"shape": None},
        {"shape": [0, 192]},
        {"shape": [-32, -192]},
    ],
)
def test_a_state_that_bitsandbytes_would_not_take_is_refused(tmp_path, changes):
    with pytest.raises(InfraError, match="should be JSON with"):
        scalar(edited(FILES / "nf4", tmp_path / "x", put={STATE: state(**changes)}), 5, 7)


@pytest.mark.parametrize("shape", [[64, 192], [32, 96], [10**9, 10**9]])
def test_a_state_of_another_size_cannot_be_told(tmp_path, shape):
    assert isinstance(scalar(edited(FILES / "nf4", tmp_path / "x", put={STATE: state(shape=shape)}), 5, 7), CannotTell)


def test_another_table_cannot_be_told_as_kernels_differ(tmp_path):
    table = tensor("F32", np.array(TABLES["nf4"][::-1], np.float32))
    found = scalar(edited(FILES / "nf4", tmp_path / "x", put={f"{W}.quant_map": table}), 5, 7)
    assert isinstance(found, CannotTell)
    assert "kernel" in found.reason


def test_int8_without_scales_is_not_taken_for_plain_numbers(tmp_path):
    found = scalar(edited(FILES / "int8", tmp_path / "x", drop=[f"{MODULE}.SCB"]), 5, 7)
    assert isinstance(found, CannotTell)


def test_int8_that_does_not_lie_by_rows_cannot_be_told(tmp_path):
    other = {f"{MODULE}.weight_format": tensor("U8", np.array(2, np.uint8))}
    assert isinstance(scalar(edited(FILES / "int8", tmp_path / "x", put=other), 5, 7), CannotTell)


def test_packed_bytes_in_bfloat16_without_their_parts_are_no_dense_matrix(tmp_path):
    parts = [f"{W}.absmax", f"{W}.quant_map", STATE]
    artefact = open_reader(edited(FILES / "nf4-storage", tmp_path / "x", drop=parts)).artefact
    with pytest.raises(InfraError):
        format_of(artefact, MODULE).scalar(artefact, Place(MODULE, 5, 0))


@pytest.mark.parametrize("name", ["nf4", "int8"])
@pytest.mark.parametrize(("row", "column"), [(32, 0), (0, 192), (10**9, 0)])
def test_outside_the_matrix_is_nothing(name, row, column):
    assert isinstance(scalar(FILES / name, row, column), CannotTell)


@pytest.mark.parametrize("offset", [0.1234567, -0.01, 0.7])
def test_nested_scales_of_bfloat16_round_twice(tmp_path, offset):
    """As torch adds a float32 number to a bfloat16 tensor in place: both rounded, and their sum."""
    torch = pytest.importorskip("torch")
    said = {"nested_blocksize": 256, "nested_dtype": "bfloat16", "nested_offset": offset, "dtype": "float32"}
    found = scalar(edited(FILES / "nf4-nested", tmp_path / "x", put={STATE: state(**said)}), 5, 7)
    code = stored("nf4-nested", f"{W}.absmax", np.uint8)[967 // 64]
    share = stored("nf4-nested", f"{W}.nested_quant_map", np.float32)[code]
    scale = torch.tensor([share * stored("nf4-nested", f"{W}.nested_absmax", np.float32)[0]]).bfloat16()
    scale += torch.tensor(offset)
    assert isinstance(found, Decoded)
    assert found.value == float(scale.float())  # code 15 is all of the scale
