"""Tensors that are not there or hold nothing are found, whatever a loader would put in their place."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from superweight.artefact.lint import Subject, lint
from superweight.artefact.reading import open_reader
from superweight.checkpoint.header import read_header
from support.architectures import make_model
from support.artefacts import dense, packed

LAYER = "model.layers.2"
DOWN = f"{LAYER}.mlp.down_proj"


def without(*names):
    def change(tensors, config=None):
        for name in [name for name in tensors if name.startswith(names)]:
            del tensors[name]

    return change


@pytest.mark.parametrize("leaf", ["weight_packed", "weight_scale", "weight_shape"])
def test_a_tensor_of_a_packed_module(leaf, reference, look, tmp_path):
    found = look(packed(reference, tmp_path / "w4", change=without(f"{DOWN}.{leaf}")), alone=True)
    assert set(found) == {"packed-tensor-missing"}
    assert any(DOWN in one and leaf in one for one in found["packed-tensor-missing"])


def test_zero_points_of_what_is_asymmetric(reference, look, tmp_path):
    def asymmetric(tensors, config):
        config["quantization_config"]["config_groups"]["group_0"]["weights"]["symmetric"] = False

    found = look(packed(reference, tmp_path / "w4", change=asymmetric), alone=True)
    assert "weight_zero_point" in found["packed-tensor-missing"][0]


@pytest.mark.parametrize(
    "name", [DOWN, f"{LAYER}.input_layernorm", f"{LAYER}.self_attn", "model.norm", "model.embed_tokens", "lm_head"]
)
def test_what_the_reference_has(name, reference, look, tmp_path):
    found = look(packed(reference, tmp_path / "w4", change=without(name)))
    assert any(name in one and "found nothing" in one for one in found["packed-tensor-missing"])


def test_a_bias_of_the_reference(tmp_path):
    """Some loaders start biases at zero."""
    make_model("phi").save_pretrained(tmp_path / "phi")
    dense(tmp_path / "phi", tmp_path / "copy", without("model.layers.0.self_attn.q_proj.bias"))
    (finding,), _ = lint(Subject(open_reader(tmp_path / "copy"), open_reader(tmp_path / "phi")))
    assert finding.rule == "packed-tensor-missing"
    assert "q_proj.bias" in finding.where


def test_an_output_layer_that_is_the_embedding_is_not_missed(reference, look, tmp_path):
    def tie(tensors, config):
        del tensors["lm_head.weight"]
        config["tie_word_embeddings"] = True

    assert look(packed(reference, tmp_path / "w4", change=tie)) == {}


def test_a_module_that_is_plain_and_should_not_be(reference, look, tmp_path):
    """The loader makes up codes for it."""

    def forget(tensors, config):
        config["quantization_config"]["ignore"] = ["lm_head"]

    found = look(packed(reference, tmp_path / "w4", ignore=["layers.2.mlp.down_proj"], change=forget), alone=True)
    assert [DOWN in one for one in found["packed-tensor-missing"]] == [True]


@pytest.mark.parametrize(("said", "faults"), [(["lm_head"], 1), (["layers.2.mlp"], 0), ([DOWN], 0), (None, 1)])
def test_other_formats_say_what_stays_plain_in_their_own_words(said, faults, reference, look, tmp_path):
    def other(tensors, config):
        config["quantization_config"] = {"quant_method": "new", "modules_to_not_convert": said, "like": DOWN}

    path = packed(reference, tmp_path / "new", ignore=["layers.2.mlp.down_proj"], change=other)
    assert len(look(path, alone=True).get("packed-tensor-missing", [])) == faults


@pytest.mark.parametrize("leaf", ["weight_packed", "weight"])
def test_codes_that_are_all_zero(leaf, reference, look, tmp_path):
    ignore = ["layers.2.mlp.down_proj"] if leaf == "weight" else []
    path = packed(
        reference, tmp_path / "w4", ignore=ignore, change=lambda tensors, _: tensors[f"{DOWN}.{leaf}"].zero_()
    )
    assert any(f"{DOWN}.{leaf}" in one for one in look(path, alone=True)["packed-tensor-missing"])


def test_a_hole_in_a_file(reference, look, tmp_path):
    """As on a disk that fills what was not written with zeros."""
    path = packed(reference, tmp_path / "w4")
    file = path / "model.safetensors"
    info = read_header(file)[f"{DOWN}.weight_packed"]
    with file.open("r+b") as stream:
        stream.seek(info.start)
        stream.write(bytes(info.stop - info.start))
    assert any(DOWN in one for one in look(path)["packed-tensor-missing"])


def test_another_way_of_naming_is_nothing_missing(reference, look, tmp_path):
    path = dense(reference, tmp_path / "copy", lambda tensors: None)
    tensors = {
        name.replace("self_attn", "attention").replace("mlp", "feed_forward"): value.to(torch.float32)
        for name, value in load_file(path / "model.safetensors").items()
    }
    save_file(tensors, path / "model.safetensors")
    assert look(path) == {}
