"""A checkpoint in memory: the model, its tokenizer, its architecture, and the arithmetic it is run in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from superweight.checkpoint.account import Account, account
from superweight.checkpoint.architecture import Architecture
from superweight.checkpoint.bits import all_finite
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.remnants import check_directory
from superweight.checkpoint.spelling import check_spelling
from superweight.errors import InfraError
from superweight.gc_pause import gc_paused
from superweight.plain_text import briefly

_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_CAST_BYTES = 4 * 2**30  # of weights in a lower compute dtype, kept beside the stored ones while passes run
_COMPUTE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PROBE = "Is it a 1st-rate word, or “naïve” 名 💥?\n"
_TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
)


@dataclass
class LoadedModel:
    """A model on a device.

    Attributes:
        model: the transformers model, in eval mode, its parameters frozen.
        tokenizer: its tokenizer.
        checkpoint: the files it came from.
        dtype: the checkpoint's own dtype: what recipes round their results to, and what the invariant compares.
        compute_dtype: arithmetic of matmuls in the forward pass.
        device: where the parameters are.
        account: what became of every tensor of the files; None of a model that was not loaded from files.
        inference_mode: whether passes may run in torch's inference mode, which weights of some quantisers do not take.
        recipes: kinds of the recipes in force; empty while the model is what its files hold.
    """

    model: Any
    tokenizer: Any
    checkpoint: Checkpoint
    dtype: torch.dtype
    compute_dtype: torch.dtype
    device: torch.device
    account: Account | None = None
    inference_mode: bool = True
    recipes: list[str] = field(default_factory=list, compare=False)

    @cached_property
    def architecture(self) -> Architecture:
        """Decoder layers and linear weights, found by structure."""
        return Architecture(self.model)

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Run forward passes in here: no gradients, matmuls in `compute_dtype`.

        Parameters stay in the dtype they are stored in, so that what is checked bit for bit is what is measured;
        a lower `compute_dtype` is reached by autocast, which casts each weight once in the block: do not change
        weights inside.
        """
        differs = self.compute_dtype != next(self.model.parameters()).dtype
        with (
            torch.no_grad() if differs or not self.inference_mode else torch.inference_mode(),
            # in inference mode, autocast keeps nothing
            torch.autocast(self.device.type, self.compute_dtype, enabled=differs),
            _cast_once(self.model, self.compute_dtype) if differs else nullcontext(),
        ):
            yield


def load_model(checkpoint: Checkpoint, *, device: str = "cpu", compute_dtype: str | None = None) -> LoadedModel:
    """Load a checkpoint's model and tokenizer, and refuse what would make figures worthless.

    Args:
        checkpoint: its files.
        device: a torch device, `cpu`, `cuda`, `cuda:1`.
        compute_dtype: `float32`, `float16` or `bfloat16`; the checkpoint's own if not given. A wider one than the
            stored dtype upcasts the parameters, which is exact; a narrower one leaves them and is reached by autocast.

    Raises:
        InfraError: missing-tensor (transformers would fill it at random), unused-tensor, corrupt (shapes that do not
            fit, other values than the file's, a misspelt setting), unsupported (architecture, quantised checkpoint,
            adapter, device, dtype), non-finite, or not-found (no tokenizer).
    """
    place = _device(device)
    not_read = check_directory(checkpoint)
    stored = _stored_dtype(checkpoint)
    compute = _compute_dtype(compute_dtype, stored)
    with gc_paused(), quiet():  # transformers imports the architecture's code in here
        tokenizer = _load_tokenizer(checkpoint.directory)
        model = _load_weights(checkpoint, stored, place)
    check_spelling(model.config, checkpoint)
    _check_finite(model, checkpoint)
    found = account(model, checkpoint, not_read)
    loaded = LoadedModel(model, tokenizer, checkpoint, stored, compute, place, found)
    _check_linear_weights(loaded)
    if compute.itemsize > stored.itemsize:
        model.to(compute)
    model.eval().requires_grad_(False)
    return loaded


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings to itself; what matters in them is raised as an error."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def _cast_once(model: torch.nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let autocast keep what it casts until it ends: it does so for parameters that ask for gradients.

    None are computed under `no_grad`. Copies of all weights must be affordable.
    """
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    if sum(parameter.numel() for parameter in frozen) * dtype.itemsize > _CAST_BYTES:
        frozen = []
    try:
        for parameter in frozen:
            parameter.requires_grad_(parameter.is_floating_point())
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InfraError(
            f"{name!r} names no device of torch; expected cpu, cuda or cuda:N.", reason="unsupported"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InfraError(
            f"The device {name} was asked for, but torch {torch.__version__} sees {torch.cuda.device_count()} CUDA "
            "devices. Use the device cpu, or install a CUDA build of torch on a machine with a GPU.",
            reason="unsupported",
        )
    return device


def _stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """The dtype that most of the checkpoint's weights are stored in, whatever config.json claims."""
    sizes: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        sizes[tensor.dtype] += tensor.stop - tensor.start
    name = sizes.most_common(1)[0][0] if sizes else "nothing"
    if name not in _DTYPES:
        raise InfraError(
            f"{checkpoint.directory} stores most of its weights as {name}; expected {', '.join(_DTYPES)}. "
            "Use the uncompressed checkpoint.",
            reason="unsupported",
        )
    return _DTYPES[name]


