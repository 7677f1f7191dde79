"""Tiny checkpoints of many architectures in directories, recipes, and artefacts written of them."""

import pytest
import torch

from superweight.cards.recipe import RecipeCard
from superweight.checkpoint import open_directory
from support.architectures import CONFIGS, make_model, make_tokenizer


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """`checkpoint(kind, dtype, **changes)`: a directory with a random model; made once of each."""
    made = {}

    def build(kind="llama", dtype=torch.float32, **changes):
        key = (kind, dtype, *sorted(changes.items()))
        if key not in made:
            directory = tmp_path_factory.mktemp(kind) / "source"
            model = make_model(kind, **changes) if kind in CONFIGS else _other(kind)
            model.to(dtype).save_pretrained(directory)
            make_tokenizer().save_pretrained(directory)
            made[key] = open_directory(directory)
        return made[key]

    return build


def _other(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "vocab_size": 211,
    }
    config = AutoConfig.for_model(kind, **small, **more, bos_token_id=1, eos_token_id=2, pad_token_id=None)
    if kind == "gpt_oss":
        config.layer_types = ["full_attention"] * 2
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture
def recipe():
    """`recipe(**method)`: a card."""

    def build(**method):
        return RecipeCard(id="tiny", title="Tiny", role="reference", method={**method})

    return build


@pytest.fixture
def written(checkpoint, recipe, tmp_path):
    """`written(source, method, super_weights)`: the directory of an artefact."""
    from superweight.artefact.writing.compressed_tensors import write

    def build(source, method, super_weights=(), name="artefact", **more):
        known = dict.fromkeys(super_weights, "causal")
        return write(source, recipe(**method), tmp_path / name, known, progress=False, **more)

    return build
