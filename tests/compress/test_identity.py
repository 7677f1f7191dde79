"""The control that no language model survives."""

import numpy as np
import pytest
import torch

from superweight.compress import Context, apply
from superweight.evaluate import perplexity
from superweight.forward.scorer import Scorer
from support.tiny import TAUGHT, load, tiny_model, tiny_text, tiny_tokenizer, trained


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3_moe"])
def test_every_output_channel_moves_on_by_one(recipe, kind):
    loaded = load(tiny_model(kind, layers=2), tiny_tokenizer())
    weights = loaded.architecture.linear_weights
    mixtures = [weight for weight in weights if weight.experts]
    before = [[weight.matrix(e).numpy().copy() for e in range(weight.experts)] for weight in mixtures]
    dense = [weight.matrix().numpy().copy() for weight in weights if not weight.experts]
    apply(recipe(kind="roll-channels"), Context(loaded))
    for weight, was in zip(mixtures, before, strict=True):
        for expert, matrix in enumerate(was):
            assert np.array_equal(weight.matrix(expert).numpy(), np.roll(matrix, 1, axis=0))
    for weight, matrix in zip((one for one in weights if not one.experts), dense, strict=True):
        assert np.array_equal(weight.matrix().numpy(), np.roll(matrix, 1, axis=0))


def test_it_destroys_a_model_that_has_no_super_weight(recipe):
    loaded = trained()
    text, scorer = tiny_text(512, seed=3, follows=TAUGHT), Scorer(loaded)
    whole = perplexity(loaded, text, window=64, scorer=scorer).value
    with torch.no_grad(), apply(recipe(kind="roll-channels"), Context(loaded)):
        rolled = perplexity(loaded, text, window=64, scorer=scorer).value
    assert whole < 3
    assert rolled > 10 * whole
    assert perplexity(loaded, text, window=64, scorer=scorer).value == whole
