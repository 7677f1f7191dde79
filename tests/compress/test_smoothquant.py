import dataclasses

import pytest
import torch

from superweight.compress import apply
from superweight.compress.smoothquant import factors
from superweight.errors import InfraError

SMOOTH = {
    "kind": "smoothquant",
    "alpha": 0.85,
    "weights": "channel",
    "activations": "token",
    "calibration_corpus": "any",
    "calibration_windows": 2,
    "calibration_window": 24,
}


@pytest.fixture
def calibrated(context, tokens):
    """`calibrated(loaded)`: a context whose calibration text is the tests' tokens."""

    def build(loaded):
        asked = []

        def calibration(corpus, windows, window):
            asked.append((corpus, windows, window))
            return tokens

        return dataclasses.replace(context(loaded), calibration=calibration), asked

    return build


def test_factors_by_hand():
    # α = 0.5: √(16/4) = 2, √(9/1) = 3; 1 where an input or a column is never anything but 0
    s = factors(torch.tensor([16.0, 9.0, 0.0, 5.0]), torch.tensor([4.0, 1.0, 7.0, 0.0]), 0.5)
    assert s.tolist() == [2.0, 3.0, 1.0, 1.0]
    assert factors(torch.tensor([8.0]), torch.tensor([2.0]), 1.0).item() == 8.0


def absmax_of_inputs(loaded, module, tokens):
    """max|X_j| of a module's input, recorded with a hook of its own."""
    seen = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].abs().flatten(0, -2).amax(0)))
    with loaded.arithmetic():
        for row in tokens:
            loaded.model(input_ids=row[None])
    handle.remove()
    return torch.stack(seen).amax(0)


def test_q_k_v_share_a_factor_and_are_quantised_after_it(tiny, calibrated, recipe, tokens):
    loaded = tiny()
    attention = loaded.model.model.layers[1].self_attn
    largest = absmax_of_inputs(loaded, attention.q_proj, tokens)
    before = {name: getattr(attention, name).weight.clone() for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
    columns = torch.cat([before[name] for name in ("q_proj", "k_proj", "v_proj")]).abs().amax(0)
    s = largest**0.85 / columns**0.15
    context, asked = calibrated(loaded)
    x = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(6))
    with apply(recipe(**SMOOTH), context):
        got = {name: getattr(attention, name)(x) for name in before}
        held = attention.k_proj.weight.clone()
    assert asked == [("any", 2, 24)]

    def rounded(values):
        scale = values.abs().amax(-1, keepdim=True) / 127
        return (values / scale).round() * scale

    torch.testing.assert_close(held, rounded(before["k_proj"] * s), rtol=1e-5, atol=1e-5)
    for name in ("q_proj", "k_proj", "v_proj"):
        torch.testing.assert_close(got[name], rounded(x / s) @ rounded(before[name] * s).T, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got["o_proj"], rounded(x) @ rounded(before["o_proj"]).T, rtol=1e-4, atol=1e-4)


def test_smoothing_alone_changes_no_result():
    x = torch.randn(7, 16, dtype=torch.float64)
    w = torch.randn(9, 16, dtype=torch.float64)
    s = factors(x.abs().amax(0), w.abs().amax(0), 0.85).double()
    torch.testing.assert_close((x / s) @ (w * s).T, x @ w.T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "gpt_oss", "olmo2"])
def test_every_structure_and_undo(tiny, calibrated, recipe, digest, logits, kind):
    loaded = tiny(kind)
    before, expected = digest(loaded.model), logits(loaded)
    with apply(recipe(**SMOOTH), calibrated(loaded)[0]) as applied:
        assert applied.figures["smoothed"] > 0
        difference = (logits(loaded) - expected).abs().max()
        assert 0 < difference < expected.abs().max() / 2
        assert applied.size.parts["smoothing"] > 0
    assert digest(loaded.model) == before
    assert torch.equal(logits(loaded), expected)


def test_size_by_hand(tiny, calibrated, recipe):
    loaded = tiny()
    with apply(recipe(**SMOOTH), calibrated(loaded)[0]) as applied:
        # q, k, v, gate and up of two layers are smoothed, each with a factor for its 16 input channels
        assert applied.figures["smoothed"] == 10
        assert applied.size.parts["smoothing"] == 10 * 16 * 16


def test_spreads_an_outlier(tiny, calibrated, recipe, logits):
    loaded = tiny()
    for layer in loaded.model.model.layers:
        layer.input_layernorm.weight[3] = 300.0  # a channel of the attention's input that dwarfs the others
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(layer.self_attn, name).weight[:, 3] /= 300
    expected = logits(loaded)
    naive = {"kind": "w8a8", "weights": "channel", "activations": "token", "super_activations": "naive"}
    with apply(recipe(**naive), calibrated(loaded)[0]):
        rough = (logits(loaded) - expected).square().mean()
    with apply(recipe(**SMOOTH), calibrated(loaded)[0]):
        smooth = (logits(loaded) - expected).square().mean()
    assert smooth < rough / 4


def test_needs_text(tiny, context, recipe):
    with pytest.raises(InfraError, match="calibration") as error:
        apply(recipe(**SMOOTH), context(tiny()))
    assert error.value.reason == "recipe-mismatch"