def _compute_dtype(name: str | None, stored: torch.dtype) -> torch.dtype:
    if name is not None and name not in _COMPUTE:
        raise InfraError(
            f"The compute dtype {name!r} is unknown; allowed are {', '.join(_COMPUTE)}.", reason="unsupported"
        )
    return stored if name is None else _COMPUTE[name]


def _load_tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    if not any((directory / name).is_file() for name in _TOKENIZERS):
        raise InfraError(
            f"{directory} holds no tokenizer (none of {', '.join(_TOKENIZERS)}), so no text can be measured. "
            "Copy the model's tokenizer files there.",
            reason="not-found",
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        tokenizer(_PROBE)  # some files can be read and not be used
        return tokenizer
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of tokenizers' Rust
            raise
        raise InfraError(
            f"The tokenizer in {directory} cannot be loaded ({briefly(error)}). Get its files again; a "
            "tokenizer.model needs the package sentencepiece.",
            reason="unsupported",
        ) from error


def _load_weights(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            checkpoint.directory,
            dtype=dtype,
            device_map=None if device.type == "cpu" else {"": device},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, all at once
            output_loading_info=True,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise InfraError(
            f"transformers cannot load {checkpoint.directory} as a causal language model "
            f"({briefly(error)}). "
            "Code in the repository is never run; models that need it cannot be gated.",
            reason="unsupported",
        ) from error
    _check_loading(info, checkpoint)
    return model


def _check_loading(info: dict[str, Any], checkpoint: Checkpoint) -> None:
    if mismatched := sorted(info["mismatched_keys"]):
        listed = "; ".join(
            f"{name}: found {tuple(found)}, expected {tuple(needed)}" for name, found, needed in mismatched[:5]
        )
        raise InfraError(
            f"{checkpoint.directory}: {len(mismatched)} tensors do not have the shape that config.json asks for: "
            f"{listed}. The config and the weights belong to different models; get both again.",
            reason="corrupt",
        )
    if missing := sorted(info["missing_keys"]):
        raise InfraError(
            f"{checkpoint.directory} lacks {len(missing)} tensors that the model needs: {', '.join(missing[:8])}"
            f"{', …' if len(missing) > 8 else ''}. They would be filled at random. "
            "Get the checkpoint again from its origin.",
            reason="missing-tensor",
        )
    if problems := info.get("error_msgs"):
        raise InfraError(f"{checkpoint.directory} cannot be loaded: {problems[0]}", reason="corrupt")


def _check_finite(model: Any, checkpoint: Checkpoint) -> None:
    """Refuse NaN and infinity, in one read of each weight."""
    found: list[str] = []
    for name, parameter in model.named_parameters():
        weight = parameter.detach()
        if weight.is_floating_point() and not all_finite(weight):
            bad = (~torch.isfinite(weight)).nonzero()
            where = bad[0].tolist()
            found.append(f"{name} ({len(bad)}, first {where} = {weight[tuple(where)].item()})")
    if found:
        raise InfraError(
            f"{checkpoint.directory} holds NaN or infinity in {len(found)} weights: {'; '.join(found[:5])}. "
            "No figure measured on it would mean anything. Get the checkpoint again from its origin.",
            reason="non-finite",
        )


def _check_linear_weights(loaded: LoadedModel) -> None:
    """What recipes compress must be held in the dtype it is stored in, or bit-for-bit checks would be void."""
    changed = {**loaded.account.widened, **loaded.account.rounded} if loaded.account else {}
    for weight in loaded.architecture.linear_weights:
        if weight.name in changed:
            raise InfraError(
                f"{weight.name} is stored unlike most of {loaded.checkpoint.directory} ({changed[weight.name]}). Save "
                "the linear weights of the decoder layers in one dtype.",
                reason="unsupported",
            )
