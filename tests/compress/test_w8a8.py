import pytest
import torch

from superweight.cards.base import Coordinate
from superweight.compress import apply

W8A8 = {
    "kind": "w8a8",
    "weights": "channel",
    "activations": "token",
    "super_activations": "handled",
    "massive_ratio": 20,
}
SETTINGS = [
    {"weights": weights, "activations": activations, "super_activations": handled, "keep_super_weights": keep}
    for weights in ("tensor", "channel")
    for activations in ("tensor", "token")
    for handled in ("naive", "handled")
    for keep in (False, True)
]


def plant(loaded, place):
    """A super weight and the activation that feeds it: its input channel becomes massive in every token."""
    loaded.architecture.scalar(place).fill_(5.0)
    for weight in loaded.architecture.linear_weights:
        if weight.layer == place.layer and not weight.down and weight.shape[0] in (40, 80):
            weight.matrix(place.expert)[place.column] *= 30


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: "-".join(str(v) for v in s.values()))
def test_executions_agree(tiny, context, recipe, place, logits, setting):
    loaded = tiny()
    plant(loaded, place)
    with apply(recipe(**{**W8A8, **setting}), context(loaded, place)):
        simulated = logits(loaded)
    with apply(recipe(**{**W8A8, **setting}, execution="integer"), context(loaded, place)):
        integer = logits(loaded)
    original = logits(loaded)
    torch.testing.assert_close(simulated, integer, rtol=0, atol=2e-5 * original.abs().max().item())
    assert (simulated - original).abs().max() > 100 * (simulated - integer).abs().max()


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "gpt_oss", "olmo2"])
def test_executions_agree_for_every_structure(tiny, context, recipe, place, expert_place, logits, kind):
    loaded = tiny(kind)
    where = expert_place if kind in ("mixtral", "gpt_oss") else place
    plant(loaded, where)
    original = logits(loaded)
    results = []
    for execution in ("simulated", "integer"):
        card = recipe(**W8A8, keep_super_weights=True, execution=execution)
        with apply(card, context(loaded, where)) as applied:
            results.append(logits(loaded))
            assert applied.stored(where).item() == 5.0
    torch.testing.assert_close(*results, rtol=0, atol=5e-5 * original.abs().max().item())
    assert (results[0] - original).abs().max() > 100 * (results[0] - results[1]).abs().max()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "gpt_oss"])
@pytest.mark.parametrize("execution", ["simulated", "integer"])
def test_undo_gives_the_same_bits_and_the_same_forward(tiny, context, recipe, digest, logits, kind, execution):
    loaded = tiny(kind)
    implementation = getattr(loaded.model.config, "_experts_implementation", None)
    before, expected = digest(loaded.model), logits(loaded)
    with apply(recipe(**W8A8, execution=execution), context(loaded)) as applied:
        assert set(applied.changed) == {weight.name for weight in loaded.architecture.linear_weights}
        assert digest(loaded.model) != before
        assert not torch.equal(logits(loaded), expected)
    assert digest(loaded.model) == before
    assert torch.equal(logits(loaded), expected)
    assert not [name for name, module in loaded.model.named_modules() if "forward" in vars(module)]
    assert getattr(loaded.model.config, "_experts_implementation", None) == implementation


def test_weights_in_float64(tiny, context, recipe):
    loaded = tiny()
    weight = loaded.architecture.down_projections[0].parameter
    before = weight.double().clone()
    with apply(recipe(**{**W8A8, "weights": "tensor"}), context(loaded)):
        scale = before.abs().max() / 127
        torch.testing.assert_close(weight.double(), (before / scale).round() * scale, rtol=1e-6, atol=1e-6)
    with apply(recipe(**W8A8), context(loaded)):
        scale = before.abs().max(1, keepdim=True).values / 127
        torch.testing.assert_close(weight.double(), (before / scale).round() * scale, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("execution", ["simulated", "integer"])
def test_a_linear_layer_against_float64(tiny, context, recipe, execution):
    loaded = tiny()
    module = loaded.model.model.layers[0].mlp.gate_proj
    w = module.weight.double().clone()
    x = torch.randn(1, 6, 16, generator=torch.Generator().manual_seed(3))
    with apply(recipe(**{**W8A8, "super_activations": "naive"}, execution=execution), context(loaded)):
        got = module(x)
    w_scale = w.abs().max(1, keepdim=True).values / 127
    x_scale = x.double().abs().max(-1, keepdim=True).values / 127
    expected = ((x.double() / x_scale).round() * x_scale) @ ((w / w_scale).round() * w_scale).T
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)


