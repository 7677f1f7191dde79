"""optimum's GPTQ quantiser, which rests on gptqmodel's layers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job


def quantise(job: Job) -> None:
    """Quantise block by block on the windows, and save."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 1) // 2)))  # its loader needs two
    import torch
    from optimum.gptq import GPTQQuantizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    settings = job.settings
    model = AutoModelForCausalLM.from_pretrained(job.source, dtype=getattr(torch, settings["dtype"])).to(job.device)
    windows = [{"input_ids": [window], "attention_mask": [[1] * len(window)]} for window in job.windows()]
    names = ("bits", "group_size", "sym", "desc_act", "damp_percent")
    quantiser = GPTQQuantizer(**{name: settings[name] for name in names}, dataset=windows, batch_size=1)
    quantised = quantiser.quantize_model(model, AutoTokenizer.from_pretrained(job.source))
    quantiser.save(quantised, str(job.out))
    job.copy_tokenizer()
