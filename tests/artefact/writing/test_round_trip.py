"""Artefacts loaded again by transformers: every number and logit of the recipe, and what is told where they differ."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from superweight.artefact.writing.round_trip import load_artefact, round_trip
from support.writing import DOWN, SUPER, W4, W8A8

FP8 = {"kind": "float8", "granularity": "channel", "activations": "token"}


@pytest.fixture
def compared(checkpoint, recipe, written):
    """`compared(kind, method, …)`: one record a way of loading, by its name."""

    def run(kind, method, super_weights=(), *, torch_dtype=torch.float32, dtype="", **changes):
        source = checkpoint(kind, torch_dtype, **changes)
        made = written(source, method, super_weights, dtype=dtype)
        found = round_trip(made.directory, source, recipe(**method), super_weights, dtype=dtype)
        return {one.load: one for one in found}

    return run


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "method",
    [
        W4,
        {**W4, "bits": 8, "granularity": "channel", "group_size": None},
        {**W4, "bits": 3, "full_range": True},
        {"kind": "float8", "granularity": "channel"},
    ],
    ids=["w4", "w8", "w3", "fp8"],
)
def test_weights_alone_are_equal_in_both_loads(compared, method, dtype):
    for one in compared("llama", method, torch_dtype=dtype).values():
        assert one.equal, str(one)
        assert (one.activations, one.parameters, one.positions) == ("as they are", 21, 96)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", [W8A8, FP8], ids=["int8", "fp8"])
def test_evidence_says_whether_activations_were_quantised(compared, method, dtype):
    found = compared("llama", method, torch_dtype=dtype)
    assert all(one.equal for one in found.values())
    assert (found["default"].activations, found["default"].quantising) == ("quantised", 14)
    assert (found["dequantised"].activations, found["dequantised"].quantising) == ("as they are", 0)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("mistral", {}), ("gemma2", {}), ("phi", {}), ("opt", {}), ("llama", {"tie_word_embeddings": True})],
)
def test_other_architectures(compared, kind, changes):
    assert all(one.equal for one in compared(kind, W4, **changes).values())


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_mixtures(compared, kind):
    assert all(one.equal for one in compared(kind, W4).values())


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_inputs_of_experts_are_left_as_they_are_by_transformers(compared, kind):
    found = compared(kind, FP8)
    assert found["dequantised"].equal
    assert (found["default"].activations, found["default"].differing) == ("partly quantised", {})


def test_zero_points_load_dequantised_alone(compared):
    """The day that a default load works, the note in `compressed_tensors` can go."""
    found = compared("llama", {**W4, "symmetric": False})
    assert found["dequantised"].equal
    assert "RuntimeError" in found["default"].failure
    assert not found["default"].equal


def test_modules_with_super_weights_are_exact(compared):
    assert all(one.equal for one in compared("llama", {**W4, "exclude": ["super-weight-modules"]}, [SUPER]).values())


def test_restored_super_weights_are_the_adapters(compared):
    """The artefact by itself is the recipe without them."""
    found = compared("llama", {**W4, "super_weights": "restored", "z": 2.0}, [SUPER])
    assert all(one.equal for one in found.values())


def test_a_checkpoint_that_was_rounded_first(compared):
    assert all(one.equal for one in compared("llama", W4, dtype="bfloat16").values())


def test_scales_that_a_default_load_converts_are_seen(compared):
    """float32 scales beside bfloat16 weights: transformers rounds them, in silence."""
    found = compared("llama", {**W4, "scale_dtype": "float32"}, torch_dtype=torch.bfloat16)
    assert found["dequantised"].equal
    assert len(found["default"].differing) == 14
    assert not found["default"].equal


def test_flattened_inputs_are_seen(compared):
    """OPT hands its MLP all tokens as rows of a matrix, over which compressed-tensors takes one scale."""
    found = compared("opt", W8A8)
    assert found["dequantised"].equal
    assert found["default"].activations == "quantised"
    assert found["default"].logits > 0
    assert "flattened inputs" in found["default"].note


def test_simulated_w8a8_has_the_weights_and_not_the_arithmetic(compared):
    method = {"kind": "w8a8", "weights": "channel", "activations": "token", "super_activations": "naive"}
    found = compared("llama", method)
    assert found["dequantised"].equal
    assert not found["default"].differing
    assert found["default"].logits > 0
    assert "arithmetic of its own" in found["default"].note


def test_what_was_changed_afterwards_is_seen(checkpoint, recipe, written):
    source, method = checkpoint("llama"), W4
    directory = written(source, method).directory
    file = directory / "model.safetensors"
    state = load_file(file)
    state[f"{DOWN}.weight_scale"][3, 0] *= 1.5
    save_file(state, file, {"format": "pt"})
    for one in round_trip(directory, source, recipe(**method)):
        assert one.differing == {f"{DOWN}.weight": one.differing[f"{DOWN}.weight"]}
        assert 1 <= one.differing[f"{DOWN}.weight"] <= 8
        assert one.logits > 0
        assert not one.equal


def test_what_cannot_be_loaded_is_told(checkpoint, recipe, written):
    source = checkpoint("llama")
    directory = written(source, W4).directory
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"]["config_groups"]["group_0"]["weights"]["num_bits"] = 8
    (directory / "config.json").write_text(json.dumps(config))
    for one in round_trip(directory, source, recipe(**W4)):
        assert one.failure or one.differing
        assert not one.equal


def test_the_checkpoint_is_as_it_was(checkpoint, recipe, written):
    source = checkpoint("llama")
    directory = written(source, W4).directory
    before = load_file(source.directory / "model.safetensors")
    round_trip(directory, source, recipe(**W4), loads=["dequantised"])
    after = load_file(source.directory / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    model = load_artefact(directory, dequantise=True)
    assert model.dtype == torch.float32
