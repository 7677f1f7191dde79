"""A model whose figures would mean nothing is refused: not causal, beyond its positions, beyond its vocabulary."""

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
)

from superweight.errors import InfraError
from superweight.evaluate import perplexity
from superweight.forward.scorer import Scorer
from superweight.forward.soundness import positions


def wrapped(make_loaded, model):
    loaded = make_loaded("llama")
    loaded.model = model.eval().requires_grad_(False)
    loaded.dtype = loaded.compute_dtype = model.dtype
    return loaded


def bidirectional_gemma(**more):
    config = Gemma3TextConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, sliding_window=32, vocab_size=211, max_position_embeddings=128, **more,
    )  # fmt: skip
    return Gemma3ForCausalLM(config)


def bert():
    config = BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=211,
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    return BertLMHeadModel(config)


def uncaused_llama():
    config = AutoConfig.for_model(
        "llama", hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=211, max_position_embeddings=128,
    )  # fmt: skip
    config.is_causal = False
    return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", [bert, uncaused_llama, lambda: bidirectional_gemma(use_bidirectional_attention=True)])
def test_a_model_that_sees_later_tokens_is_refused(make_loaded, make, dtype):
    torch.manual_seed(0)
    model = make().to(dtype)
    for parameter in model.parameters():
        parameter.data = parameter.data if parameter.dim() < 2 else parameter.data.normal_(std=0.25)
    with pytest.raises(InfraError, match="a later token changes the logits of earlier tokens") as caught:
        Scorer(wrapped(make_loaded, model))
    assert caught.value.reason == "unsupported"


def test_every_causal_architecture_is_accepted(make_loaded, kinds):
    for kind in kinds:
        loaded = make_loaded(kind)
        loaded.model.to(torch.bfloat16)
        loaded.dtype = loaded.compute_dtype = torch.bfloat16
        assert Scorer(loaded)


def test_a_model_that_mixes_what_stands_in_one_batch_is_refused(make_loaded):
    """As one with batch statistics would."""
    loaded = make_loaded("llama")
    loaded.model.model.norm.register_forward_hook(
        lambda module, inputs, output: output * torch.arange(1, len(output) + 1).view(-1, 1, 1)
    )
    with pytest.raises(InfraError, match="changes the logits of earlier tokens"):
        Scorer(loaded)


def test_a_model_without_finite_logits_is_left_to_its_figures(make_loaded):
    loaded = make_loaded("llama")
    loaded.model.model.norm.weight.data.fill_(torch.inf)
    assert Scorer(loaded).window_nll(torch.arange(16).view(1, 16)) == [torch.inf]


@pytest.mark.parametrize(
    ("kind", "made_for"),
    [("llama", 128), ("gpt2", 128), ("opt", 128), ("gpt_neox", 128), ("mamba", None), ("bloom", None)],
)
def test_windows_longer_than_the_positions_are_refused(make_loaded, kind, made_for):
    loaded = make_loaded(kind)
    assert positions(loaded.model) == made_for
    tokens = torch.arange(600) % 211
    if made_for is None:
        assert perplexity(loaded, tokens, window=256).windows == 2
        return
    assert perplexity(loaded, tokens, window=made_for).windows == 600 // made_for
    with pytest.raises(InfraError, match=r"windows of 129 tokens are longer than the 128 positions"):
        perplexity(loaded, tokens, window=made_for + 1)


def test_a_token_without_an_embedding_is_named(make_loaded):
    loaded = make_loaded("llama", bos=False)
    loaded.tokenizer.add_tokens([f"<odd {number}>" for number in range(212 - len(loaded.tokenizer))])
    tokens = torch.arange(64) % 211
    tokens[40] = 211
    with pytest.raises(InfraError, match=r"token 211 \('<odd \d+>'\), and the model has embeddings for 211 tokens"):
        perplexity(loaded, tokens, window=32)
    with pytest.raises(InfraError, match="a question and its answers: the tokenizer gives token 211"):
        Scorer(loaded).continuations([([1, 211], [3])], max_length=100)


def test_perplexity_says_what_guessing_would_give(make_loaded):
    assert perplexity(make_loaded("llama"), torch.arange(64) % 211, window=32).vocabulary == 211
