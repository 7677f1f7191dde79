"""Settings that tensors do not bear out, and scales of another matrix."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.artefacts import packed

DOWN = "model.layers.2.mlp.down_proj"


def settings(config):
    return config["quantization_config"]


def weights(config):
    return settings(config)["config_groups"]["group_0"]["weights"]


def replaced(leaf, value):
    return lambda tensors, config: tensors.update({f"{DOWN}.{leaf}": value})


SHAPES = {
    "scales of fewer rows": replaced("weight_scale", torch.ones(32, 3)),
    "scales of more rows": replaced("weight_scale", torch.ones(96, 3)),
    "scales of the other side": replaced("weight_scale", torch.ones(96, 2)),
    "words of another layer": replaced("weight_packed", torch.ones(64, 8, dtype=torch.int32)),
    "rows of another layer": replaced("weight_packed", torch.ones(96, 12, dtype=torch.int32)),
    "a shape of another layer": replaced("weight_shape", torch.tensor([64, 64])),
}


@pytest.mark.parametrize("what", SHAPES)
def test_scales_and_codes_of_another_matrix(what, reference, look, tmp_path):
    found = look(packed(reference, tmp_path / "w4", change=SHAPES[what]), alone=True)
    assert [DOWN in one for one in found["scale-shape"]] == [True]


def test_zero_points_of_another_matrix(reference, look, tmp_path):
    def change(tensors, config):
        weights(config)["symmetric"] = False
        for name in [name for name in tensors if name.endswith("weight_scale")]:
            rows, groups = tensors[name].shape
            zeros = torch.zeros(rows * 4 // 32, groups, dtype=torch.int32)
            tensors[name.replace("scale", "zero_point")] = zeros
        tensors[f"{DOWN}.weight_zero_point"] = torch.zeros(4, 3, dtype=torch.int32)

    found = look(packed(reference, tmp_path / "w4", change=change), alone=True)
    assert [DOWN in one for one in found["scale-shape"]] == [True]


@pytest.mark.parametrize(("shape", "wrong"), [((2, 3), False), ((3, 2), True)])
def test_blocks_of_float8(shape, wrong, reference, look, tmp_path):
    def change(tensors, config):
        config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [32, 32]}
        for leaf in ("weight_packed", "weight_shape", "weight_scale"):
            del tensors[f"{DOWN}.{leaf}"]
        tensors[f"{DOWN}.weight"] = torch.ones(64, 96).to(torch.float8_e4m3fn)
        tensors[f"{DOWN}.weight_scale_inv"] = torch.ones(*shape)

    assert ("scale-shape" in look(packed(reference, tmp_path / "fp8", change=change), alone=True)) is wrong


METADATA = {
    "groups of another size": lambda tensors, config: weights(config).update(group_size=16),
    "a scale a row": lambda tensors, config: weights(config).update(strategy="channel", group_size=None),
    "other bits": lambda tensors, config: weights(config).update(num_bits=9),
    "another type": lambda tensors, config: weights(config).update(type="float"),
    "ignored, and packed": lambda tensors, config: settings(config).update(ignore=["lm_head", DOWN]),
    "in no group": lambda tensors, config: settings(config)["config_groups"]["group_0"].update(targets=["re:.*attn.*"]),
    "not compressed": lambda tensors, config: settings(config).update(quantization_status="frozen"),
    "zero points of what is symmetric": replaced("weight_zero_point", torch.ones(8, 3, dtype=torch.int8)),
    "columns reordered": replaced("weight_g_idx", torch.arange(96, dtype=torch.int32) // 32),
    "more layers": lambda tensors, config: config.update(num_hidden_layers=7),
    "another width": lambda tensors, config: config.update(hidden_size=48),
}


@pytest.mark.parametrize("what", METADATA)
def test_settings_that_tensors_do_not_bear_out(what, reference, look, tmp_path):
    assert "metadata-disagrees" in look(packed(reference, tmp_path / "w4", change=METADATA[what]), alone=True)


def test_a_format_that_keeps_other_tensors(reference, look, tmp_path):
    path = packed(reference, tmp_path / "w4", change=lambda _, config: settings(config).update(format="int-quantized"))
    assert "expected weight;" in look(path, alone=True)["packed-tensor-missing"][0]


def test_fewer_bits_than_there_are(reference, look, tmp_path):
    path = packed(reference, tmp_path / "w4", change=lambda _, config: weights(config).update(num_bits=3))
    assert "codes of 3 bits" in look(path, alone=True)["scale-shape"][0]


@pytest.mark.parametrize(("key", "value"), [("bits", 3), ("group_size", 128), ("sym", False), ("desc_act", True)])
def test_two_files_of_settings_that_disagree(key, value, reference, look, tmp_path):
    said = {"bits": 4, "group_size": 32, "sym": True, "desc_act": False, "quant_method": "new"}
    path = packed(reference, tmp_path / "w4", change=lambda _, config: config.update(quantization_config=said))
    (path / "quantize_config.json").write_text(json.dumps(said))
    assert "metadata-disagrees" not in look(path, alone=True)
    (path / "quantize_config.json").write_text(json.dumps({**said, key: value}))
    assert key in look(path, alone=True)["metadata-disagrees"][0]


def test_no_config(reference, look, tmp_path):
    path = packed(reference, tmp_path / "w4")
    (path / "config.json").unlink()
    assert "config-missing" in look(path, alone=True)


@pytest.mark.parametrize(
    ("number", "rule"), [(float("nan"), "scale-not-finite"), (float("inf"), "scale-not-finite"), (0.0, "scale-zero")]
)
def test_scales_that_are_none(number, rule, reference, look, tmp_path):
    def spoil(tensors, config):
        tensors[f"{DOWN}.weight_scale"][3, 1] = number

    assert [DOWN in one for one in look(packed(reference, tmp_path / "w4", change=spoil), alone=True)[rule]] == [True]


def test_scales_with_a_sign_are_let_be_where_codes_have_one_too(reference, look, tmp_path):
    """auto-round writes such scales on purpose: a group's largest weight then has a code of its own."""

    def turn(tensors, config):
        tensors[f"{DOWN}.weight_scale"][3, 1] *= -1

    assert look(packed(reference, tmp_path / "w4", change=turn), alone=True) == {}


def test_scales_of_activations_that_are_negative(reference, look, tmp_path):
    def turn(tensors, config):
        tensors[f"{DOWN}.input_scale"] = torch.tensor([-1.0])

    assert "input_scale" in look(packed(reference, tmp_path / "w4", change=turn), alone=True)["scale-negative"][0]


def test_a_number_in_the_middle_of_a_large_tensor_shows_when_all_are_read(reference, look, tmp_path):
    path = packed(reference, tmp_path / "w4")
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.3.extra.weight_scale"] = torch.ones(8_000_000)
    tensors["model.layers.3.extra.weight_scale"][1_234_567] = float("nan")
    save_file(tensors, path / "model.safetensors")
    assert "scale-not-finite" not in look(path, alone=True)
    assert "scale-not-finite" in look(path, alone=True, thorough=True)
