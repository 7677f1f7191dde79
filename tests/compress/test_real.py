"""The order that the recipes come in on a real model, on a short text."""

import math

import pytest
import torch

from superweight.cards.base import Coordinate
from superweight.checkpoint import load_model
from superweight.compress import Context, apply
from superweight.evaluate import perplexity

pytestmark = pytest.mark.real

SUPER_WEIGHT = Coordinate(layer=11, row=507, column=1229)
TEXT = """
The lighthouse at the northern end of the island was built in 1846, after a series of wrecks on the reef that lies two
miles to the east. Its first keeper, a retired ship's carpenter, kept a diary for eleven years, in which he recorded the
weather, the names of passing ships and the price of lamp oil. The tower is made of granite that was quarried on the
mainland and carried across the sound in barges. In the winter of 1871 a storm broke the lantern, and for nine days the
light was replaced by a fire that the keeper's family fed with driftwood. The present lens, made in Paris, was installed
three years later and could be seen from a distance of eighteen miles. During the war the light was turned off, and the
island was used as a station for the training of naval signallers. It was converted to electricity in 1957 and has been
automatic since 1984. The house beside it is now a small museum, which is open from May to September. Visitors can climb
the hundred and twelve steps to the gallery, from where, on a clear day, both capes and the harbour of the old town can
be seen. The reef itself is a reserve: seals breed on its outer rocks, and in spring the shallows are full of terns.
"""


@pytest.fixture(scope="module")
def loaded(embedded):
    """The embedded model, matmuls in bfloat16."""
    return load_model(embedded, compute_dtype="bfloat16")


@pytest.fixture(scope="module")
def text_perplexity(loaded):
    """`text_perplexity(method)`: of the short text under a recipe, and the recipe's report."""
    tokens = torch.tensor(loaded.tokenizer(TEXT)["input_ids"])
    context = Context(loaded, (SUPER_WEIGHT,))

    def measure(card):
        with apply(card, context) as applied:
            return perplexity(loaded, tokens, window=tokens.numel()).value, applied.stored(SUPER_WEIGHT).item()

    return measure


@pytest.fixture
def w8a8(recipe, text_perplexity):
    """`w8a8(…)`: perplexity under W8A8."""

    def measure(**method):
        return text_perplexity(recipe(kind="w8a8", **method))[0]

    return measure


def test_clip_and_restore_beats_rounding_in_coarse_blocks(recipe, text_perplexity):
    blocks = {"bits": 4, "granularity": "block", "block_size": 1536}
    base, original = text_perplexity(recipe(kind="baseline"))
    rounded, _ = text_perplexity(recipe(kind="rtn", **blocks))
    restored, stored = text_perplexity(recipe(kind="clip-restore", z=12.0, **blocks))
    assert base < restored < rounded
    assert stored == original


def test_pruning_the_super_weight_wrecks_the_model(recipe, text_perplexity):
    base, _ = text_perplexity(recipe(kind="baseline"))
    pruned, stored = text_perplexity(recipe(kind="prune-super-weights"))
    larger, _ = text_perplexity(recipe(kind="scale-super-weights", factor=1.5))
    assert stored == 0.0
    assert pruned > 2 * base
    assert abs(math.log(larger / base)) < 0.1


def test_rolling_the_channels_wrecks_it_more_than_pruning_does(recipe, text_perplexity):
    base, _ = text_perplexity(recipe(kind="baseline"))
    pruned, _ = text_perplexity(recipe(kind="prune-super-weights"))
    rolled, _ = text_perplexity(recipe(kind="roll-channels"))
    assert rolled > 1000 * base
    assert rolled > pruned


def test_handling_super_activations_pays_most_where_scales_are_coarsest(w8a8, recipe, text_perplexity):
    base, _ = text_perplexity(recipe(kind="baseline"))
    coarse = {"weights": "channel", "activations": "tensor"}
    naive = w8a8(**coarse, super_activations="naive")
    handled = w8a8(**coarse, super_activations="handled")
    fine = w8a8(weights="channel", activations="token", super_activations="handled")
    assert base * 0.99 < fine < handled < naive
    assert math.log(handled / base) < math.log(naive / base) / 2


def test_executions_agree_on_the_real_model(w8a8):
    setting = {"weights": "channel", "activations": "token", "super_activations": "handled", "keep_super_weights": True}
    assert w8a8(**setting, execution="integer") == pytest.approx(w8a8(**setting), rel=0.01)
