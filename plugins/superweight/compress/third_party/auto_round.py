"""auto-round: weights rounded to nearest or tuned on text, written in its own format, GPTQ's, AWQ's or GGUF's."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job


def quantise(job: Job) -> None:
    """Round or tune, and export."""
    from auto_round import AutoRound

    settings = job.settings
    model, tokenizer = _load(job)
    is_gguf = settings["format"].startswith("gguf:")
    names = ("bits", "group_size", "sym")
    scheme = {"scheme": settings["format"]} if is_gguf else {name: settings[name] for name in names}
    rounder = AutoRound(
        model,
        tokenizer,
        **scheme,
        iters=settings["iters"],
        **_text(job),
        layer_config={name: {"bits": 16} for name in settings["ignore"]} or None,
        device_map=job.device,
    )
    rounder.quantize_and_save(str(job.out), format=settings["format"])
    _lift(job.out)


def _load(job: Job) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = getattr(torch, job.settings["dtype"])
    return (
        AutoModelForCausalLM.from_pretrained(job.source, dtype=dtype).eval(),
        AutoTokenizer.from_pretrained(job.source),
    )


def _text(job: Job) -> dict[str, Any]:
    """What it calibrates on: windows of token ids, one a batch."""
    import torch

    if job.calibration is None:
        return {"disable_opt_rtn": True}  # else it weighs rounding errors by text that it gets from a hub
    windows = [torch.tensor([window]) for window in job.windows()]
    return {"dataset": windows, "nsamples": len(windows), "seqlen": windows[0].shape[1], "batch_size": 1}


def _lift(out: Path) -> None:
    """Bring files out of the directory of its own that an export may have made."""
    inner = [path for path in out.iterdir() if path.is_dir()]
    if len(inner) == 1 and not any(path.is_file() for path in out.iterdir()):
        for path in inner[0].iterdir():
            shutil.move(path, out / path.name)
        inner[0].rmdir()
