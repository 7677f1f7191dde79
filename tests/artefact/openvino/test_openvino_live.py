"""What NNCF compresses now, in every mode, read as OpenVINO's runtime multiplies with it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from superweight.artefact.openvino import IrReader
from superweight.cards.base import Coordinate
from superweight.forward.runner import CannotTell

pytestmark = pytest.mark.quantisers
GROUPS = {"group_size": 32, "all_layers": True}
MODES = {
    "int8_asym": {}, "int8_sym": {}, "int4_sym": GROUPS, "int4_asym": GROUPS, "int2_sym": GROUPS, "nf4": GROUPS,
    "cb4": GROUPS, "fp4": GROUPS, "fp8_e4m3": {"group_size": 32}, "mxfp8_e4m3": {}, "mxfp4": {"all_layers": True},
    "nvfp4": {"all_layers": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def made():
    """The script that made the files that are kept."""
    sys.path.insert(0, str(Path(__file__).parents[2] / "data" / "artefacts"))
    try:
        import make_openvino
    finally:
        sys.path.pop(0)
    return make_openvino


def assert_read_as_used(made, model, path):
    import openvino

    openvino.save_model(model, path, compress_to_fp16=False)
    expected, reader = made.used(path), IrReader(path)
    for row in range(made.ROWS):
        for column in range(made.COLUMNS):
            held = reader.scalar(Coordinate(layer=made.LAYER, row=row, column=column))
            assert np.float32(held.decoded.value) == expected[row, column]


@pytest.mark.parametrize("mode", MODES)
def test_every_mode(mode, made, tmp_path):
    import nncf

    model = nncf.compress_weights(made.converted(made.original()), mode=nncf.CompressWeightsMode(mode), **MODES[mode])
    assert_read_as_used(made, model, tmp_path / "a.xml")


def test_without_compression_and_with_smoothing(made, tmp_path):
    assert_read_as_used(made, made.converted(made.original()), tmp_path / "a.xml")
    assert_read_as_used(made, made.smooth(made.original()), tmp_path / "b.xml")


def test_three_bits_cannot_be_told(made, tmp_path):
    import nncf
    import openvino

    model = nncf.compress_weights(made.converted(made.original()), mode=nncf.CompressWeightsMode.INT3_SYM, **GROUPS)
    openvino.save_model(model, tmp_path / "a.xml", compress_to_fp16=False)
    found = IrReader(tmp_path / "a.xml").scalar(Coordinate(layer=made.LAYER, row=0, column=0))
    assert isinstance(found, CannotTell)
