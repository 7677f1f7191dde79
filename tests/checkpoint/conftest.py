"""Fixtures of the checkpoint tests: a web server, a private cache, and a tiny Llama on disk."""

import json
import shutil

import pytest

from superweight.checkpoint import Cache
from support.web import Web

WORDS = ["<unk>", "<s>", "</s>", "the", "a", "model", "weight", "super", "layer", "row", "column", "of", "in", "is"]


@pytest.fixture
def web():
    server = Web()
    yield server
    server.close()


@pytest.fixture
def own_cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture(scope="session")
def _tiny_original(tmp_path_factory):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    directory = tmp_path_factory.mktemp("tiny") / "llama"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(directory)
    return directory


@pytest.fixture
def tiny(_tiny_original, tmp_path):
    """A directory that a test may damage: Llama, 2 layers, hidden size 32, bfloat16, tied embeddings."""
    return shutil.copytree(_tiny_original, tmp_path / "llama")


@pytest.fixture
def sharded(tiny):
    """The same model in two shards with an index."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny / "model.safetensors")
    (tiny / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, tiny / shard, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (tiny / "model.safetensors.index.json").write_text(json.dumps(index))
    return tiny


@pytest.fixture
def edit_config(tiny):
    def edit(**changes):
        path = tiny / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit
