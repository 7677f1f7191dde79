"""A model without weights: its matrices are found where they are in the files, in every architecture."""

import json
import shutil

import pytest
import torch

from superweight.artefact.writing.outline import Outline
from superweight.cards.base import Coordinate
from superweight.checkpoint import load_model, open_directory
from superweight.errors import InfraError
from support.architectures import CONFIGS

WHOLE = [kind for kind in CONFIGS if kind not in ("gpt2",)]


@pytest.mark.parametrize("kind", [*WHOLE, "mixtral"])
def test_matrices_are_where_the_loaded_model_has_them(checkpoint, kind):
    source = checkpoint(kind)
    outline, loaded = Outline(source), load_model(source)
    weights = {weight.name: weight for weight in loaded.architecture.linear_weights}
    assert [weight.name for weight in outline.weights] == list(weights)
    assert not outline.architecture.observed.failed  # it was seen at work, as the loaded one was
    for weight in outline.weights:
        for found in outline.sources(weight):
            assert torch.equal(found.read(source).values, weights[weight.name].matrix(found.expert))


def test_most_layers_have_no_memory(checkpoint):
    outline = Outline(checkpoint("llama"))
    devices = {name: parameter.device.type for name, parameter in outline.model.named_parameters()}
    assert devices["model.layers.0.mlp.up_proj.weight"] == "cpu"
    assert devices["model.layers.1.mlp.up_proj.weight"] == "meta"


def test_fused_experts_are_put_together_from_their_files(checkpoint):
    outline = Outline(checkpoint("mixtral"))
    weight = next(one for one in outline.weights if one.name.endswith("layers.1.mlp.experts.gate_up_proj"))
    where = Coordinate(layer=1, expert=2, row=3, column=5)
    found = list(outline.sources(weight, [where]))
    assert [part.module for part in found[2].parts] == [
        f"model.layers.1.block_sparse_moe.experts.2.{leaf}" for leaf in ("w1", "w3")
    ]
    assert [one.super_weights for one in found] == [(), (), (where,), ()]
    assert "model.layers.0.mlp.gate" in outline.linear_modules
    assert "model.layers.0.block_sparse_moe.gate" in outline.module_names("model.layers.0.mlp.gate")


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("gpt2", r"belongs to a Conv1D, stored \(in, out\), and compressed-tensors quantises Linear modules"),
        ("gpt_oss", "holds the experts of a layer in one tensor"),
    ],
)
def test_what_has_no_place_in_such_a_file_is_refused(checkpoint, kind, told):
    outline = Outline(checkpoint(kind))
    with pytest.raises(InfraError, match=told) as caught:
        [list(outline.sources(weight)) for weight in outline.weights]
    assert caught.value.reason == "recipe-mismatch"


def test_a_file_that_does_not_fit_its_config(checkpoint, tmp_path):
    source = checkpoint("llama")
    shutil.copytree(source.directory, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "intermediate_size": 56}))
    outline = Outline(open_directory(tmp_path / "m"))
    with pytest.raises(InfraError, match=r"should have the shape \(56, 32\) by config.json, found \(48, 32\)"):
        [list(outline.sources(weight)) for weight in outline.weights]
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    outline = Outline(open_directory(tmp_path / "m"))
    with pytest.raises(InfraError, match=r"holds no tensor 'model\.layers\.2\."):
        [list(outline.sources(weight)) for weight in outline.weights]
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "model_type": "nobody-knows"}))
    with pytest.raises(InfraError, match="cannot make the model of") as caught:
        Outline(open_directory(tmp_path / "m"))
    assert caught.value.reason == "unsupported"


def test_a_super_weight_outside_the_model(checkpoint):
    with pytest.raises(InfraError, match="lies outside"):
        Outline(checkpoint("llama")).held([Coordinate(layer=1, row=3000, column=5)])
