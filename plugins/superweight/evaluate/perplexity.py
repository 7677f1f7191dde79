"""Perplexity by the protocol of GPTQ."""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from superweight.checkpoint.loading import LoadedModel
from superweight.errors import InfraError
from superweight.evaluate.likelihood import Progress, Scorer

PROTOCOL = "gptq: one tokenisation, non-overlapping windows, no stride, exp of the mean nll a token"


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a token sequence, as in Frantar et al. 2022 (GPTQ, §4, and the authors' code).

    Attributes:
        value: exp of the mean of `nll`; infinity if the model gives NaN anywhere.
        nll: mean negative log-likelihood of each window, nats a token.
        tokens: how many tokens were predicted: windows × (window − 1).
        window: tokens a window.
        windows: how many windows.
        protocol: how it was measured.
        tokens_sha256: of the scored token ids as little-endian int64, so that two figures can be told to be of the
            same tokens.
    """

    value: float
    nll: tuple[float, ...]
    tokens: int
    window: int
    windows: int
    protocol: str
    tokens_sha256: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "nll": list(self.nll)}


def perplexity(
    loaded: LoadedModel,
    token_ids: torch.Tensor,
    *,
    window: int,
    windows: int | None = None,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
    scorer: Scorer | None = None,
) -> Perplexity:
    """Measure perplexity on non-overlapping windows.

    A model that gives NaN or infinity is not an error of the measurement: those windows count as infinity, and so
    does the perplexity, which no gate lets pass.

    Args:
        loaded: the model, with whatever a recipe has done to it.
        token_ids: `(tokens,)`, tokenised once as a whole. A last window that is not full is dropped.
        window: tokens a window, at least 2.
        windows: only the first so many; fewer are used if there are no more. All if not given.
        batch_tokens: tokens a forward pass. One window a pass if not given, as GPTQ does: recipes whose rounding
            depends on a whole activation tensor give other figures in other batches.
        progress: called with windows done and windows in all.
        scorer: kept from an earlier call, to save finding out again how the model can be run.

    Raises:
        InfraError: there are fewer tokens than one window (`too-short`).
    """
    tokens_wt = _cut(token_ids, window, windows)  # (windows, window)
    scorer = scorer or Scorer(loaded)
    nll: list[float] = []
    for batch in torch.split(tokens_wt, max(1, (batch_tokens or window) // window)):
        nll += scorer.window_nll(batch)
        if progress:
            progress(len(nll), len(tokens_wt))
    return Perplexity(
        value=_exp(math.fsum(nll) / len(nll)),
        nll=tuple(nll),
        tokens=tokens_wt.numel() - len(tokens_wt),
        window=window,
        windows=len(tokens_wt),
        protocol=PROTOCOL,
        tokens_sha256=hashlib.sha256(tokens_wt.cpu().numpy().astype("<i8").tobytes()).hexdigest(),
    )


def _cut(token_ids: torch.Tensor, window: int, windows: int | None) -> torch.Tensor:
    if window < 2 or (windows is not None and windows < 1):
        raise ValueError(f"expected a window of at least 2 tokens and at least 1 window, found {window} and {windows}")
    available = token_ids.numel() // window
    if not available:
        raise InfraError(
            f"the corpus has {token_ids.numel()} tokens, fewer than one window of {window}. "
            "Use a longer text or a shorter window.",
            reason="too-short",
        )
    count = available if windows is None else min(windows, available)
    return token_ids.flatten()[: count * window].view(count, window)


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
