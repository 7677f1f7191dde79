"""Recipes `integer` and `float8` in memory: every number against numpy, what is excluded, restored and undone."""

import math

import numpy as np
import pytest
import torch

from superweight.cards.base import Coordinate
from superweight.compress import Matrix, apply, recipe_of
from superweight.errors import InfraError

W4 = {"kind": "integer", "bits": 4, "symmetric": True, "granularity": "group", "group_size": 8}
W8A8 = {"kind": "integer", "bits": 8, "symmetric": True, "granularity": "channel", "activations": "token"}
FP8 = {"kind": "float8", "granularity": "channel"}


def by_hand(w, size, *, bits, symmetric):
    """Round groups in float64, scales rounded to float32 once; halves are as good as never met."""
    x = np.asarray(w, dtype=np.float64).reshape(-1, size)
    if symmetric:
        scale = np.float32(np.abs(x).max(1, keepdims=True) / (2 ** (bits - 1) - 1)).astype(np.float64)
        return (np.clip(np.round(x / scale), -(2 ** (bits - 1)) + 1, 2 ** (bits - 1) - 1) * scale).reshape(w.shape)
    low, high = np.minimum(x.min(1, keepdims=True), 0), np.maximum(x.max(1, keepdims=True), 0)
    scale = np.float32((high - low) / (2**bits - 1)).astype(np.float64)
    zero = np.round(-(2 ** (bits - 1)) - low / scale)
    codes = np.clip(np.round(x / scale) + zero, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return ((codes - zero) * scale).reshape(w.shape)


@pytest.mark.parametrize("kind", ["llama", "olmo2", "mixtral", "gpt_oss", "gpt2"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_every_linear_weight_of_every_structure(tiny, recipe, context, kind, symmetric):
    loaded = tiny(kind)
    before = {w.name: [w.matrix(e).clone() for e in _experts(w)] for w in loaded.architecture.linear_weights}
    with apply(recipe(**{**W4, "symmetric": symmetric}), context(loaded)) as applied:
        for weight in loaded.architecture.linear_weights:
            for expert, original in zip(_experts(weight), before[weight.name], strict=True):
                expected = by_hand(original.numpy(), 8, bits=4, symmetric=symmetric)
                np.testing.assert_allclose(weight.matrix(expert).numpy(), expected, rtol=2e-6, atol=1e-7)
    assert set(applied.changed) == set(before)


def _experts(weight):
    return range(weight.experts) if weight.experts else (None,)


@pytest.mark.parametrize("method", [W4, {**W4, "symmetric": False}, W8A8, FP8, {**FP8, "granularity": "tensor"}])
def test_the_codes_decode_to_what_is_in_memory(method, recipe):
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        stored = torch.randn(12, 32).to(dtype)
        made = recipe_of(recipe(**method).method)
        codes = made.codes(Matrix("m.weight", stored.clone(), dtype))
        matrix = Matrix("m.weight", stored.clone(), dtype)
        made.compress(matrix)
        assert codes.scale.dtype == dtype
        assert torch.equal(codes.decoded(), matrix.values)


def test_undo_and_bits(tiny, recipe, context, digest):
    loaded = tiny("llama")
    before = digest(loaded.model)
    with apply(recipe(**{**W4, "symmetric": False}), context(loaded)) as applied:
        assert digest(loaded.model) != before
    assert digest(loaded.model) == before
    # 4 bits a code, and for 8 of them a float32 scale and a 4-bit zero point
    assert applied.size.compressed_bits_per_weight == pytest.approx(4 + (32 + 4) / 8)


def test_super_weights_are_restored_to_the_bit(tiny, recipe, context, place):
    loaded = tiny("llama", torch.bfloat16)
    loaded.architecture.scalar(place).fill_(3.14159)
    before = loaded.architecture.scalar(place).clone()
    with apply(recipe(**W4, z=1.0), context(loaded, place)):
        assert float(loaded.architecture.scalar(place)) < 2  # clipped
    with apply(recipe(**W4, z=1.0, super_weights="restored"), context(loaded, place)) as applied:
        assert torch.equal(loaded.architecture.scalar(place), before)
        assert applied.size.parts["super_weights"] == 16 + 32
    assert applied.figures["restored"] == 1


def test_what_is_excluded_keeps_its_bits(tiny, recipe, context, place):
    loaded = tiny("llama")
    names = ["super-weight-modules", "model.layers.0.mlp.up_proj", "re:.*[.]q_proj"]
    with apply(recipe(**W8A8, exclude=names), context(loaded, place)) as applied:
        left = {"model.layers.1.mlp.down_proj", "model.layers.0.mlp.up_proj"}
        left |= {f"model.layers.{layer}.self_attn.q_proj" for layer in (0, 1)}
        assert {f"{name}.weight" for name in left} == set(applied.figures["excluded"])
        assert not left & set(applied.hooks)  # their inputs are left alone, too
        assert not {f"{name}.weight" for name in left} & set(applied.changed)


def test_one_expert_with_a_super_weight_excludes_those_of_its_layer(tiny, recipe, context, expert_place):
    loaded = tiny("mixtral")
    with apply(recipe(**W4, exclude=["super-weight-modules"]), context(loaded, expert_place)) as applied:
        assert applied.figures["excluded"] == ["model.layers.1.mlp.experts.down_proj"]


def test_names_that_exclude_nothing_are_refused(tiny, recipe, context):
    with pytest.raises(InfraError, match=r"exclude names 're:lm-head', and no module of this model is called so"):
        apply(recipe(**W4, exclude=["lm_head", "re:lm-head"]), context(tiny("llama")))


def test_groups_that_do_not_divide_a_row_are_refused(tiny, recipe, context):
    with pytest.raises(InfraError, match=r"rows of 16 weights, which groups of 12 do not divide") as caught:
        apply(recipe(**{**W4, "group_size": 12}), context(tiny("llama")))
    assert caught.value.reason == "recipe-mismatch"


def test_what_is_not_finite_is_refused(recipe):
    for value in (math.nan, math.inf):
        stored = torch.ones(4, 8)
        stored[1, 2] = value
        with pytest.raises(InfraError, match="holds NaN, infinity"):
            recipe_of(recipe(**W4).method).codes(Matrix("m.weight", stored, torch.float32))
    large = Matrix("m.weight", torch.full((4, 8), 1e6), torch.float32)
    with pytest.raises(InfraError, match=r"torch.float16 cannot hold"):
        recipe_of(recipe(**W4, scale_dtype="float16").method).codes(large)


def test_activations_are_quantised_by_token(tiny, recipe, context, logits):
    loaded = tiny("llama")
    with apply(recipe(**{**W8A8, "activations": "none"}), context(loaded)):
        weights = logits(loaded)
    with apply(recipe(**W8A8), context(loaded)) as applied:
        assert len(applied.hooks) == 14
        both = logits(loaded)
    assert 0 < float((both - weights).abs().max()) < 0.5


def test_z_clips_as_clip_restore_does(recipe):
    """mean|X| + z·std|X| of a block, by hand."""
    x = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 9.0]])
    matrix = Matrix("m.weight", x.clone(), torch.float32, super_weights=[Coordinate(layer=0, row=0, column=7)])
    recipe_of(recipe(**W4, z=1.0).method).compress(matrix)
    magnitudes = np.abs(x.numpy())
    assert float(matrix.values[0, 7]) == pytest.approx(magnitudes.mean() + magnitudes.std(ddof=1), rel=1e-5)
