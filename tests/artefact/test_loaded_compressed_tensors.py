"""What is read from a compressed-tensors file is what transformers' modules multiply with, asked by unit vectors."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from superweight.artefact.lint import Subject, lint
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.checkpoint import Cache, load_model, open_directory
from superweight.checkpoint.artefact_files import ArtefactFiles
from superweight.checkpoint.quantised_loading import load_quantised
from superweight.checkpoint.quantisers import weights_differ
from superweight.errors import InfraError
from support.artefacts import _codes, packed
from support.probing import effective_matrix, run_once

DOWN = "model.layers.{}.mlp.down_proj"


@pytest.fixture(scope="module")
def reference(tiny_checkpoint):
    return tiny_checkpoint[0]


def loaded(path, **more):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **more).eval()
    run_once(model)
    return model


def read(path, layer, rows=(0, 5, 63)):
    reader, columns = open_reader(path), range(96)
    return [
        [reader.scalar(Coordinate(layer=layer, row=row, column=column)).decoded.value for column in columns]
        for row in rows
    ]


def probed(model, layer, rows=(0, 5, 63)):
    return effective_matrix(model.get_submodule(DOWN.format(layer)), 96)[list(rows)].tolist()


def in_float32(tensors, config):
    """Scales in the dtype of the model, which loaders convert them to."""
    for name in [name for name in tensors if name.endswith("weight_scale")]:
        tensors[name] = tensors[name].float()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_packed_codes(bits, reference, tmp_path):
    path = packed(reference, tmp_path / "artefact", bits=bits, ignore=["layers.2"], change=in_float32)
    model = loaded(path)
    for layer in (1, 2):
        assert read(path, layer) == probed(model, layer)


@pytest.fixture
def mixed(reference, tmp_path):
    """Down projections in 8 bits, all else in 4, in a group each."""
    own = load_file(reference / "model.safetensors")

    def change(tensors, config):
        settings = config["quantization_config"]
        four = settings["config_groups"]["group_0"]["weights"]
        settings["config_groups"] = {
            "group_0": {"targets": ["re:.*attn.*", "re:.*gate_proj", "re:.*up_proj"], "weights": four},
            "group_1": {"targets": ["re:.*down_proj"], "weights": {**four, "num_bits": 8}},
        }
        for layer in range(6):
            tensors |= _codes(DOWN.format(layer), own[f"{DOWN.format(layer)}.weight"], 8, 32)
        in_float32(tensors, config)

    return packed(reference, tmp_path / "mixed", change=change)


def test_groups_of_other_bits_as_shipped(mixed):
    assert read(mixed, 1) == probed(loaded(mixed), 1)


def test_groups_of_other_bits_decoded_while_loading_are_other_numbers(mixed):
    """Why the rule is there: nothing raises, and the planted weight is gone."""
    model = loaded(mixed, quantization_config=CompressedTensorsConfig(dequantize=True))
    assert abs(probed(model, 1)[1][7]) < 0.1 * abs(read(mixed, 1)[1][7])
    (finding,), _ = lint(Subject(open_reader(mixed)))
    assert (finding.rule, finding.severity) == ("groups-differ", "warning")


def test_groups_of_other_bits_are_never_decoded_for_a_measurement(mixed, reference, tmp_path):
    files = ArtefactFiles(path=mixed, container="safetensors", origin="", content_hash="", bytes=0)
    own = load_model(open_directory(reference))
    with pytest.raises(InfraError, match="store weights in different ways"):
        load_quantised(files, own, Cache(tmp_path / "cache"), dequantised=True)


@pytest.mark.parametrize(
    ("groups", "differ"),
    [
        ({}, False),
        ({"a": {"weights": {"num_bits": 4}}}, False),
        ({"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 4}}}, False),
        ({"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 8}}}, True),
        ({"a": {"weights": {"num_bits": 4}}, "b": {"weights": {"num_bits": 4}, "format": "int-quantized"}}, True),
        ({"a": {"weights": {"num_bits": 4}}, "b": {"weights": None}}, False),
        (["a"], False),
    ],
)
def test_what_counts_as_different(groups, differ):
    assert weights_differ({"config_groups": groups}) is differ
