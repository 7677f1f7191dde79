"""Prompt and confirmation text as token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from superweight.checkpoint.loading import LoadedModel
from superweight.detect.prose import PROMPT, TEXT
from superweight.detect.settings import Thresholds
from superweight.detect.trace import Prompt
from superweight.errors import InfraError


def make_prompt(loaded: LoadedModel, text: str | None, settings: Thresholds) -> Prompt:
    """Tokenise a prompt for one forward pass: with BOS in one row and without in another, if the tokenizer has a BOS.

    Some models (Gemma) show massive activations only after BOS, and others are used without it. The rows are equally
    long: the one with BOS lacks the last token.

    Raises:
        InfraError: the prompt has no tokens (`too-short`).

    """
    text = PROMPT if text is None else text
    ids = _encode(loaded, text)[: settings.prompt_tokens]
    if not ids:
        raise InfraError(
            "expected a prompt of at least one token, found none. Give a longer prompt.", reason="too-short"
        )
    bos = loaded.tokenizer.bos_token_id
    if bos is None:
        return Prompt(torch.tensor([ids]), (False,), text)
    return Prompt(torch.tensor([[bos, *ids][: len(ids)], ids]), (True, False), text)


def make_windows(loaded: LoadedModel, ids: torch.Tensor | Sequence[int] | None, settings: Thresholds) -> torch.Tensor:
    """The confirmation text as `(windows, length)`; each window begins with what the tokenizer puts before a text.

    Args:
        loaded: the model.
        ids: token ids of a text, without BOS; the built-in prose if not given.
        settings: gives length and number of windows.

    Raises:
        InfraError: the text has fewer than four blocks of tokens (`too-short`): too few for an interval.

    """
    text = _encode(loaded, TEXT) if ids is None else [int(token) for token in ids]
    prefix = _prefix(loaded)
    length = min(settings.window, _longest(loaded)) - len(prefix)
    length = min(length, len(text))
    if len(text) < 4 * settings.block:
        raise InfraError(
            f"expected a text of at least {4 * settings.block} tokens to measure effects on, found {len(text)}. "
            "Give a longer text.",
            reason="too-short",
        )
    count = len(text) // length if ids is not None else min(settings.windows, len(text) // length)
    return torch.tensor([[*prefix, *text[index * length : (index + 1) * length]] for index in range(count)])


def _encode(loaded: LoadedModel, text: str) -> list[int]:
    return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


def _prefix(loaded: LoadedModel) -> list[int]:
    """Special tokens that the tokenizer puts before a text: BOS, or nothing."""
    bare, full = _encode(loaded, "a"), list(loaded.tokenizer("a")["input_ids"])
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []


def _longest(loaded: LoadedModel) -> int:
    config = loaded.model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 2**31)
