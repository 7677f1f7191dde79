"""Makes tests/data/artefacts/quanto: `PYTHONPATH=tests python tests/data/artefacts/make_quanto.py`. Needs quanto."""

import tempfile
from pathlib import Path

import torch
from optimum.quanto import QuantizedModelForCausalLM, qtypes

from support.cut_artefacts import MODULE, cut, dense

HERE = Path(__file__).parent
RECIPES = {
    "qint8": ("qint8", torch.bfloat16),
    "qint4": ("qint4", torch.bfloat16),
    "qint4-float32": ("qint4", torch.float32),
    "qint2": ("qint2", torch.bfloat16),
    "qfloat8": ("qfloat8_e4m3fn", torch.bfloat16),
    "qfloat8-e5m2": ("qfloat8_e5m2", torch.float16),
}

if __name__ == "__main__":
    for name, (kind, dtype) in RECIPES.items():
        with tempfile.TemporaryDirectory() as work:
            quantised = QuantizedModelForCausalLM.quantize(
                dense().to(dtype), weights=qtypes[kind], include="*down_proj"
            )
            quantised.save_pretrained(work)
            loaded = QuantizedModelForCausalLM.from_pretrained(work)
            cut(Path(work), HERE / "quanto" / name, loaded.get_submodule(MODULE).weight.dequantize())
