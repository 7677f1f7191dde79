"""Load a compressed checkpoint as its format's own runtime loads it, with the care that the reference gets.

`loading.load_model` refuses what is quantised, since a reference must be what its files say. Here codes are meant.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from superweight.checkpoint import gguf
from superweight.checkpoint.artefact_files import ArtefactFiles
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.loading import LoadedModel
from superweight.checkpoint.quantisers import (
    DECODED,
    Activations,
    Settings,
    check_packages,
    library_versions,
    rounds_activations,
    scale_spans_tokens,
    settings_of,
    weights_differ,
)
from superweight.checkpoint.quiet import quiet
from superweight.checkpoint.same_model import check_architecture, check_vocabulary, tokenizer_differences
from superweight.checkpoint.shards import read_tensors
from superweight.errors import InfraError
from superweight.gc_pause import gc_paused
from superweight.plain_text import briefly

_COMPUTE = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PLAIN = ("F64", "F32", "F16", "BF16")
_TOKENS = 8  # of the first pass, at which some formats decode their weights
_LISTED = 5


@dataclass
class QuantisedModel:
    """A compressed model that can be run.

    Attributes:
        loaded: the model, in the arithmetic that its files ask for; its tokenizer is the reference's.
        how: what loaded it, and what became of its codes.
        activations: what becomes of activations as it runs.
        spans_tokens: whether tokens that are computed together may change each other's rounding.
        libraries: versions of what loads and runs it.
        notes: what a reader of its figures must know.
    """

    loaded: LoadedModel
    how: str
    activations: Activations
    spans_tokens: bool
    libraries: dict[str, str]
    notes: list[str]


def load_quantised(
    files: ArtefactFiles,
    reference: LoadedModel,
    cache: Cache,
    *,
    dequantised: bool = False,
    dtype: str | None = None,
) -> QuantisedModel:
    """Load what transformers, or quanto, can load.

    Args:
        files: safetensors, or GGUF, which is decoded to float32 tensor by tensor.
        reference: the uncompressed model, whose architecture, vocabulary and tokenizer it must share.
        cache: where decoded GGUF files are kept.
        dequantised: decode weights before anything is run, which leaves activations alone.
        dtype: arithmetic of forward passes; what its config.json says if not given.

    Raises:
        InfraError: another architecture or vocabulary than the reference's (`recipe-mismatch`); a tensor that is
            missing, unused or of another shape; a format that is not known, or that this machine cannot run
            (`unsupported`, `missing-package`).
    """
    directory = files.path
    if files.container == "gguf":
        directory = gguf.convert(files.path, cache.sha256(files.path), cache)
    settings = Settings("", {}) if files.container == "gguf" else settings_of(directory)
    check_packages(settings.method)
    asks = rounds_activations(settings)
    with gc_paused(), quiet():
        notes = _check_same(directory, reference)
        made = _Loading(directory, settings, reference.device, _COMPUTE[dtype] if dtype else "auto", asks)
        made.load(dequantised=dequantised)
        made.model.eval().requires_grad_(False)
        inference_mode = _wake(made.model, directory)
    check_vocabulary(files.path, _answers(made.model), _answers(reference.model))
    checkpoint = Checkpoint(directory, files.origin, files.content_hash)
    own, compute = _dtypes(made.model)
    loaded = LoadedModel(
        made.model, reference.tokenizer, checkpoint, own, compute, reference.device, inference_mode=inference_mode
    )
    how = _decoded_gguf(directory) if files.container == "gguf" else made.how
    more = ("gguf",) if files.container == "gguf" else ()
    return QuantisedModel(
        loaded,
        how=f"transformers {version('transformers')}, {how}; {_modules(made.model)}",
        activations=_activations(asks, decoded=made.decoded),
        spans_tokens=scale_spans_tokens(settings) and not made.decoded,
        libraries=library_versions(settings.method, ("transformers", "accelerate", *more)),
        notes=[*notes, *made.notes],
    )


class _Loading:
    """One attempt, or two: as shipped, and with weights decoded first."""

    def __init__(
        self, directory: Path, settings: Settings, device: torch.device, dtype: torch.dtype | str, asks: bool | None
    ) -> None:
        self._directory, self._settings, self._device, self._dtype = directory, settings, device, dtype
        self._asks = asks
        self.model: Any = None
        self.how = ""
        self.decoded = False
        self.notes: list[str] = []

    def load(self, *, dequantised: bool) -> None:
        """Load it; where it cannot be loaded as shipped and rounds no activations, decoding first is the same model."""
        method = self._settings.method
        if dequantised:
            self._load_decoded("its weights decoded first, as the card asks")
            return
        try:
            self._load_as_shipped()
        except InfraError as error:
            if error.reason == "missing-tensor" or method not in DECODED or self._asks is not False:
                raise
            self._load_decoded("its weights decoded first")
            why = str(error).partition(";")[0].removeprefix(f"{self._directory}: ")
            self.notes.append(f"transformers cannot load it as shipped, so its weights were decoded first: {why}")
        if self.decoded and self._asks is not False:
            raise InfraError(
                f"{self._directory} asks for rounded activations, and transformers decodes {method} weights on this "
                "device and leaves activations alone. Set load = 'dequantised' on a card to measure that, or gate it "
                "where its kernels run.",
                reason="unsupported",
            )

    def _load_as_shipped(self) -> None:
        if self._settings.method == "quanto":
            self.model = _load_quanto(self._directory, self._dtype, self._device)
        else:
            self._check_known()
            self.model = self._from_pretrained()
        self.decoded = bool(self._settings.method in DECODED and getattr(self.model, "hf_quantizer", None) is None)
        name = self._settings.method or "plain numbers"
        self.how = f"{name}{', its weights decoded first' if self.decoded else ' as shipped'}"

    def _load_decoded(self, how: str) -> None:
        method = self._settings.method
        if method not in DECODED:
            if not method:
                self._load_as_shipped()
                return
            raise InfraError(
                f"{self._directory}: weights of {method} cannot be decoded before they are run; that is known of "
                f"{', '.join(DECODED)}. Leave 'load' out of the card.",
                reason="unsupported",
            )
        if method == "compressed-tensors" and weights_differ(self._settings.values):
            raise InfraError(
                f"{self._directory}: its groups store weights in different ways, and transformers "
                f"{version('transformers')} decodes all of them by the first, into other numbers. Load it as shipped.",
                reason="unsupported",
            )
        config = getattr(importlib.import_module("transformers"), DECODED[method])
        self.model = self._from_pretrained(quantization_config=config(dequantize=True))
        self.how, self.decoded = f"{method}, {how}", True

    def _check_known(self) -> None:
        method = self._settings.method
        from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as KNOWN

        if method and method not in KNOWN and method != "bitsandbytes":
            raise InfraError(
                f"{self._directory} is quantised by '{method}', which transformers {version('transformers')} does not "
                f"know. It knows {', '.join(sorted(KNOWN))}.",
                reason="unsupported",
            )
        tensors = read_tensors(self._directory)
        codes = [name for name, info in tensors.items() if name.endswith(".weight") and info.dtype not in _PLAIN]
        if not method and codes:
            raise InfraError(
                f"{self._directory} stores {codes[0]} as {tensors[codes[0]].dtype}, and config.json names no quantiser "
                "that says what such codes mean. Put the quantiser's settings into config.json.",
                reason="unsupported",
            )

    def _from_pretrained(self, **more: Any) -> Any:
        from transformers import AutoModelForCausalLM

        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                self._directory,
                dtype=self._dtype,
                device_map=None if self._device.type == "cpu" else {"": self._device},
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # reported below, all at once
                output_loading_info=True,
                **more,
            )
        except (torch.OutOfMemoryError, MemoryError, InfraError):
            raise
        except Exception as error:
            raise _cannot_load(self._directory, error) from error
        _check_loading(info, self._directory)
        return model


def _load_quanto(directory: Path, dtype: torch.dtype | str, device: torch.device) -> Any:
    """As `optimum.quanto` loads what it saved, which transformers does not."""
    from optimum.quanto import QuantizedModelForCausalLM

    with _default_dtype(directory, dtype):
        try:
            model = QuantizedModelForCausalLM.from_pretrained(str(directory))._wrapped.to(device)
        except Exception as error:
            raise _cannot_load(directory, error) from error
    held, needed = set(read_tensors(directory)), set(model.state_dict())
    tied = {name for name in needed if _is_tied(model, name)}
    missing, unused = sorted(needed - held - tied), sorted(held - needed)
    if meta := [name for name, tensor in model.named_parameters() if tensor.is_meta]:
        missing += meta
    _check_loading({"missing_keys": missing, "unexpected_keys": unused, "mismatched_keys": ()}, directory)
    return model


@contextmanager
def _default_dtype(directory: Path, dtype: torch.dtype | str) -> Iterator[None]:
    """Quanto makes a model in torch's default dtype before it fills it."""
    from transformers import AutoConfig

    wanted = dtype
    if not isinstance(wanted, torch.dtype):
        wanted = getattr(AutoConfig.from_pretrained(directory, local_files_only=True), "dtype", None) or torch.float32
    before = torch.get_default_dtype()
    torch.set_default_dtype(wanted)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _is_tied(model: nn.Module, name: str) -> bool:
    """Whether a tensor of the head is the embeddings' own."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[operator]
    same = head is not None and getattr(head, "weight", None) is getattr(table, "weight", None)
    return bool(same and name.startswith(_name_of(model, head)))


def _name_of(model: nn.Module, module: nn.Module) -> str:
    return next((name for name, one in model.named_modules() if one is module), "\0")


def _check_same(directory: Path, reference: LoadedModel) -> list[str]:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise InfraError(
            f"{directory}: its config.json cannot be read by transformers ({briefly(error)}).", reason="unsupported"
        ) from error
    return [
        *check_architecture(directory, config, reference.model.config),
        *tokenizer_differences(directory, reference.tokenizer),
    ]


def _check_loading(info: dict[str, Any], directory: Path) -> None:
    """Refuse a model of which a part would be made up, or a file of which a part would be left out."""
    if mismatched := sorted(info["mismatched_keys"]):
        listed = "; ".join(
            f"{name}: found {tuple(found)}, expected {tuple(needed)}" for name, found, needed in mismatched[:_LISTED]
        )
        raise InfraError(
            f"{directory}: {len(mismatched)} tensors do not have the shape that their settings ask for: {listed}.",
            reason="corrupt",
        )
    if missing := sorted(info["missing_keys"]):
        raise InfraError(
            f"{directory} lacks {len(missing)} tensors that the model needs: {_listed(missing)}. They would be filled "
            f"with whatever is there. {_beside(directory)}Have it written again.",
            reason="missing-tensor",
        )
    if unused := sorted(info["unexpected_keys"]):
        raise InfraError(
            f"{directory} holds {len(unused)} tensors of which its runtime makes no use: {_listed(unused)}. What is "
            f"measured must be what the file holds. {_beside(directory)}Have it written again.",
            reason="unused-tensor",
        )
    if problems := info.get("error_msgs"):
        raise InfraError(f"{directory} cannot be loaded: {problems[0]}", reason="corrupt")


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", …" if len(names) > _LISTED else "")


def _beside(directory: Path) -> str:
    """A quantiser's settings that lie where transformers does not look for them."""
    names = ("quantize_config.json", "quant_config.json", "quantization_config.json", "hf_quant_config.json")
    found = [name for name in names if (directory / name).is_file()]
    if not found or settings_of(directory).method:
        return ""
    return f"{found[0]} lies beside it, but config.json names no quantiser, which is where transformers looks. "


