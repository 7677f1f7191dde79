"""Rules on torchao find metadata, classes and tensors that do not belong to each other."""

import json

import numpy as np
import pytest

from support.edited import edited, tensor
from support.made_artefacts import ARTEFACTS, MODULE, faults, made

FILES = ARTEFACTS / "torchao"
CODES, SCALE, ZERO = (f"{MODULE}._weight_{part}" for part in ("qdata", "scale", "zero_point"))


def said(**changes):
    def change(metadata):
        known = json.loads(metadata[f"{MODULE}.weight"])
        for name, value in changes.items():
            (known if name.startswith("_") else known["_data"])[name] = value
        metadata[f"{MODULE}.weight"] = json.dumps(known)

    return change


def other_config(config):
    config["quantization_config"]["quant_type"]["default"]["_type"] = "Float8WeightOnlyConfig"


@pytest.mark.parametrize("name", made("torchao"))
def test_good_files_are_left_alone(name):
    assert not faults(FILES / name)


@pytest.mark.parametrize(
    ("rule", "name", "changes"),
    [
        ("ao-metadata", "int8", {"metadata": lambda metadata: metadata.pop(f"{MODULE}.weight")}),
        ("ao-metadata", "int8", {"metadata": lambda metadata: metadata.clear()}),
        ("ao-metadata", "int8", {"metadata": lambda metadata: metadata.update(tensor_names="[]")}),
        ("ao-metadata", "int8", {"metadata": lambda metadata: metadata.update(tensor_names="?")}),
        ("ao-missing", "int8", {"drop": [SCALE]}),
        ("ao-missing", "float8", {"drop": [CODES]}),
        ("ao-class", "int8", {"metadata": said(_type="Float8Tensor")}),
        ("ao-class", "float8", {"metadata": said(_type="Int8Tensor")}),
        ("ao-class", "int8", {"metadata": lambda metadata: metadata.update({f"{MODULE}.weight": "{}"})}),
        ("ao-blocks", "int8", {"metadata": said(block_size=[1, 64])}),
        ("ao-blocks", "float8", {"metadata": said(block_size=[1, 64])}),
        ("ao-blocks", "int4-asymmetric", {"put": {ZERO: tensor("I8", np.zeros((32, 3), np.int8))}}),
        ("ao-range", "int3", {"put": {CODES: tensor("I8", np.full((32, 192), 4, np.int8))}}),
        ("ao-zero-point", "int8", {"put": {ZERO: tensor("I8", np.ones((32, 1), np.int8))}}),
        ("ao-config", "int8", {"config": other_config}),
        ("scale-zero", "float8", {"put": {SCALE: tensor("F32", np.zeros((32, 1), np.float32))}}),
        ("scale-negative", "int8", {"put": {SCALE: tensor("F32", -np.ones((32, 1), np.float32))}}),
    ],
)
def test_what_ruins_a_file_is_found(tmp_path, rule, name, changes):
    assert rule in faults(edited(FILES / name, tmp_path / "x", **changes))


def test_zero_points_of_groups_are_used_and_may_be_there(tmp_path):
    put = {ZERO: tensor("I8", np.ones((32, 6), np.int8))}
    assert not faults(edited(FILES / "int8-groups", tmp_path / "x", put=put))
