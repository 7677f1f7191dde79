"""bitsandbytes through transformers: nf4, fp4 and int8."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job


def quantise(job: Job) -> None:
    """Load the model quantised, and save it."""
    import bitsandbytes  # noqa: F401 - transformers' own word for its absence is longer
    import torch
    from transformers import AutoModelForCausalLM

    settings = job.settings
    job.progress(0, 2, "steps: quantise, save")
    model = AutoModelForCausalLM.from_pretrained(
        job.source,
        dtype=getattr(torch, settings["dtype"]),
        device_map={"": job.device},
        quantization_config=_config(settings),
    )
    if settings["run_before_saving"]:
        with torch.no_grad():
            model(torch.arange(16, device=job.device)[None])
    job.progress(1, 2, "steps: quantise, save")
    model.save_pretrained(job.out)
    job.copy_tokenizer()
    job.progress(2, 2, "steps: quantise, save")


def _config(settings: dict[str, Any]) -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    skipped = ["lm_head", *settings["ignore"]] if settings["ignore"] else None  # a list replaces the default
    if settings["format"] == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=settings["format"],
        bnb_4bit_use_double_quant=settings["nested"],
        bnb_4bit_compute_dtype=getattr(torch, settings["dtype"]),
        llm_int8_skip_modules=skipped,
    )
