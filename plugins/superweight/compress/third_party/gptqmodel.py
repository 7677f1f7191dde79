"""gptqmodel: GPTQ on calibration text, 2 to 8 bits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job


def quantise(job: Job) -> None:
    """Quantise layer by layer on the windows, and save."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", str(max(2, (os.cpu_count() or 1) // 2)))  # its loader needs two
    from gptqmodel import GPTQModel, QuantizeConfig

    settings = job.settings
    names = ("bits", "group_size", "sym", "desc_act", "damp_percent")
    left_out: dict[str, Any] | None = {f"-:{name}$": {} for name in settings["ignore"]} or None
    config = QuantizeConfig(**{name: settings[name] for name in names}, dynamic=left_out, device=job.device)
    model = GPTQModel.load(str(job.source), config, dtype=settings["dtype"])
    windows = [{"input_ids": window, "attention_mask": [1] * len(window)} for window in job.windows()]
    model.quantize(windows, batch_size=1)
    model.save(str(job.out))
    job.copy_tokenizer()
