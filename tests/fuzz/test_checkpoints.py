"""Checkpoint directories that were damaged: what is measured is what the files hold, or it is refused by name."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fuzz.damage import NASTY, Damage, byte_damage, every_damage, json_damage, tree_damage
from fuzz.outcome import outcome
from superweight.checkpoint import load_model
from superweight.checkpoint.files import open_directory
from support.tiny import tiny_model, tiny_tokenizer

TEXT = "w3 w1 w4 w1 w5 w9 w2 w6"
WEIGHTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
JSON = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors.index.json",
    "generation_config.json",
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A tiny Llama in two shards."""
    directory = tmp_path_factory.mktemp("pristine") / "model"
    model = tiny_model("llama", layers=2)
    model.save_pretrained(directory, max_shard_size="150KB")
    tiny_tokenizer().save_pretrained(directory)
    assert {*WEIGHTS, *JSON} <= {path.name for path in directory.iterdir()}
    return directory


def held(directory):
    """Every tensor of the files that the index names, or of the one file, read by safetensors itself."""
    index = directory / "model.safetensors.index.json"
    names = [directory / "model.safetensors"]
    if index.exists():
        names = [directory / name for name in dict.fromkeys(json.loads(index.read_text())["weight_map"].values())]
    return {key: tensor for name in names for key, tensor in load_file(name).items()}


def same(one, other):
    return one.dtype == other.dtype and torch.equal(
        one.contiguous().flatten().view(torch.uint8), other.contiguous().flatten().view(torch.uint8)
    )


def check(directory):
    """The oracle."""
    found = outcome(lambda: load_model(open_directory(directory)), [str(directory)])
    if found is None:
        return "refused"
    tensors, state = held(directory), found.model.state_dict()
    told = {*found.account.rounded, *found.account.widened, *found.account.unused}
    for name, tensor in tensors.items():
        assert name in told or same(state[name], tensor), f"{name} is not what the file holds"
    theirs = peer(directory, found.dtype)
    ids = theirs[1](TEXT)["input_ids"]
    assert found.tokenizer(TEXT)["input_ids"] == ids
    if max(ids) >= found.model.config.vocab_size:
        return "measured"  # by a tokenizer of another model, which every measurement refuses
    with torch.no_grad():
        ours, expected = (model(input_ids=torch.tensor([ids])).logits for model in (found.model, theirs[0]))
    assert torch.equal(ours.nan_to_num(), expected.nan_to_num())
    return "measured"


def peer(directory, dtype):
    """What transformers itself makes of the directory."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(directory, dtype=dtype), AutoTokenizer.from_pretrained(directory)


@st.composite
def tensor_damage(draw):
    """A change to a shard that stays safetensors: a tensor's dtype, shape, place, name or values, one too many or few."""
    name, pick, pair = draw(st.sampled_from(WEIGHTS)), draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    what = draw(
        st.sampled_from(
            ("dtype", "cast", "shape", "flat", "offset", "exchange", "rename", "drop", "add", "twice", "values")
        )
    )
    kind = draw(st.sampled_from(("F16", "BF16", "F32", "F64", "I8", "I32", "F8_E4M3", "BOOL", "U8", "X", "")))
    nasty = draw(st.sampled_from(NASTY))

    def change(directory):
        path = directory / name
        if what in ("cast", "add", "values"):
            tensors = load_file(path)
            key = sorted(tensors)[pick % len(tensors)]
            casts = (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.float8_e4m3fn, torch.bool)
            if what == "cast":
                tensors[key] = tensors[key].to(casts[pair % len(casts)])
            elif what == "add":
                ending = nasty.encode("utf-8", "ignore").decode()  # safetensors writes no half of a surrogate pair
                tensors[f"{key}{('_scale', '.lora_A.weight', '2', ending + '3')[pair % 4]}"] = tensors[key].clone()
            else:
                numbers = (
                    (float("nan"), float("inf"), 1e30, 0.0) if tensors[key].is_floating_point() else (0, 1, -1, 99)
                )
                tensors[key].view(-1)[pair % tensors[key].numel()] = numbers[pair % 4]
            save_file(tensors, path, metadata={"format": "pt"})
            return
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
        keys = [key for key in header if key != "__metadata__"]
        key, other = keys[pick % len(keys)], keys[pair % len(keys)]
        entry = header[key]
        if what == "dtype":
            entry["dtype"] = kind
        elif what == "shape":
            entry["shape"] = entry["shape"][::-1] if pair % 2 else [*entry["shape"], 1]
        elif what == "flat":
            entry["shape"] = [entry["shape"][0] * 2, *(n // 2 for n in entry["shape"][1:2])]
        elif what == "offset":
            entry["data_offsets"] = [n + (pair % 9 - 4) for n in entry["data_offsets"]]
        elif what == "exchange":
            header[key], header[other] = header[other], entry
        elif what == "rename":
            header[f"{key}{nasty}"] = header.pop(key)
        elif what == "drop":
            del header[key]
        text = json.dumps(header)
        if what == "twice":
            text = f"{text[:-1]}, {json.dumps(key)}: {json.dumps(header[other])}}}"
        encoded = text.encode()
        path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + rest)

    return Damage(f"tensor:{what}", (name, pick, pair, kind, nasty), change)


def strategy(kind):
    """Damages of a kind."""
    every = {
        "json": json_damage(JSON),
        "config": json_damage(("config.json",)),
        "tensors": tensor_damage(),
        "bytes": byte_damage((*WEIGHTS, *JSON)),
        "tree": tree_damage((*WEIGHTS, *JSON)),
    }
    return every[kind]


@pytest.mark.parametrize("kind", ["json", "config", "tensors", "bytes", "tree"])
@pytest.mark.parametrize("examples", [60, pytest.param(4000, marks=pytest.mark.slow)])
def test_a_damaged_directory_is_measured_as_it_is_or_refused(pristine, tmp_path, kind, examples):
    every_damage(strategy(kind), examples, pristine, tmp_path, check)
