"""KL divergence and top-1 agreement against full logits in float64."""

import copy
import math

import pytest
import torch

from superweight.evaluate import ResidentModel, perplexity_figure, prepare_text, score_batch
from superweight.forward.scorer import Scorer

TOKENS = torch.randint(3, 211, (240,), generator=torch.Generator().manual_seed(4))


def logits(loaded, window):
    with torch.inference_mode():
        return loaded.model(window[None]).logits[0, :-1].double()


def prepared(loaded, **options):
    return ResidentModel(Scorer(loaded)), prepare_text(loaded, TOKENS, window=24, **options)


def damaged(loaded):
    """The same model with its weights moved a little; head and embeddings stay."""
    generator = torch.Generator().manual_seed(9)
    for name, parameter in loaded.model.named_parameters():
        if "layers" in name or ".h." in name:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "cohere", "opt"])
def test_agrees_with_full_logits(make_loaded, kind):
    loaded = make_loaded(kind)
    loaded = copy.copy(loaded)
    object.__setattr__(loaded, "model", copy.deepcopy(loaded.model))
    model, text = prepared(loaded, batch_tokens=72)
    model.remember(text)
    reference = {index: logits(loaded, window) for index, window in enumerate(text.tokens_wt)}
    damaged(loaded)
    for batch in text.batches:
        for score in score_batch(model, text, batch, compare=True):
            p = reference[score["window"]].log_softmax(-1)
            q = logits(loaded, text.tokens_wt[score["window"]]).log_softmax(-1)
            assert score["kl"] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3, abs=1e-6)
            assert score["agreement"] == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()), abs=1e-9)
            assert score["kl"] > 1e-5


def test_a_model_does_not_diverge_from_itself(make_loaded):
    model, text = prepared(make_loaded("llama"))
    assert model.reference.missing(text) == text.batches
    scores = [score for batch in text.batches for score in model.score_windows(text, batch, remember=True)]
    assert not model.reference.missing(text)
    again = [score for batch in text.batches for score in score_batch(model, text, batch, compare=True)]
    assert [score["nll"] for score in again] == [score.nll for score in scores]
    assert {score["kl"] for score in again} == {0.0}
    assert {score["agreement"] for score in again} == {1.0}


def test_a_model_that_gives_nan_diverges_without_bound(make_loaded):
    loaded = make_loaded("llama", seed=3)
    model, text = prepared(loaded)
    model.remember(text)
    weight = loaded.model.model.layers[1].mlp.down_proj.weight
    before = weight.clone()
    weight[3] = float("nan")
    try:
        (score,) = score_batch(model, text, text.batches[0], compare=True)
    finally:
        weight.copy_(before)
    assert (score["kl"], score["nll"]) == (math.inf, math.inf)


def test_a_batch_gives_the_same_figures_whenever_it_is_asked(make_loaded):
    model, text = prepared(make_loaded("llama"), batch_tokens=72)
    forwards = {score["window"]: score["nll"] for batch in text.batches for score in score_batch(model, text, batch)}
    backwards = {
        score["window"]: score["nll"] for batch in reversed(text.batches) for score in score_batch(model, text, batch)
    }
    assert forwards == backwards
    some = [score for batch in text.batches[:2] for score in score_batch(model, text, batch)]
    figure = perplexity_figure(text, some, vocabulary=211)
    assert (figure.windows, figure.planned, figure.tokens) == (6, 10, 6 * 23)
    assert list(figure.index) == sorted(text.batches[0] + text.batches[1])
    assert figure.nll == [forwards[index] for index in figure.index]
    assert figure.value == pytest.approx(math.exp(sum(figure.nll) / 6), rel=1e-12)
    assert figure.kl == figure.agreement == []
