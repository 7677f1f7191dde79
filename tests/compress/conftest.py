"""Tiny random models of every structure a recipe meets, and a digest of their weights."""

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from superweight.cards.base import Coordinate
from superweight.cards.recipe import RecipeCard
from superweight.checkpoint import Checkpoint
from superweight.checkpoint.loading import LoadedModel
from superweight.compress import Context

COMMON = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDE = {
    **COMMON,
    "hidden_size": 16,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
}
CONFIGS = {
    "llama": WIDE,
    "olmo2": WIDE,
    "mixtral": {**WIDE, "num_local_experts": 3, "num_experts_per_tok": 2},
    "gpt_oss": {**WIDE, "num_local_experts": 3, "num_experts_per_tok": 2, "layer_types": ["full_attention"] * 2},
    "gpt2": {**COMMON, "n_embd": 16, "n_inner": 40, "n_layer": 2, "n_head": 4, "n_positions": 64},
}


@pytest.fixture
def tiny():
    """`tiny(kind, dtype)`: a loaded random model whose super weights are planted nowhere."""

    def build(kind="llama", dtype=torch.float32):
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **CONFIGS[kind]))
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.3)
        model = model.to(dtype).eval().requires_grad_(False)
        checkpoint = Checkpoint(Path(), f"tiny {kind}", "0" * 64)
        return LoadedModel(model, None, checkpoint, dtype, dtype, torch.device("cpu"))

    return build


@pytest.fixture
def place():
    """Where the tests' super weight is."""
    return Coordinate(layer=1, row=5, column=33)


@pytest.fixture
def expert_place():
    """Where the tests' super weight is in a mixture."""
    return Coordinate(layer=1, expert=2, row=5, column=33)


@pytest.fixture
def tokens():
    """Two sequences of 24 tokens."""
    return torch.randint(3, 64, (2, 24), generator=torch.Generator().manual_seed(9))


@pytest.fixture
def recipe():
    """`recipe(kind=…, …)`: a card of that method."""

    def build(**method):
        role = "baseline" if method["kind"] == "baseline" else "reference"
        return RecipeCard.model_validate({"id": "test", "title": "test", "role": role, "method": method})

    return build


@pytest.fixture
def context():
    """`context(loaded, coordinates…)`."""

    def build(loaded, *coordinates):
        return Context(loaded, coordinates)

    return build


@pytest.fixture
def digest():
    """`digest(model)`: sha256 of each parameter's bytes, by name."""

    def compute(model):
        return {
            name: hashlib.sha256(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
            for name, parameter in model.named_parameters()
        }

    return compute


@pytest.fixture
def logits(tokens):
    """`logits(loaded)`: of both sequences."""

    def run(loaded):
        with loaded.arithmetic():
            return loaded.model(input_ids=tokens, use_cache=False).logits.clone()

    return run
