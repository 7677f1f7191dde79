"""Scalars of torchao files are what `dequantize` of their classes gives, to the bit."""

import json
import re

import numpy as np
import pytest

from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell
from support.edited import array, edited, read_safetensors, tensor
from support.made_artefacts import ARTEFACTS, MODULE, REFERENCE, SUPER_WEIGHTS, expect_library, made, scalar

FILES = ARTEFACTS / "torchao"
CODES, SCALE, ZERO = (f"{MODULE}._weight_{part}" for part in ("qdata", "scale", "zero_point"))


def said(**changes):
    """Change attributes in the metadata; `_type` is the class."""

    def change(metadata):
        known = json.loads(metadata[f"{MODULE}.weight"])
        for name, value in changes.items():
            (known if name.startswith("_") else known["_data"])[name] = value
        metadata[f"{MODULE}.weight"] = json.dumps(known)

    return change


def stored(name, part, kind):
    return array(read_safetensors(FILES / name / "model.safetensors")[0][part], kind)


@pytest.mark.parametrize("name", made("torchao"))
def test_the_whole_matrix_is_what_the_library_decodes(name):
    expect_library(FILES / name)


@pytest.mark.parametrize("name", made("torchao"))
def test_super_weights_are_within_a_step(name):
    where = {Coordinate(layer=0, row=row, column=column): "listed" for row, column in SUPER_WEIGHTS}
    found = check(open_reader(FILES / name), open_reader(REFERENCE), where, Promise.of("within-step"))
    assert {weight.outcome for weight in found.super_weights} <= {"exact", "within-step"}
    assert not found.broken


def test_an_element_is_code_less_zero_point_times_scale_of_its_group():
    """By hand for [5, 7] of groups of 32, in float32; the file rounds the product to bfloat16."""
    code, zero = (int(stored("int4-asymmetric", part, np.int8)[5, at]) for part, at in ((CODES, 7), (ZERO, 0)))
    scale = (stored("int4-asymmetric", SCALE, np.uint16)[5, 0].astype(np.uint32) << 16).view(np.float32)
    assert scalar(FILES / "int4-asymmetric", 5, 7).value == pytest.approx(float((code - zero) * scale), rel=2**-8)


def test_a_step_is_the_scale_even_where_bfloat16_rounds_neighbours_closer():
    assert scalar(FILES / "int8", 5, 7).lower >= float(stored("int8", SCALE, np.float32)[5, 0]) * 0.999


def test_words_tell_class_bits_grid_and_activations():
    def about(name):
        return open_reader(FILES / name).about

    assert about("int3") == "torchao IntxUnpackedToInt8Tensor, 3 bits, a scale a row"
    assert about("int8-groups") == "torchao Int8Tensor, groups of 32"
    assert about("int8-dynamic") == "torchao Int8Tensor, a scale a row, activations quantised as they come"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (said(_type="Int4TilePackedTo4dTensor"), "kernels of one device"),
        (said(_type="NVFP4Tensor"), "kernels of one device"),
        (said(_type="Float8Tensor"), "asks for F8"),
        (said(block_size=[1, 64]), "blocks of"),
        (said(block_size=[]), "the blocks"),
        (said(dtype={"_type": "torch.dtype", "_data": "int8"}), "which dtype"),
        (said(_tensor_data_names=["qdata", "scale", "zero_point", "act_pre_scale"]), "act_pre_scale"),
    ],
)
def test_what_the_metadata_does_not_tell_cannot_be_told(tmp_path, change, why):
    found = scalar(edited(FILES / "int8", tmp_path / "x", metadata=change), 5, 7)
    assert isinstance(found, CannotTell)
    assert re.search(why, found.reason)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata.pop(f"{MODULE}.weight"),
        lambda metadata: metadata.update({f"{MODULE}.weight": "{"}),
        lambda metadata: metadata.update({f"{MODULE}.weight": "[]"}),
        lambda metadata: metadata.update({f"{MODULE}.weight": '{"_type": "Tensor"}'}),
        said(block_size="wide"),
        said(target_dtype={"_type": "torch.dtype", "_data": "int900"}),
    ],
)
def test_metadata_that_cannot_be_read_is_refused(tmp_path, change):
    with pytest.raises(InfraError, match=r"metadata"):
        scalar(edited(FILES / "int8", tmp_path / "x", metadata=change), 5, 7)


@pytest.mark.parametrize("part", [SCALE, ZERO])
def test_a_part_that_is_promised_and_missing_cannot_be_told(tmp_path, part):
    found = scalar(edited(FILES / "int8", tmp_path / "x", drop=[part]), 5, 7)
    assert isinstance(found, CannotTell)
    assert part in found.reason


def test_zero_points_that_torchao_decodes_with_and_multiplies_without_cannot_be_told(tmp_path):
    path = edited(FILES / "int8", tmp_path / "x", put={ZERO: tensor("I8", np.full((32, 1), 5, np.int8))})
    assert isinstance(scalar(path, 5, 7), CannotTell)


@pytest.mark.parametrize(("row", "column"), [(32, 0), (0, 192)])
def test_outside_the_matrix_is_nothing(row, column):
    assert isinstance(scalar(FILES / "float8", row, column), CannotTell)
