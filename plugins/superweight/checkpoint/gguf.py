"""GGUF to safetensors, once: dequantised to float32 exactly as transformers does it, kept in the cache."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import redirect_stderr
from importlib.metadata import version
from pathlib import Path
from typing import Any

from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.problems import missing_package
from superweight.checkpoint.fetching.progress import step_bar
from superweight.checkpoint.files import ORIGIN_FILE
from superweight.checkpoint.gguf_header import GgufSummary, read_gguf_header
from superweight.errors import InfraError

_CONVERTER = 1  # raise it when the conversion's outcome changes
_SAME_ROTATION = 1e-4  # relative; between a table in float32 and one computed


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
            _check_whole(gguf, summary)
            with cache.publish_directory(target) as directory:
                _convert(gguf, summary, directory, progress)
                _note_origin(gguf, sha256, summary, directory)
    return target


def _check_whole(gguf: Path, summary: GgufSummary) -> None:
    part, parts = summary.part
    if parts > 1:
        raise InfraError(
            f"{gguf} is part {part} of {parts} of a split model. Merge the parts into one file "
            "(llama-gguf-split --merge FIRST_PART WHOLE.gguf), and gate that.",
            reason="unsupported",
        )


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


def _convert(gguf: Path, summary: GgufSummary, directory: Path, progress: bool) -> None:
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
        _check_all_used(gguf, summary, model)
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
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:  # the last, of tensors' shapes
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


def _check_all_used(gguf: Path, summary: GgufSummary, model: Any) -> None:
    """Refuse a file of which transformers would drop a tensor without a word, as it does with names it does not map."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    processor = TENSOR_PROCESSORS.get(summary.architecture, TensorProcessor)(config=model.config.to_dict())
    used = get_gguf_hf_weights_map(model, processor)
    dropped = [name for name in summary.tensors if name not in used and not _is_own_rotation(gguf, name, model)]
    if dropped:
        listed = ", ".join(dropped[:5]) + (", …" if len(dropped) > 5 else "")
        raise InfraError(
            f"{gguf}: transformers makes no use of {len(dropped)} of {len(summary.tensors)} tensors: {listed}. What is "
            "measured must be what the file holds: use the model's safetensors instead.",
            reason="unused-tensor",
        )


def _is_own_rotation(gguf: Path, name: str, model: Any) -> bool:
    """Whether a tensor is the factors of long-context rotary frequencies, and the model's own frequencies have them.

    llama.cpp divides the plain frequencies θ^(−2i/d) by them; transformers computes the scaled ones from its config.
    """
    own = [buffer for label, buffer in model.named_buffers() if label.endswith("rotary_emb.inv_freq")]
    if name != "rope_freqs.weight" or not own:
        return False
    import torch
    from gguf import GGUFReader, dequantize

    tensor = next(tensor for tensor in GGUFReader(gguf).tensors if tensor.name == name)
    factors = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).double().flatten()
    theta = (getattr(model.config, "rope_parameters", None) or {}).get("rope_theta", 10_000.0)
    plain = theta ** -(torch.arange(len(factors), dtype=torch.float64) / len(factors))
    return own[0].shape == factors.shape and torch.allclose(own[0].double(), plain / factors, rtol=_SAME_ROTATION)


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
