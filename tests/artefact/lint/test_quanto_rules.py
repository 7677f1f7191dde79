"""Rules on optimum-quanto find where its loader would leave memory as it comes."""

import numpy as np
import pytest

from support.edited import array, edited, read_safetensors, tensor
from support.made_artefacts import ARTEFACTS, MODULE, faults, made

FILES = ARTEFACTS / "quanto"
W = f"{MODULE}.weight"


def stored(name, part, kind):
    return array(read_safetensors(FILES / name / "model.safetensors")[0][f"{W}.{part}"], kind)


def mapped(change):
    return {"other": {"quanto_qmap.json": change}}


def typed(kind):
    return mapped(lambda known: known[MODULE].update(weights=kind))


def zeros(shape):
    return tensor("BF16", np.zeros(shape, np.uint16))


@pytest.mark.parametrize("name", made("quanto"))
def test_good_files_are_left_alone(name):
    assert not faults(FILES / name)


@pytest.mark.parametrize(
    ("rule", "name", "changes"),
    [
        ("quanto-not-named", "qint8", mapped(lambda known: known.clear())),
        ("quanto-not-named", "qint4", typed("none")),
        ("quanto-absent", "qint8", mapped(lambda known: known.update({"model.layers.1.mlp.up_proj": known[MODULE]}))),
        ("quanto-absent", "qint8", {"drop": [f"{W}._data"]}),
        ("quanto-missing", "qint8", {"drop": [f"{W}._scale"]}),
        ("quanto-missing", "qint4", {"drop": [f"{W}._shift"]}),
        ("quanto-type", "qint8", typed("qint4")),
        ("quanto-type", "qint8", typed("qfloat8_e4m3fn")),
        ("quanto-type", "qfloat8", typed("qfloat8_e5m2")),
        ("quanto-type", "qint4", typed("qint8")),
        ("quanto-shape", "qint4", typed("qint2")),
        ("quanto-shape", "qint8", {"put": {f"{W}._scale": zeros((1, 1))}}),
        ("quanto-shape", "qint4", {"put": {f"{W}._shift": zeros((32, 1))}}),
        ("quanto-unfrozen", "qint8", {"put": {W: zeros((32, 192))}, "drop": [f"{W}._data"]}),
        ("quanto-scale-zero", "qint8", {"put": {f"{W}._scale": zeros((32, 1))}}),
        ("quanto-scale-zero", "qfloat8", {"put": {f"{W}._scale": zeros((32, 1))}}),
    ],
)
def test_what_ruins_a_file_is_found(tmp_path, rule, name, changes):
    assert rule in faults(edited(FILES / name, tmp_path / "x", **changes))


def test_a_file_without_its_map_is_found(tmp_path):
    path = edited(FILES / "qint8", tmp_path / "x")
    (path / "quanto_qmap.json").unlink()
    assert faults(path) == {"quanto-map"}


def test_a_row_of_zeros_in_integers_has_a_scale_of_zero(tmp_path):
    """As quanto writes it; a row of zeros in float8 becomes NaN, which is found."""
    codes, scales = stored("qint8", "_data", np.int8), stored("qint8", "_scale", np.uint16)
    codes[3], scales[3] = 0, 0
    put = {f"{W}._data": tensor("I8", codes), f"{W}._scale": tensor("BF16", scales)}
    assert not faults(edited(FILES / "qint8", tmp_path / "integers", put=put))
    codes, scales = stored("qfloat8", "_data", np.uint8), stored("qfloat8", "_scale", np.uint16)
    codes[3], scales[3] = 0x7F, 0
    put = {f"{W}._data": tensor("F8_E4M3", codes), f"{W}._scale": tensor("BF16", scales)}
    assert "quanto-scale-zero" in faults(edited(FILES / "qfloat8", tmp_path / "floats", put=put))
