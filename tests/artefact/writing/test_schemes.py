"""Which recipes have a deployable form, and what is said of those that have none."""

import pytest

from superweight.artefact.writing.schemes import needs_super_weights, scheme_of
from superweight.cards import load_library
from superweight.errors import InfraError

W8 = {"kind": "integer", "bits": 8, "symmetric": True, "granularity": "channel"}
W8A8 = {"kind": "w8a8", "weights": "channel", "activations": "token", "super_activations": "naive"}


@pytest.mark.parametrize(
    ("method", "layout"),
    [
        (W8, "pack-quantized"),
        ({**W8, "symmetric": False}, "pack-quantized"),
        ({**W8, "activations": "token"}, "int-quantized"),
        (W8A8, "int-quantized"),
        ({"kind": "float8", "granularity": "tensor"}, "naive-quantized"),
        ({"kind": "float8", "granularity": "tensor", "activations": "token"}, "float-quantized"),
    ],
)
def test_layouts_are_those_that_the_library_would_choose(recipe, method, layout):
    import torch
    from compressed_tensors.compressors.format import infer_module_format

    from superweight.artefact.writing.settings import library_scheme

    scheme = scheme_of(recipe(**method).method)
    assert scheme.layout == layout
    chosen = library_scheme(scheme)
    chosen.format = None
    assert infer_module_format(torch.nn.Linear, chosen).value == layout


@pytest.mark.parametrize(
    ("method", "why", "near"),
    [
        (
            {"kind": "rtn", "bits": 4, "granularity": "group", "group_size": 64},
            "its grid begins at each block's least weight, a float",
            "symmetric = false, granularity = 'group', group_size = 64; or --format gguf",
        ),
        (
            {"kind": "clip-restore", "bits": 8, "granularity": "channel", "z": 9.0},
            "whole zero points",
            "granularity = 'channel', super_weights = 'restored'.",
        ),
        (
            {"kind": "rtn", "bits": 4, "granularity": "block", "block_size": 512},
            "its blocks of 512 elements are runs of the flattened matrix, across rows",
            "group_size = 128",
        ),
        ({**W8A8, "super_activations": "handled"}, "which no engine does", "activations = 'token'"),
        ({**W8A8, "activations": "tensor"}, "one scale a sequence", "activations = 'token'"),
        ({**W8A8, "attention_matmuls": True}, "inside attention", "activations = 'token'"),
        ({**W8A8, "keep_super_weights": True}, "stores scalars aside", "activations = 'token'"),
        (
            {
                **{"kind": "smoothquant", "alpha": 0.5, "weights": "channel", "activations": "token"},
                "calibration_corpus": "wiki-embedded",
            },
            "divides the inputs of each matrix by factors",
            "activations = 'token'",
        ),
        ({"kind": "no-op"}, "it compresses nothing", "the checkpoint itself"),
    ],
)
def test_what_has_no_deployable_form_says_why_and_what_is_near(recipe, method, why, near):
    with pytest.raises(InfraError) as caught:
        scheme_of(recipe(**method).method)
    assert caught.value.reason == "recipe-mismatch"
    assert why in str(caught.value)
    assert near in str(caught.value)


def test_every_card_that_ships_has_a_form_or_a_reason():
    told = {}
    for name, card in load_library().recipes.items():
        try:
            told[name] = str(scheme_of(card.method))
        except InfraError as error:
            told[name] = str(error)
    assert all(text.startswith("compressed-tensors") or "Near is" in text for text in told.values())
    deployable = {name for name, text in told.items() if text.startswith("compressed-tensors")}
    shipped = {name for name in told if name.startswith(("integer-", "float8-"))}
    assert deployable == {*shipped, "w8a8-channel-token-naive", "w8a8-tensor-token-naive"}


def test_what_needs_super_weights(recipe):
    assert not needs_super_weights(recipe(**W8).method)
    assert needs_super_weights(recipe(**W8, exclude=["super-weight-modules"]).method)
    assert needs_super_weights(recipe(**W8, super_weights="restored").method)
