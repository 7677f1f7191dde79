"""Adapters that lie beside an artefact and are for another one."""

import json

import pytest
import torch
from safetensors.torch import save_file

from superweight.checkpoint.files import open_directory
from support.artefacts import packed

DOWN = "model.layers.1.mlp.down_proj"


@pytest.fixture
def artefact(reference, tmp_path):
    return packed(reference, tmp_path / "w4")


def adapter(directory, *, module=DOWN, inputs=96, outputs=64, base="somewhere/w4", **metadata):
    directory.mkdir(exist_ok=True)
    name = f"base_model.model.{module}"
    tensors = {f"{name}.lora_A.weight": torch.ones(1, inputs), f"{name}.lora_B.weight": torch.ones(outputs, 1)}
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt", **metadata})
    said = {"peft_type": "LORA", "base_model_name_or_path": base, "r": 1}
    (directory / "adapter_config.json").write_text(json.dumps(said))


@pytest.mark.parametrize("place", ["", "adapter"])
def test_an_adapter_of_this_artefact(place, look, artefact):
    sha256 = open_directory(artefact, progress=False).content_hash
    adapter(artefact / place, base_sha256=sha256)
    assert look(artefact) == {}
    assert look(artefact, alone=True) == {}


@pytest.mark.parametrize("place", ["", "adapter"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": 95}, "expected 96 channels, found 95"),
        ({"outputs": 65}, "expected 64 channels, found 65"),
        ({"module": "model.layers.9.mlp.down_proj"}, "none called model.layers.9.mlp.down_proj"),
        ({"base_sha256": "0" * 64}, "expected a base of the hash 000000000000"),
    ],
)
def test_an_adapter_of_another_base(changes, said, place, look, artefact):
    adapter(artefact / place, **changes)
    found = look(artefact)
    assert set(found) == {"adapter-base"}
    assert said in found["adapter-base"][0]


def test_an_adapter_that_names_another_base_is_a_hint(look, artefact):
    adapter(artefact, base="organisation/another-model")
    assert set(look(artefact)) == {"adapter-name"}


def test_an_adapter_for_the_reference_is_for_another_base(reference, look, artefact):
    adapter(artefact, base_sha256=open_directory(reference, progress=False).content_hash)
    assert set(look(artefact)) == {"adapter-base"}
