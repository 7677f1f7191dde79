"""Makes tests/data/artefacts/torchao: `PYTHONPATH=tests python tests/data/artefacts/make_torchao.py`. Needs torchao."""

import tempfile
from pathlib import Path

import torch
from torchao.quantization import (
    Float8WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
    PerGroup,
)
from transformers import AutoModelForCausalLM, TorchAoConfig

from support.cut_artefacts import MODULE, cut, dense

HERE = Path(__file__).parent
RECIPES = {
    "int8": (Int8WeightOnlyConfig(), torch.bfloat16),
    "int8-dynamic": (Int8DynamicActivationInt8WeightConfig(), torch.float32),
    "int8-groups": (Int8WeightOnlyConfig(granularity=PerGroup(32)), torch.bfloat16),
    "int4-asymmetric": (
        IntxWeightOnlyConfig(torch.int4, granularity=PerGroup(32), mapping_type=MappingType.ASYMMETRIC),
        torch.bfloat16,
    ),
    "int3": (IntxWeightOnlyConfig(torch.int3), torch.float16),
    "float8": (Float8WeightOnlyConfig(), torch.bfloat16),
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as source:
        dense().save_pretrained(source)
        for name, (config, dtype) in RECIPES.items():
            with tempfile.TemporaryDirectory() as work:
                how = {"quantization_config": TorchAoConfig(config), "dtype": dtype}
                AutoModelForCausalLM.from_pretrained(source, **how).save_pretrained(work)
                loaded = AutoModelForCausalLM.from_pretrained(work, dtype="auto")
                cut(Path(work), HERE / "torchao" / name, loaded.get_submodule(MODULE).weight.dequantize())
