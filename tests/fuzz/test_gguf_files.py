"""GGUF files that were damaged: converted to what they hold, or refused by name."""

import gguf
import pytest
import torch

from fuzz.damage import byte_damage, every_damage
from fuzz.outcome import outcome
from superweight.cards.source import GgufSource
from superweight.checkpoint import Cache, load_model, resolve
from support.tiny_gguf import LAYERS, write_gguf

NAME = "tiny.gguf"
PAIRS = {"mlp.down_proj": "ffn_down", "mlp.up_proj": "ffn_up", "self_attn.v_proj": "attn_v"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("pristine") / NAME).parent


def check(directory):
    """The oracle."""
    source, cache = GgufSource(kind="gguf", path=str(directory / NAME)), Cache(directory / "cache")

    def convert():
        checkpoint = resolve(source, cache, progress=False)
        load_model(checkpoint)
        return checkpoint

    checkpoint = outcome(convert, [str(directory)])
    if checkpoint is None:
        return "refused"
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(directory / NAME).tensors}
    for layer in range(LAYERS):
        for ours, theirs in PAIRS.items():
            tensor = stored[f"blk.{layer}.{theirs}.weight"]
            expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
            found = checkpoint.read(f"model.layers.{layer}.{ours}.weight")
            assert torch.equal(found.view(torch.int32), expected.contiguous().view(torch.int32))
    return "measured"


@pytest.mark.parametrize("examples", [40, pytest.param(3000, marks=pytest.mark.slow)])
def test_a_damaged_file_is_converted_as_it_is_or_refused(pristine, tmp_path, examples):
    every_damage(byte_damage([NAME]), examples, pristine, tmp_path, check)
