"""Tiny models of many architectures, with weights large enough for their logits to differ, and a tiny tokenizer."""

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from superweight.checkpoint.loading import LoadedModel

VOCABULARY = 211  # prime, so that no chunk divides it
TEXT = "The quick brown fox jumps over the lazy dog. Question: what is the colour of the sky? Answer: blue, or grey. "

_LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_PLAIN = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
CONFIGS = {
    "llama": _LLAMA,
    "mistral": _LLAMA | {"head_dim": 8, "sliding_window": 4096},
    "olmo2": _LLAMA,
    "granite": _LLAMA | {"logits_scaling": 3.0},
    "cohere": _LLAMA | {"logit_scale": 0.25},
    "gemma2": _LLAMA | {"head_dim": 8, "sliding_window": 64, "final_logit_softcapping": 2.0},
    "phi": _LLAMA,
    "gpt2": _GPT2,
    "opt": _PLAIN | {"ffn_dim": 48, "word_embed_proj_dim": 16, "max_position_embeddings": 128},
    "gpt_neox": _PLAIN | {"intermediate_size": 48, "max_position_embeddings": 128},
    "falcon": _PLAIN | {"alibi": False, "max_position_embeddings": 128},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "qwen3_moe": _LLAMA | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
}


def make_model(kind, seed=0, vocabulary=VOCABULARY, **changes):
    config = AutoConfig.for_model(
        kind, **{**CONFIGS[kind], **changes}, vocab_size=vocabulary, bos_token_id=1, eos_token_id=2, pad_token_id=None
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.25)
        elif name.endswith("bias"):
            parameter.normal_(std=0.1)
    return model


def make_tokenizer(bos=False):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=[*map(chr, range(33, 127)), "Ġ"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT * 4], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")


def wrap(model, tokenizer=None):
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        checkpoint=None,
        dtype=torch.float32,
        compute_dtype=torch.float32,
        device=torch.device("cpu"),
    )