def test_naive_loses_the_super_weight_and_keeping_does_not(tiny, context, recipe, place):
    loaded = tiny()
    loaded.architecture.scalar(place).fill_(0.1234567)  # not the largest of its row, so that rounding moves it
    for execution in ("simulated", "integer"):
        with apply(recipe(**W8A8, execution=execution), context(loaded, place)) as applied:
            assert applied.stored(place).item() != pytest.approx(0.1234567, abs=1e-9)
            assert applied.stored(place).item() == loaded.architecture.scalar(place).item()
        with apply(recipe(**W8A8, execution=execution, keep_super_weights=True), context(loaded, place)) as applied:
            assert torch.equal(applied.stored(place), torch.tensor(0.1234567))
            assert applied.figures["kept"] == 1


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_activations_inside_experts_are_quantised(tiny, context, recipe, tokens, kind):
    """Rounding the inputs of experts changes what they put out, with their weights left as they are."""
    loaded = tiny(kind)
    experts = loaded.model.model.layers[0].mlp.experts
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(4))
    everywhere = torch.tensor([[0, 1]] * 5), torch.full((5, 2), 0.5)
    with apply(recipe(**{**W8A8, "super_activations": "naive"}), context(loaded)) as applied:
        assert "model.layers.0.mlp.experts" in applied.hooks
        quantised = experts(x, *everywhere)
        del experts.forward  # the plain forward with the rounded weights
        assert not torch.allclose(quantised, experts(x, *everywhere), rtol=0, atol=1e-4)


def test_size_by_hand(tiny, context, recipe, place):
    loaded = tiny(dtype=torch.bfloat16)
    channels = 2 * (16 + 8 + 8 + 16 + 40 + 40 + 16)
    weights = 2 * (256 + 2 * 128 + 256 + 3 * 640)
    with apply(recipe(**W8A8, keep_super_weights=True), context(loaded, place)) as applied:
        assert applied.size.bits == 8 * weights + 16 * channels + (16 + 32)
    with apply(recipe(**{**W8A8, "weights": "tensor"}), context(loaded, place)) as applied:
        assert applied.size.bits == 8 * weights + 16 * 14  # seven matrices a layer


@pytest.mark.parametrize("granularity", ["tensor", "token"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "gpt_oss", "olmo2"])
def test_attention_matmuls(tiny, context, recipe, logits, kind, granularity):
    loaded = tiny(kind)
    setting = {**W8A8, "activations": granularity}
    expected, before = logits(loaded), loaded.model.config._attn_implementation
    with apply(recipe(**setting), context(loaded)):
        without = logits(loaded)
    with apply(recipe(**setting, attention_matmuls=True), context(loaded)):
        within = logits(loaded)
    assert 1e-4 < (within - without).abs().max() < expected.abs().max() / 2
    assert torch.equal(logits(loaded), expected)
    assert loaded.model.config._attn_implementation == before


def test_one_super_weight_in_an_expert_leaves_the_others_alone(tiny, context, recipe):
    loaded = tiny("mixtral")
    place = Coordinate(layer=0, expert=1, row=2, column=3)
    before = loaded.architecture.scalar(place).clone()
    with apply(recipe(**W8A8, keep_super_weights=True, execution="integer"), context(loaded, place)) as applied:
        assert torch.equal(applied.stored(place), before)
        other = Coordinate(layer=0, expert=2, row=2, column=3)
        assert torch.equal(applied.stored(other), loaded.architecture.scalar(other))
