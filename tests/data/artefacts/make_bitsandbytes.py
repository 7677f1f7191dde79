"""Makes tests/data/artefacts/bitsandbytes and the reference beside it: `PYTHONPATH=tests python …/make_bitsandbytes.py`.

Needs bitsandbytes. `nf4-forward` and `fp4-forward` are saved after a forward pass of the CPU's AVX512-BF16 kernels, or
after the repacking that comes with it, where the CPU has none: scales transposed and in bfloat16.
"""

import tempfile
from pathlib import Path

import torch
from bitsandbytes import functional
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from support.cut_artefacts import MODULE, OTHERS, cut, dense

HERE = Path(__file__).parent


def four(kind, **more):
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, llm_int8_skip_modules=OTHERS, **more)


RECIPES = {
    "nf4": (four("nf4"), torch.bfloat16),
    "nf4-float32": (four("nf4"), torch.float32),
    "nf4-nested": (four("nf4", bnb_4bit_use_double_quant=True), torch.bfloat16),
    "nf4-nested-float16": (four("nf4", bnb_4bit_use_double_quant=True), torch.float16),
    "nf4-storage": (four("nf4", bnb_4bit_quant_storage=torch.bfloat16), torch.bfloat16),
    "fp4": (four("fp4"), torch.bfloat16),
    "int8": (BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=OTHERS), torch.bfloat16),
}
AFTER_FORWARD = ("nf4", "nf4-nested", "fp4")


def quantised(source, name):
    config, dtype = RECIPES[name]
    return AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype=dtype).eval()


def run(model):
    """What a forward pass does to 4-bit weights on a CPU with AVX512-BF16."""
    for module in model.modules():
        if hasattr(getattr(module, "weight", None), "quant_state"):
            weight = module.weight
            weight.data, weight.quant_state = functional._convert_weight_packed_for_cpu(weight.data, weight.quant_state)


def decoded(directory):
    weight = AutoModelForCausalLM.from_pretrained(directory, dtype="auto").get_submodule(MODULE).weight
    if weight.dtype == torch.int8:
        return torch.ops.bitsandbytes.int8_vectorwise_dequant(weight.data, weight.SCB)
    return functional.dequantize_4bit(weight.data, weight.quant_state)


def make(source, name, *, forward=False):
    with tempfile.TemporaryDirectory() as work:
        model = quantised(source, name)
        if forward:
            run(model)
        model.save_pretrained(work)
        cut(Path(work), HERE / "bitsandbytes" / (f"{name}-forward" if forward else name), decoded(work))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        dense().save_pretrained(work)
        cut(Path(work), HERE / "reference")
        for each in RECIPES:
            make(work, each)
        for each in AFTER_FORWARD:
            make(work, each, forward=True)