def _cannot_load(directory: Path, error: Exception) -> InfraError:
    return InfraError(
        f"{directory} cannot be loaded as a causal language model ({briefly(error)}). "
        "Code in a repository is never run.",
        reason="unsupported",
    )


def _wake(model: Any, directory: Path) -> bool:
    """A first pass, at which some formats decode their weights or pack them for this processor.

    Returns:
        whether it runs in torch's inference mode.
    """
    try:
        with torch.no_grad():
            _few_tokens(model)
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise InfraError(
            f"{directory} can be loaded, and not run on this machine ({briefly(error)}).", reason="unsupported"
        ) from error
    try:
        with torch.inference_mode():
            _few_tokens(model)
    except RuntimeError:  # of quanto's 4-bit weights
        return False
    return True


def _few_tokens(model: Any) -> None:
    vocabulary, device = model.config.get_text_config().vocab_size, next(model.parameters()).device
    model(input_ids=torch.arange(_TOKENS, device=device)[None] % vocabulary, use_cache=False)


def _answers(model: Any) -> int:
    """How many tokens a model chooses among, by what it answers."""
    tokens = torch.zeros(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    with torch.no_grad():
        return int(model(input_ids=tokens, use_cache=False).logits.shape[-1])


def _dtypes(model: Any) -> tuple[torch.dtype, torch.dtype]:
    """What the model takes for its own dtype; and that of its first parameter, so that nothing is cast on the way."""
    first = next(model.parameters()).dtype
    own = model.dtype if model.dtype.is_floating_point else first
    return own, first


def _activations(asks: bool | None, *, decoded: bool) -> Activations:
    if asks is None:
        return "not known"
    if not asks:
        return "as they are"
    return "not rounded though the file asks for it" if decoded else "rounded"


def _modules(model: nn.Module) -> str:
    """Which classes its linear layers are of."""
    names = [type(module).__name__ for module in model.modules() if "linear" in type(module).__name__.lower()]
    weights = [type(getattr(module, "weight", None)).__name__ for module in model.modules()]
    own = Counter(name for name in weights if name not in ("NoneType", "Parameter", "Tensor", "method"))
    parts = [f"{count} {name}" for name, count in Counter(names).most_common()]
    return ", ".join([*parts, *(f"{count} weights of {name}" for name, count in own.items())]) or "no linear layers"


def _decoded_gguf(directory: Path) -> str:
    from superweight.checkpoint.files import ORIGIN_FILE
    from superweight.checkpoint.shards import read_json

    types = read_json(directory / ORIGIN_FILE).get("quantisation", {})
    listed = ", ".join(f"{name} × {count}" for name, count in types.items())
    return f"GGUF decoded to float32 tensor by tensor ({listed})"
