"""GGUF to safetensors, once: dequantised to float32 exactly as transformers does it, kept in the cache."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import redirect_stderr
from importlib.metadata import version
from pathlib import Path
from typing import Any

from superweight.checkpoint.cache import Cache
from superweight.checkpoint.files import ORIGIN_FILE
from superweight.checkpoint.gguf_header import GgufSummary, read_gguf_header
from superweight.checkpoint.problems import missing_package
from superweight.checkpoint.progress import step_bar
from superweight.errors import InfraError

_CONVERTER = 1  # raise it when the conversion's outcome changes


def converted_path(sha256: str, cache: Cache) -> Path:
    """Where the conversion of the GGUF with this hash is, once it is there."""
    return cache.path("gguf", f"{sha256}-v{_CONVERTER}")


def convert(gguf: Path, sha256: str, cache: Cache, *, progress: bool = True) -> Path:
    """The directory with the GGUF's weights as float32 safetensors, its config and its tokenizer.

    Weights are bit for bit what `from_pretrained(gguf_file=…, dtype=float32)` gives. The first call takes as long as
    that; later calls only look. What the file was is noted in `superweight-origin.json`.

    Args:
        gguf: the file.
        sha256: its hash, the key in the cache.
        cache: where the result is kept.
        progress: show the steps.

    Raises:
        InfraError: corrupt, unsupported, missing-tensor, disk-full, or missing-package.
    """
    target = converted_path(sha256, cache)
    if target.is_dir():
        return target
    with cache.lock(f"conversion of {gguf.name} {sha256}"):
        if not target.is_dir():
            summary = read_gguf_header(gguf)
            with cache.publish_directory(target) as directory:
                _convert(gguf, directory, progress)
                _note_origin(gguf, sha256, summary, directory)
    return target


def _note_origin(gguf: Path, sha256: str, summary: GgufSummary, directory: Path) -> None:
    origin = {
        "format": "gguf",
        "file": gguf.name,
        "sha256": sha256,
        "architecture": summary.architecture,
        "quantisation": summary.quantisation,
        "block_sizes": summary.block_sizes,
        "bits_per_weight": summary.bits,
        "note": summary.note,
        "converter": {"version": _CONVERTER, "transformers": version("transformers"), "gguf": version("gguf")},
    }
    (directory / ORIGIN_FILE).write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")


def _convert(gguf: Path, directory: Path, progress: bool) -> None:
    try:
        from superweight.checkpoint.loading import quiet
    except ImportError as error:
        raise missing_package(error.name or "torch", "Converting a GGUF file") from error
    # Alone in a directory: transformers would mix in a config or a tokenizer that lies beside the file.
    with (
        tempfile.TemporaryDirectory() as alone,
        step_bar(f"Converting {gguf.name}", total=3, progress=progress) as bar,
        quiet(),
        redirect_stderr(io.StringIO()),  # transformers has a bar of its own that cannot be turned off
    ):
        (Path(alone) / "model.gguf").symlink_to(gguf.absolute())
        model = _load(gguf, alone)
        bar.update()
        model.save_pretrained(directory)
        bar.update()
        _tokenizer(gguf, alone).save_pretrained(directory)
        bar.update()


def _load(gguf: Path, alone: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            alone, gguf_file="model.gguf", dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InfraError(
            f"{gguf}: transformers cannot convert this GGUF ({error}). Use the model's safetensors instead.",
            reason="unsupported",
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise InfraError(
            f"{gguf} lacks {len(missing)} tensors that the model needs: {', '.join(missing[:5])}. "
            "They would be filled at random. Convert the file again from the original model.",
            reason="missing-tensor",
        )
    # The weights are plain float32 now; what says otherwise would make the saved copy unreadable.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    return model


def _tokenizer(gguf: Path, alone: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(alone, gguf_file="model.gguf", local_files_only=True)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InfraError(
            f"{gguf}: transformers cannot make a tokenizer from this GGUF ({error}). "
            "Use the model's safetensors instead.",
            reason="unsupported",
        ) from error
