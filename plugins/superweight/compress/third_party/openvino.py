"""OpenVINO with NNCF: the model in OpenVINO's own form, from token ids and mask to logits, its weights compressed."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job

_STEPS = "steps: load, convert, compress, save"


def quantise(job: Job) -> None:
    """Trace the model, compress its weights, and save it."""
    os.environ.setdefault("CI", "true")  # openvino-telemetry tells nobody where that is set
    import nncf
    import openvino

    job.progress(0, 4, _STEPS)
    compressed = nncf.compress_weights(_converted(job), **_options(job.settings))
    job.progress(3, 4, _STEPS)
    openvino.save_model(compressed, str(job.out / "openvino_model.xml"), compress_to_fp16=False)
    shutil.copyfile(job.source / "config.json", job.out / "config.json")
    job.copy_tokenizer()
    job.progress(4, 4, _STEPS)


def _converted(job: Job) -> Any:
    import openvino
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.source, dtype=torch.float32).eval()
    model.config.use_cache = False
    job.progress(1, 4, _STEPS)
    inputs = {name: torch.ones((2, 8), dtype=torch.int64) for name in ("input_ids", "attention_mask")}
    any_size = [(name, [-1, -1], openvino.Type.i64) for name in inputs]
    with torch.no_grad():
        converted = openvino.convert_model(model, example_input=inputs, input=any_size)
    job.progress(2, 4, _STEPS)
    return converted


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    import nncf

    options: dict[str, Any] = {"mode": nncf.CompressWeightsMode(settings["mode"])}
    options |= {name: settings[name] for name in ("group_size", "ratio") if settings[name] is not None}
    if settings["ignore"]:
        patterns = [rf".*\b{re.escape(name)}/.*" for name in settings["ignore"]]
        options["ignored_scope"] = nncf.IgnoredScope(patterns=patterns)
    return options
