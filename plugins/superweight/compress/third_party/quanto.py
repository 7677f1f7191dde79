"""quanto through optimum: int8, int4, int2 and float8 weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job


def quantise(job: Job) -> None:
    """Quantise the weights of the loaded model, and save it with quanto's own map of them."""
    import torch
    from optimum.quanto import QuantizedModelForCausalLM
    from optimum.quanto import qfloat8 as float8
    from optimum.quanto import qint2 as int2
    from optimum.quanto import qint4 as int4
    from optimum.quanto import qint8 as int8
    from transformers import AutoModelForCausalLM

    settings = job.settings
    job.progress(0, 3, "steps: load, quantise, save")
    model = AutoModelForCausalLM.from_pretrained(job.source, dtype=getattr(torch, settings["dtype"])).to(job.device)
    job.progress(1, 3, "steps: load, quantise, save")
    weights = {"int8": int8, "int4": int4, "int2": int2, "float8": float8}[settings["weights"]]
    quantised = QuantizedModelForCausalLM.quantize(model, weights=weights, exclude=["lm_head", *settings["ignore"]])
    job.progress(2, 3, "steps: load, quantise, save")
    quantised.save_pretrained(job.out)
    job.copy_tokenizer()
    job.progress(3, 3, "steps: load, quantise, save")
