"""What a model lets requests share, found out by trying it on a few tokens and comparing with plain calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from superweight.forward.language_model import LanguageModel
from superweight.forward.layout import lay_out
from superweight.forward.packing import Cost, Request, Row

_LEAST = 32  # tokens; a model whose attention reaches less far back shares nothing
_REFUSALS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
_ATTENTION = 4  # how many times longer than a matmul's an operation of attention takes, roughly, on CPUs and GPUs


@dataclass(frozen=True)
class Sharing:
    """How requests may be computed together.

    Attributes:
        packed_rows: several requests may stand in one row, apart from each other by mask and positions.
        cached_prefix: what many begin with may stand in a key/value cache.
        reach: tokens within which local attention and full attention are the same; None if attention is not local.
        why_not: why neither is possible; empty otherwise.
    """

    packed_rows: bool
    cached_prefix: bool
    reach: int | None = None
    why_not: str = ""

    def __str__(self) -> str:
        if self.why_not:
            return f"each answer is computed alone: {self.why_not}"
        rows = "answers to one question share its text in one row" if self.packed_rows else "no two answers share a row"
        stems = "; long beginnings that questions share stand in a cache" if self.cached_prefix else ""
        return rows + stems + ("" if self.reach is None else f"; within {self.reach} tokens")


def find_sharing(language_model: LanguageModel, device: torch.device) -> Sharing:
    """Try sharing on a model that no recipe has changed yet."""
    model = language_model.model
    reach = min(_reaches(model.config), default=None)
    if getattr(model, "_is_stateful", False):
        return Sharing(
            packed_rows=False, cached_prefix=False, reach=reach, why_not="the model carries a recurrent state"
        )
    if reach is not None and reach < _LEAST:
        return Sharing(
            packed_rows=False, cached_prefix=False, reach=reach, why_not=f"its attention reaches {reach} tokens back"
        )
    tried = _SharingProbe(language_model, device)
    packs = attention(model) in ("sdpa", "eager") and tried.holds(tried.rows)
    caches = tried.holds(tried.branches_behind_a_stem if packs else tried.rows_behind_a_stem)
    why = "" if packs or caches else "tried on a few tokens, sharing changed the model's answers"
    return Sharing(packed_rows=packs, cached_prefix=caches, reach=reach, why_not=why)


def attention(model: Any) -> str:
    """The attention implementation in force."""
    return str(getattr(model.config, "_attn_implementation", ""))


def row_cost(model: Any) -> Cost:
    """What rows of a model cost, from the shapes in its configuration.

    A token costs 2 operations for each weight of the linear layers it passes, and 4 for each channel of all heads and
    each token that it attends to.
    """
    config = model.config.get_text_config()
    tables = [module for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module is not None]
    embedded = {id(parameter): parameter.numel() for module in tables for parameter in module.parameters()}
    body = max(1, sum(parameter.numel() for parameter in model.parameters()) - sum(embedded.values()))
    hidden = int(getattr(config, "hidden_size", 1))
    heads = getattr(config, "num_attention_heads", None)
    width = int(getattr(config, "head_dim", None) or 0) * heads if isinstance(heads, int) else 0
    layers = int(getattr(config, "num_hidden_layers", 1))
    return Cost(reach=max(1.0, 2 * body / (4 * max(hidden, width) * layers * _ATTENTION)))


def _reaches(config: Any) -> list[int]:
    """How far back attention reaches, where it is bounded: within that, local and full attention are the same."""
    text = config.get_text_config()
    bounds = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size", "window_size")]
    return [bound for bound in bounds if isinstance(bound, int)]


class _SharingProbe:
    """Two requests that begin alike, run plainly and in shared ways."""

    def __init__(self, language_model: LanguageModel, device: torch.device) -> None:
        self._language_model, self._device = language_model, device
        context = [(7 * k + 3) % language_model.vocabulary for k in range(12)]
        self._requests = (Request(0, (*context, 1, 2, 3), 12), Request(1, (*context, 4, 5, 6, 7), 12))

    def holds(self, way: Callable[[], torch.Tensor]) -> bool:
        """Whether the second request gets the logits it gets in a plain call."""
        model, wanted = self._language_model.model, self._requests[1]
        with torch.no_grad():
            plain = model(input_ids=torch.tensor([wanted.inputs], device=self._device), use_cache=False).logits
            try:
                found = way()
            except _REFUSALS:
                return False
        return _close(found, plain[0, wanted.start - 1 :])

    def rows(self) -> torch.Tensor:
        return self._logits([Row(self._requests, 12)])

    def rows_behind_a_stem(self) -> torch.Tensor:
        return self._logits([Row((request,), len(request.inputs), 9) for request in self._requests])

    def branches_behind_a_stem(self) -> torch.Tensor:
        return self._logits([Row(self._requests, 11, 9), Row(self._requests[:1], 14, 9)])

    def _logits(self, rows: list[Row]) -> torch.Tensor:
        """Of the second request's targets `(targets, vocabulary)`."""
        layout, model = lay_out(rows), self._language_model.model
        inputs = layout.inputs(self._device, attention(model))
        if layout.stem:
            stem = torch.tensor([self._requests[0].tokens[: layout.stem]], device=self._device)
            inputs["past_key_values"] = self._language_model.before_rows(self._language_model.cache(stem), len(rows))
        logits = model(input_ids=layout.input_ids.to(self._device), use_cache=False, **inputs).logits
        where = [place for place, owner in enumerate(layout.owners) if owner == 1]
        found: torch.Tensor = logits[[layout.at[0][k] for k in where], [layout.at[1][k] for k in where]]
        return found


def _close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two sets of logits are the same but for the rounding of their dtype."""
    tolerance = 1e-4 if found.dtype == torch.float32 else 3e-2
    spread = (expected.float() - expected.float().mean(-1, keepdim=True)).norm()
    return bool((found.float() - expected.float()).norm() <= tolerance * spread)
