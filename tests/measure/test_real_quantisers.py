"""Other people's quantisers themselves, on a tiny model and on the embedded one: what they write is near what they were
given, as their own loaders read it, unless it is known to be ruined."""

from pathlib import Path

import pytest

from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.artefact.super_weight_list import of_card
from superweight.cards import load_library
from superweight.cards.base import Coordinate
from superweight.cards.methods import Quantiser
from superweight.cards.promise import Promise
from superweight.checkpoint import Cache, open_directory
from superweight.errors import InfraError
from superweight.measure.quantised import quantise

pytestmark = pytest.mark.quantisers

LAYER = "model.layers.1.mlp.down_proj"
EIGHT, FOUR = 0.04, 0.2  # root mean square of the error over that of the weight, at most

WRITTEN_HERE = [
    ("bitsandbytes", {"format": "nf4"}, FOUR),
    ("bitsandbytes", {"format": "nf4", "nested": True}, FOUR),
    ("bitsandbytes", {"format": "int8"}, EIGHT),
    ("torchao", {"format": "int8-weight-only"}, EIGHT),
    ("torchao", {"format": "float8-weight-only"}, EIGHT),
    ("quanto", {"weights": "int8"}, EIGHT),
    ("quanto", {"weights": "int4"}, FOUR),
    ("compressed-tensors", {"preset": "W4A16", "group_size": 32}, FOUR),
    ("compressed-tensors", {"preset": "W8A16", "group_size": "channel"}, EIGHT),
    ("compressed-tensors", {"preset": "W8A8"}, EIGHT),
    ("compressed-tensors", {"preset": "FP8_DYNAMIC"}, EIGHT),
    ("auto-round", {"format": "auto_round", "bits": 4, "group_size": 32}, FOUR),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Quantise a directory; once for all tests that ask the same, and anew for every run of them."""
    cache = Cache(tmp_path_factory.mktemp("cache"))

    def make(directory, tool, settings, **more):
        text = {"calibration_corpus": "wiki-embedded"} if more.get("windows") else {}
        method = Quantiser(kind="quantiser", tool=tool, settings=settings, **text)
        return quantise(open_directory(directory, cache=cache, progress=False), method, cache, **more)

    return make


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A directory with a random Llama whose rows have 64 and 128 weights, as blocks of 64 like them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from support.tiny import VOCABULARY, tiny_tokenizer

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    )
    directory = tmp_path_factory.mktemp("tiny") / "weights"
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def load(directory, tool):
    import torch

    if tool == "quanto":
        from optimum.quanto import QuantizedModelForCausalLM

        return QuantizedModelForCausalLM.from_pretrained(directory)
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16)
    model(torch.tensor([[1, 2, 3]]))  # compressed-tensors decodes at the first pass
    return model


def effective(model, name, columns=128):
    """A linear module's weight `(out, in)`, by what it makes of unit vectors."""
    import torch

    module = model.get_submodule(name)
    if hasattr(getattr(module, "weight", None), "dequantize") and type(module.weight).__module__.startswith("optimum"):
        # torch's kernel for it ends the process where a file's bytes lie at another multiple than 16
        return module.weight.dequantize().float()
    with torch.no_grad():
        return module(torch.eye(columns, dtype=torch.bfloat16)).float().T


def error_of(directory, source, tool, name=LAYER):
    import torch
    from safetensors.torch import load_file

    weight = load_file(source / "model.safetensors")[f"{name}.weight"].float()
    off = effective(load(directory, tool), name) - weight
    return float(off.square().mean().sqrt() / weight.square().mean().sqrt()), torch.isfinite(off).all()


@pytest.mark.parametrize(("tool", "settings", "bound"), WRITTEN_HERE)
def test_what_a_tool_writes_is_near_what_it_was_given(made, tiny, tool, settings, bound):
    directory = made(tiny, tool, settings)
    error, finite = error_of(directory, tiny, tool)
    assert finite
    assert 0 < error < bound
    assert (directory / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("tool", "settings"),
    [
        ("bitsandbytes", {"format": "nf4"}),
        ("torchao", {"format": "int8-weight-only"}),
        ("quanto", {"weights": "int4"}),
        ("compressed-tensors", {"preset": "W4A16", "group_size": 32}),
        ("auto-round", {"format": "auto_round", "bits": 4, "group_size": 32}),
    ],
)
def test_a_module_that_is_left_out_stays_as_it_is(made, tiny, tool, settings):
    error, _ = error_of(made(tiny, tool, {**settings, "ignore": (LAYER,)}), tiny, tool)
    assert error < 0.005  # bfloat16 rounds, too
    assert error_of(made(tiny, tool, settings), tiny, tool)[0] > 2 * error


@pytest.mark.parametrize("mode", ["int8_asym", "int4_sym"])
def test_openvino_gives_the_models_logits(made, tiny, mode):
    import openvino
    import torch
    from transformers import AutoModelForCausalLM

    size = {} if mode == "int8_asym" else {"group_size": 32}
    directory = made(tiny, "openvino", {"mode": mode, **size})
    run = openvino.Core().compile_model(directory / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ids = torch.randint(4, 44, (2, 21), generator=torch.Generator().manual_seed(0))
    found = torch.tensor(run({"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy()})["logits"])
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)(ids).logits
    off = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert off < (0.05 if mode == "int8_asym" else 0.5)


def test_openvino_leaves_a_module_out_to_the_last_bit(made, tiny):
    import openvino
    from safetensors.torch import load_file

    directory = made(tiny, "openvino", {"mode": "int8_asym", "ignore": (LAYER,)})
    model = openvino.Core().read_model(directory / "openvino_model.xml")
    named = {node.get_friendly_name(): node for node in model.get_ops() if node.get_type_name() == "Constant"}
    kept, other = (named[f"self.{name}.weight"] for name in (LAYER, LAYER.replace("1", "0")))
    assert (kept.get_data() == load_file(tiny / "model.safetensors")[f"{LAYER}.weight"].numpy()).all()
    assert other.get_element_type() == openvino.Type.u8


@pytest.mark.parametrize("form", ["auto_gptq", "auto_awq", "llm_compressor"])
def test_auto_round_writes_other_peoples_formats(made, tiny, form):
    import json

    settings = {"format": form, "bits": 4, "group_size": 32, "sym": form != "auto_awq"}
    directory = made(tiny, "auto-round", settings)
    said = json.loads((directory / "config.json").read_text())["quantization_config"]["quant_method"]
    assert said == {"auto_gptq": "gptq", "auto_awq": "awq", "llm_compressor": "compressed-tensors"}[form]


def test_auto_round_weighs_by_the_text_that_it_is_given(made, tiny):
    import torch

    windows = torch.randint(4, 44, (4, 64), generator=torch.Generator().manual_seed(0)).tolist()
    settings = {"format": "auto_round", "bits": 4, "group_size": 32}
    plain, weighed = made(tiny, "auto-round", settings), made(tiny, "auto-round", settings, windows=windows)
    assert (plain / "model.safetensors").read_bytes() != (weighed / "model.safetensors").read_bytes()
    assert error_of(weighed, tiny, "auto-round")[0] < FOUR


def test_what_cannot_run_here_says_what_it_needs(made, tiny):
    with pytest.raises(InfraError, match="int4-weight-only needs the package mslk") as caught:
        made(tiny, "torchao", {"format": "int4-weight-only"})
    assert caught.value.reason == "unsupported"
    with pytest.raises(InfraError, match="groups of 128 do not divide rows of 64 weights: set group_size") as caught:
        made(tiny, "compressed-tensors", {"preset": "W4A16"})
    assert caught.value.reason == "unsupported"


@pytest.mark.parametrize(("preset", "size"), [("W4A16", 32), ("W8A16", "channel")])
def test_the_library_loads_what_check_reads(made, tiny, preset, size):
    """`superweight check` decodes single scalars of the file; the library loads all of it."""
    directory = made(tiny, "compressed-tensors", {"preset": preset, "group_size": size})
    loaded, reader = effective(load(directory, "compressed-tensors"), LAYER), open_reader(directory)
    for row in range(0, loaded.shape[0], 7):
        for column in range(0, loaded.shape[1], 11):
            held = reader.scalar(Coordinate(layer=1, row=row, column=column))
            assert held.decoded.value == float(loaded[row, column]), (row, column)


@pytest.mark.real
@pytest.mark.parametrize(
    ("tool", "settings"),
    [
        ("compressed-tensors", {"preset": "W4A16", "group_size": 64}),
        ("compressed-tensors", {"preset": "W8A8"}),
        ("compressed-tensors", {"preset": "FP8_DYNAMIC"}),
    ],
)
def test_super_weights_of_the_embedded_model_stay_within_a_step(made, embedded, tool, settings):
    library = load_library()
    directory = made(embedded.directory, tool, settings)
    weights = of_card(library.models["smollm2-135m-instruct"])
    found = check(open_reader(directory), open_reader(embedded.directory), weights, Promise.of("within-step"))
    assert len(found.super_weights) == 4
    assert not found.broken, found


@pytest.mark.real
def test_auto_round_writes_a_gguf_file_of_the_embedded_model(made, embedded):
    directory = made(embedded.directory, "auto-round", {"format": "gguf:q4_k_m"})
    (file,) = directory.iterdir()
    assert file.read_bytes()[:4] == b"GGUF"
    assert 100e6 < file.stat().st_size < 110e6


@pytest.mark.real
def test_bitsandbytes_spoils_a_model_that_ran_before_it_was_saved(made, embedded):
    """Where the CPU has the kernel that packs weights anew; elsewhere both files are the same."""
    from safetensors import safe_open

    found = {}
    for first in (False, True):
        directory = made(embedded.directory, "bitsandbytes", {"format": "nf4", "run_before_saving": first})
        with safe_open(directory / "model.safetensors", "pt") as file:
            scales = file.get_slice("model.layers.11.mlp.down_proj.weight.absmax")
            found[first] = (scales.get_dtype(), scales.get_shape())
    assert found[False] == ("F32", [13824])  # 576 x 1536 weights in blocks of 64
    packs = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    assert (found[True] != found[False]) == packs
