"""Artefacts that were damaged: what is said of a super weight is what the library decodes, or nothing is said of it."""

from __future__ import annotations

import json
import re

import pytest
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig

from fuzz.damage import byte_damage, every_damage, json_damage, tree_damage
from fuzz.outcome import outcome, stray
from fuzz.test_checkpoints import held, tensor_damage
from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.report.check_text import check_text
from support.artefacts import packed
from support.tiny import tiny_model, tiny_tokenizer

WEIGHTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
JSON = ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json")
WHERE = Coordinate(layer=1, row=5, column=7)
DOWN = "model.layers.1.mlp.down_proj"
UNFORESEEN = re.compile(r"^\w*(Error|Exception|Warning): ")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    directory = tmp_path_factory.mktemp("reference") / "model"
    model = tiny_model("llama", layers=2)
    model.model.layers[1].mlp.down_proj.weight[5, 7] = 2.5
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def pristine(reference, tmp_path_factory):
    """Four bits in two shards."""
    directory = packed(reference, tmp_path_factory.mktemp("pristine") / "w4", shards=2)
    assert {*WEIGHTS, *JSON} <= {path.name for path in directory.iterdir()}
    return directory


def decoded(directory):
    """What the library makes of the scalar under the settings of the directory; None if it refuses the settings."""
    tensors = {name.removeprefix(f"{DOWN}."): value for name, value in held(directory).items() if name.startswith(DOWN)}
    if "weight_packed" not in tensors:
        return tensors["weight"][WHERE.row, WHERE.column].item()
    try:
        config = QuantizationConfig.model_validate(
            json.loads((directory / "config.json").read_text())["quantization_config"]
        )
    except ValueError:
        return None
    (scheme,) = config.config_groups.values()
    compressor = BaseCompressor.get_value_from_registry(scheme.format or config.format)
    return compressor.decompress(tensors, scheme)["weight"][WHERE.row, WHERE.column].item()


def checked(reference):
    opened = open_reader(reference)

    def run(directory):
        asked = {WHERE: "causal"}
        found = outcome(
            lambda: check(open_reader(directory), opened, asked, Promise.of("within-step")), [str(directory)]
        )
        if found is None:
            return
        assert not [why for why in found.unchecked.values() if UNFORESEEN.match(why)], found.unchecked
        assert not stray(check_text(found))
        (weight,) = found.super_weights
        if weight.value is not None:
            assert decoded(directory) in (None, pytest.approx(weight.value, rel=0, abs=0, nan_ok=True))
        assert found.answer != "kept" or abs(weight.value - 2.5) <= weight.step

    return run


def strategy(kind):
    """Damages of a kind."""
    every = {
        "json": json_damage(JSON),
        "config": json_damage(("config.json",)),
        "tensors": tensor_damage(),
        "bytes": byte_damage((*WEIGHTS, *JSON)),
        "tree": tree_damage((*WEIGHTS, *JSON)),
    }
    return every[kind]


@pytest.mark.parametrize("kind", ["json", "config", "tensors", "bytes", "tree"])
@pytest.mark.parametrize("examples", [60, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_damaged_artefact_is_read_as_it_is_or_nothing_is_said(reference, pristine, tmp_path, kind, examples):
    every_damage(strategy(kind), examples, pristine, tmp_path, checked(reference))
