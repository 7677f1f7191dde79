"""The GPTQ protocol against its definition, written out plainly."""

import hashlib
import json
import math

import pytest
import torch

from superweight.errors import InfraError
from superweight.evaluate import PROTOCOL, perplexity
from superweight.forward.scorer import Scorer


def gptq(model, tokens, window, windows):
    """GPTQ's own evaluation loop, in float64: mean over windows of the mean loss, exponentiated."""
    losses = []
    for k in range(windows):
        piece = tokens[k * window : (k + 1) * window][None]
        with torch.inference_mode():
            logits = model(piece).logits
        loss = torch.nn.functional.cross_entropy(logits[0, :-1].double(), piece[0, 1:])
        losses.append(loss * window)
    return float(torch.exp(torch.stack(losses).sum() / (windows * window)))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "opt", "gpt_neox", "falcon"])
def test_agrees_with_gptqs_loop(make_loaded, kind):
    loaded = make_loaded(kind)
    tokens = torch.randint(3, 211, (1000,), generator=torch.Generator().manual_seed(2))
    found = perplexity(loaded, tokens, window=64)
    assert found.value == pytest.approx(gptq(loaded.model, tokens, 64, 15), rel=1e-5)
    assert (found.windows, found.window, found.tokens, len(found.nll)) == (15, 64, 15 * 63, 15)
    assert found.value == pytest.approx(math.exp(sum(found.nll) / 15), rel=1e-12)
    assert found.protocol == PROTOCOL
    assert PROTOCOL.startswith("gptq: ")


def test_a_limit_takes_the_first_windows_and_batches_do_not_matter(make_loaded):
    loaded = make_loaded("llama")
    tokens = torch.arange(3, 203)
    every = perplexity(loaded, tokens, window=32)
    some = perplexity(loaded, tokens, window=32, windows=4, batch_tokens=96, scorer=Scorer(loaded))
    assert some.nll == pytest.approx(every.nll[:4], rel=1e-5)
    assert perplexity(loaded, tokens, window=32, windows=400).windows == 6
    scored = tokens[: 4 * 32].numpy().astype("<i8").tobytes()
    assert some.tokens_sha256 == hashlib.sha256(scored).hexdigest() != every.tokens_sha256


def test_a_last_window_that_is_not_full_is_dropped(make_loaded):
    loaded = make_loaded("llama")
    tokens = torch.arange(3, 103)
    assert perplexity(loaded, tokens, window=100).windows == 1
    assert perplexity(loaded, tokens, window=51).windows == 1
    with pytest.raises(InfraError, match=r"100 tokens, fewer than one window of 101") as caught:
        perplexity(loaded, tokens, window=101)
    assert caught.value.reason == "too-short"
    with pytest.raises(ValueError, match="at least 2"):
        perplexity(loaded, tokens, window=1)


def test_progress_and_json(make_loaded):
    calls = []
    found = perplexity(make_loaded("llama"), torch.arange(3, 103), window=25, progress=lambda *step: calls.append(step))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert json.loads(found.model_dump_json())["nll"] == found.nll


def test_a_wrecked_model_has_infinite_perplexity(make_loaded):
    loaded = make_loaded("llama")
    loaded.model.lm_head.weight[5] = float("nan")
    found = perplexity(loaded, torch.arange(3, 103), window=50)
    assert found.value == math.inf
    assert found.nll == [math.inf, math.inf]


@pytest.mark.real
def test_the_real_model_agrees_with_gptqs_loop(real):
    tokens = torch.tensor(real.tokenizer("Super weights are single scalars of an early layer. " * 40)["input_ids"])
    found = perplexity(real, tokens, window=128, windows=3)
    assert found.value == pytest.approx(gptq(real.model, tokens, 128, 3), rel=1e-5)
