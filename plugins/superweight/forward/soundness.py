"""What a model must be for its figures to mean anything: causal, used within its positions and its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from superweight.errors import InfraError

if TYPE_CHECKING:
    from superweight.checkpoint.loading import LoadedModel
    from superweight.forward.language_model import LanguageModel

_LENGTH, _SAME = 12, 6
"""Tokens of the pass that tries causality, and how many of them all its rows have in common."""
_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "context_length",
    "n_ctx",
)


def check_causal(language_model: LanguageModel, tolerance: float | None = None) -> None:
    """Refuse a model in which a later token changes what is predicted before it, found out by one pass.

    Its rows begin alike and go on with other tokens, with padding, or in the same way at another place of the batch.
    What any of that changes of the first tokens' logits must be rounding. A model that gives no finite logits is left
    to the figures, which say so.

    Args:
        language_model: the model.
        tolerance: share of the logits' spread that is rounding; that of the parameters' dtype if not given.

    Raises:
        InfraError: `unsupported`, with what changed the logits, and by how much of their spread.
    """
    model, size = language_model.model, language_model.vocabulary
    first = [(7 * place + 3) % size for place in range(_LENGTH)]
    others = {
        "a later token": [*first[:_SAME], *((token + 1 + place) % size for place, token in enumerate(first[_SAME:]))],
        "padding": [*first[:_SAME], *[0] * (_LENGTH - _SAME)],
        "the place in a batch": first,
    }
    rows = torch.tensor([first, *others.values()], device=next(model.parameters()).device)
    with torch.no_grad():
        logits = model(input_ids=rows, use_cache=False).logits[:, :_SAME].float()  # (rows, same, vocabulary)
    spread = (logits[0] - logits[0].mean(-1, keepdim=True)).norm(dim=-1).clamp_min(1e-30)
    if not torch.isfinite(logits).all():
        return
    if tolerance is None:
        tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 3e-2
    for what, row in zip(others, logits[1:], strict=True):
        changed = float(((row - logits[0]).norm(dim=-1) / spread).max())
        if changed > tolerance:
            raise InfraError(
                f"{type(model).__name__} is no causal language model as it is loaded: {what} changes the logits of "
                f"earlier tokens by {changed:.2g} of their spread (rounding would be {tolerance:g}). Perplexity and "
                "log-likelihoods of such a model mean nothing. Correct config.json (is_causal, "
                "use_bidirectional_attention, is_decoder), or gate another model.",
                reason="unsupported",
            )


def check_tokens(loaded: LoadedModel, token_ids: Iterable[int] | torch.Tensor, what: str) -> None:
    """Refuse tokens that the model has no embedding for.

    Args:
        loaded: the model.
        token_ids: of a text.
        what: they are, for the message.

    Raises:
        InfraError: `unsupported`; names the first such token and both numbers.
    """
    rows = _embeddings(loaded.model)
    ids = token_ids.flatten() if isinstance(token_ids, torch.Tensor) else torch.tensor(list(token_ids))
    if rows is None or not ids.numel() or int(ids.max()) < rows:
        return
    first = int(ids[ids >= rows][0])
    word = "" if loaded.tokenizer is None else f" ({loaded.tokenizer.convert_ids_to_tokens(first)!r})"
    raise InfraError(
        f"{what}: the tokenizer gives token {first}{word}, and the model has embeddings for {rows} tokens, 0 to "
        f"{rows - 1}. The tokenizer belongs to another model, or tokens were added to it without resizing the model.",
        reason="unsupported",
    )


def check_window(model: Any, window: int) -> None:
    """Refuse windows longer than the positions a model was made for.

    Raises:
        InfraError: `unsupported`, with both numbers.
    """
    made_for = positions(model)
    if made_for is not None and window > made_for:
        raise InfraError(
            f"windows of {window} tokens are longer than the {made_for} positions that {type(model).__name__} was made "
            "for (config.json). Choose a shorter window in the tier.",
            reason="unsupported",
        )


def positions(model: Any) -> int | None:
    """How many positions a model was made for, as its configuration says; None if it does not."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = [getattr(text, name, None) for name in _POSITIONS]
    return next((number for number in found if isinstance(number, int) and number > 0), None)


def _embeddings(model: Any) -> int | None:
    table = model.get_input_embeddings()
    rows = getattr(table, "num_embeddings", None)  # which holds of codes, too
    weight = getattr(table, "weight", None)
    return rows if isinstance(rows, int) else None if weight is None else int(weight.shape[0])
