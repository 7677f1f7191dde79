"""Passes that begin in the middle: the same figures bit for bit, for fewer layers' work."""

import pytest
import torch
from test_scorer import KINDS, requests

from superweight.forward.layer_cache import LayerInputCache
from superweight.forward.scorer import Scorer

WINDOWS = torch.randint(3, 211, (3, 40), generator=torch.Generator().manual_seed(1))


def figures(scorer):
    return scorer.window_nll(WINDOWS), scorer.continuations(requests(211), max_length=100)


def change(loaded, layer, factor):
    for weight in loaded.architecture.linear_weights:
        if weight.layer == layer:
            weight.parameter.data.mul_(factor)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_whole_passes(make_loaded, kind):
    loaded = make_loaded(kind)
    plain, sparing = Scorer(loaded), Scorer(loaded)
    sparing.begin_with(loaded.architecture.layers)
    assert sparing.layer_inputs is not None
    uncompressed = figures(plain)
    for number, factor in enumerate((0.5, 1.5, 3.0)):
        sparing.layer_inputs.first = 1
        change(loaded, 1, factor)
        assert figures(sparing) == figures(plain) != uncompressed
        assert (sparing.layer_inputs.reused > 0) == (number > 0)
        change(loaded, 1, 1 / factor)
    sparing.layer_inputs.first = 0
    assert figures(sparing) == figures(plain)


def test_layers_that_nothing_changed_are_not_run(make_loaded):
    loaded = make_loaded("llama", num_hidden_layers=6)
    scorer = Scorer(loaded)
    scorer.begin_with(loaded.architecture.layers)
    ran = []
    for number, layer in enumerate(loaded.architecture.layers):
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    scorer.layer_inputs.first = 4
    scorer.window_nll(WINDOWS[:1])
    assert ran == [0, 1, 2, 3, 4, 5]
    ran.clear()
    scorer.window_nll(WINDOWS[:1])
    assert ran == [4, 5]
    ran.clear()
    scorer.layer_inputs.first = 5  # what enters layer 4 is still what the checkpoint makes it
    scorer.window_nll(WINDOWS[:1])
    assert ran == [4, 5]
    ran.clear()
    scorer.layer_inputs.first = 3
    scorer.window_nll(WINDOWS[:1])
    assert ran == [0, 1, 2, 3, 4, 5]
    ran.clear()
    scorer.window_nll(WINDOWS[1:2])  # other tokens
    assert ran == [0, 1, 2, 3, 4, 5]


def test_another_kernel_is_another_pass(make_loaded):
    loaded = make_loaded("llama")
    scorer = Scorer(loaded)
    scorer.begin_with(loaded.architecture.layers)
    scorer.layer_inputs.first = 1
    scorer.window_nll(WINDOWS)
    loaded.model.set_attn_implementation("eager")
    scorer.window_nll(WINDOWS)
    assert scorer.layer_inputs.reused == 0


def test_what_is_kept_is_bounded(make_loaded):
    loaded = make_loaded("llama")
    scorer = Scorer(loaded, batch_tokens=40)
    one = 40 * 32 * 4  # bytes: tokens of a window, channels, float32
    scorer.layer_inputs = LayerInputCache(loaded.architecture.layers, kept_bytes=2 * one)
    scorer.layer_inputs.first = 1
    first = scorer.window_nll(WINDOWS)
    assert scorer.window_nll(WINDOWS) == first
    assert scorer.layer_inputs.reused == 2
    scorer.layer_inputs.forget()
    scorer.window_nll(WINDOWS)
    assert scorer.layer_inputs.reused == 2


def test_a_model_whose_layers_hand_on_more_than_states_computes_everything(make_loaded):
    loaded = make_loaded("llama")
    notes = []
    first, last = loaded.architecture.layers
    before, after = first.forward, last.forward
    first.forward = lambda *args, **kwargs: (notes.append(1.5), before(*args, **kwargs))[1]
    last.forward = lambda *args, **kwargs: after(*args, **kwargs) * (notes.pop() if notes else 1.0)
    scorer = Scorer(loaded)
    scorer.begin_with(loaded.architecture.layers)
    assert scorer.layer_inputs is None
