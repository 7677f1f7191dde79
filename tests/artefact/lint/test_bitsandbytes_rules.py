"""Rules on bitsandbytes find what they are for, in files that the tool ruined or that are changed to be so."""

import json

import numpy as np
import pytest

from support.edited import array, edited, read_safetensors, tensor
from support.made_artefacts import ARTEFACTS, MODULE, faults, made

FILES = ARTEFACTS / "bitsandbytes"
W = f"{MODULE}.weight"
STATE = f"{W}.quant_state.bitsandbytes__nf4"
RUINED = ("nf4-forward", "fp4-forward")


def state(**changes):
    said = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [32, 192]} | changes
    return tensor("U8", np.frombuffer(json.dumps(said).encode(), np.uint8))


def stored(name, part, kind):
    return array(read_safetensors(FILES / name / "model.safetensors")[0][part], kind)


def settings(**changes):
    return lambda config: config["quantization_config"].update(changes)


@pytest.mark.parametrize("name", [name for name in made("bitsandbytes") if name not in RUINED])
def test_good_files_are_left_alone(name):
    assert not faults(FILES / name)


@pytest.mark.parametrize("name", RUINED)
def test_a_file_saved_after_a_forward_pass_is_found(name):
    assert faults(FILES / name) == {"bnb-absmax-shape", "bnb-absmax-dtype"}


SCALES = stored("nf4", f"{W}.absmax", np.float32)
EMPTY = SCALES * (np.arange(96) != 7)


@pytest.mark.parametrize(
    ("rule", "name", "changes"),
    [
        ("bnb-absmax-shape", "nf4", {"put": {f"{W}.absmax": tensor("F32", SCALES[:90])}}),
        ("bnb-absmax-shape", "nf4", {"put": {f"{W}.absmax": tensor("F32", SCALES.reshape(32, 3).T)}}),
        ("bnb-absmax-dtype", "nf4", {"put": {f"{W}.absmax": tensor("F16", SCALES.astype(np.float16))}}),
        ("bnb-absmax-dtype", "nf4-nested", {"put": {f"{W}.absmax": tensor("F32", SCALES)}}),
        ("bnb-state", "nf4", {"drop": [STATE]}),
        ("bnb-state", "nf4", {"put": {STATE: tensor("U8", np.zeros(9, np.uint8))}}),
        ("bnb-state", "nf4", {"put": {STATE: state(quant_type="fp4")}}),
        ("bnb-packed-size", "nf4", {"put": {STATE: state(shape=[32, 384])}}),
        ("bnb-packed-size", "nf4", {"put": {W: tensor("U8", np.zeros((3000, 1), np.uint8))}}),
        ("bnb-nested", "nf4-nested", {"drop": [f"{W}.nested_absmax"]}),
        ("bnb-nested", "nf4-nested", {"drop": [f"{W}.nested_quant_map"]}),
        ("bnb-nested", "nf4-nested", {"put": {STATE: state()}}),
        ("bnb-nested", "nf4-nested", {"put": {f"{W}.nested_quant_map": tensor("F32", np.zeros(256, np.float32))}}),
        ("bnb-nested", "nf4-nested", {"put": {f"{W}.nested_absmax": tensor("F32", np.ones(2, np.float32))}}),
        ("bnb-quant-map", "nf4", {"put": {f"{W}.quant_map": tensor("F32", np.linspace(-1, 1, 16, dtype=np.float32))}}),
        ("bnb-missing", "nf4", {"drop": [f"{W}.absmax"]}),
        ("bnb-missing", "nf4", {"drop": [f"{W}.quant_map"]}),
        ("bnb-missing", "nf4", {"drop": [W]}),
        ("bnb-config-4bit", "nf4", {"config": settings(load_in_4bit=False)}),
        ("bnb-config-4bit", "nf4", {"config": lambda config: config.pop("quantization_config")}),
        ("bnb-quant-type", "nf4", {"config": settings(bnb_4bit_quant_type="fp4")}),
        ("bnb-scale-zero", "nf4", {"put": {f"{W}.absmax": tensor("F32", EMPTY)}}),
        ("scale-not-finite", "nf4", {"put": {f"{W}.absmax": tensor("F32", SCALES * np.nan)}}),
        ("scale-negative", "nf4", {"put": {f"{W}.absmax": tensor("F32", -SCALES)}}),
        ("scale-not-finite", "nf4-nested", {"put": {f"{W}.nested_absmax": tensor("F32", np.array([np.inf], "f4"))}}),
        ("bnb-scb-missing", "int8", {"drop": [f"{MODULE}.SCB"]}),
        ("bnb-scb", "int8", {"put": {f"{MODULE}.SCB": tensor("F32", np.ones(10, np.float32))}}),
        ("bnb-scb", "int8", {"put": {f"{MODULE}.SCB": tensor("F16", np.ones(32, np.float16))}}),
        ("bnb-scb", "int8", {"put": {f"{MODULE}.weight_format": tensor("U8", np.array(1, np.uint8))}}),
        ("bnb-config-8bit", "int8", {"config": settings(load_in_8bit=False)}),
        ("bnb-scb-zero", "int8", {"put": {f"{MODULE}.SCB": tensor("F32", np.zeros(32, np.float32))}}),
    ],
)
def test_what_ruins_a_file_is_found(tmp_path, rule, name, changes):
    assert rule in faults(edited(FILES / name, tmp_path / "x", **changes))


def test_blocks_and_rows_of_zeros_have_scales_of_zero(tmp_path):
    """As bitsandbytes writes them: nf4's zero is code 7."""
    codes = stored("nf4", W, np.uint8).reshape(-1)
    codes[7 * 32 : 8 * 32] = 0x77
    put = {W: tensor("U8", codes.reshape(-1, 1)), f"{W}.absmax": tensor("F32", EMPTY)}
    assert not faults(edited(FILES / "nf4", tmp_path / "blocks", put=put))
    rows, scales = stored("int8", W, np.int8), stored("int8", f"{MODULE}.SCB", np.float32)
    rows[3], scales[3] = 0, 0
    put = {W: tensor("I8", rows), f"{MODULE}.SCB": tensor("F32", scales)}
    assert not faults(edited(FILES / "int8", tmp_path / "rows", put=put))
