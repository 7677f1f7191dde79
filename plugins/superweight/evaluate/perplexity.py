"""Perplexity by the protocol of GPTQ, and the divergence from another model's next-token distribution on the way."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from superweight.errors import InfraError
from superweight.evaluate.order import batched, visiting_order
from superweight.evaluate.resident import ResidentModel
from superweight.evidence.measured import Perplexity
from superweight.forward.runner import Progress, TextWindows, WindowScore
from superweight.forward.scorer import Scorer
from superweight.forward.soundness import check_tokens, check_window

if TYPE_CHECKING:
    from superweight.checkpoint.loading import LoadedModel

_LEFT_TO_CALIBRATION = 10  # one window in so many, at the end of the text

PROTOCOL = "gptq: one tokenisation, non-overlapping windows, no stride, exp of the mean nll a token"


class ScoresWindows(Protocol):
    """What perplexity asks of a runner."""

    def score_windows(self, text: TextWindows, batch: Sequence[int], *, compare: bool = False) -> list[WindowScore]:
        """As `Runner.score_windows`."""


def prepare_text(
    loaded: LoadedModel,
    token_ids: torch.Tensor,
    *,
    window: int,
    windows: int | None = None,
    batch_tokens: int | None = None,
    shuffled: bool = True,
    name: str = "the corpus",
) -> TextWindows:
    """Cut a corpus into windows, to be scored a batch at a time by one runner after another.

    The batches are fixed: whoever scores one gets the same figures, whatever was scored before it.

    Args:
        loaded: the uncompressed model; the text must suit it.
        token_ids: `(tokens,)`, tokenised once as a whole. A last window that is not full is dropped.
        window: tokens a window, at least 2.
        windows: only so many; fewer are used if there are no more. All if not given.
        batch_tokens: tokens a batch; how many of them share a forward pass is up to the runner. One window if not
            given, as GPTQ does: recipes whose rounding depends on a whole activation tensor give other figures in other
            batches.
        shuffled: whether windows are drawn from all over the text, so that any of them stand for the whole and few are
            neighbours, which are alike; the last tenth is left to calibration if not all are wanted. Else they are the
            first, in their order.
        name: of the text, for messages.

    Raises:
        InfraError: there are fewer tokens than one window (`too-short`), the window is longer than the model was made
            for, or the text has a token without an embedding (`unsupported`).
    """
    tokens_wt = _cut(token_ids, window, name)  # (windows of the whole text, window)
    check_window(loaded.model, window)
    check_tokens(loaded, tokens_wt, name)
    order = _drawn(len(tokens_wt), windows) if shuffled else list(range(len(tokens_wt)))[:windows]
    scored = tokens_wt[sorted(order)].cpu().numpy()
    digest = hashlib.sha256(scored.astype("<i8").tobytes()).hexdigest()
    return TextWindows(tokens_wt, batched(order, (batch_tokens or window) // window), digest)


def score_batch(
    runner: ScoresWindows, text: TextWindows, batch: Sequence[int], *, compare: bool = False
) -> list[dict[str, Any]]:
    """Score one of a text's batches.

    Returns:
        one dictionary a window: `window` and `nll`, and where the runner gives them also `kl` and `agreement`.
    """
    scores = runner.score_windows(text, batch, compare=compare)
    figures = [{name: value for name, value in score._asdict().items() if value is not None} for score in scores]
    return [{"window": index, **figure} for index, figure in zip(batch, figures, strict=True)]


def perplexity_figure(
    text: TextWindows, scores: Sequence[dict[str, Any]], *, vocabulary: int, corpus: str = "", origin: str = ""
) -> Perplexity:
    """The figure, as in Frantar et al. 2022 (GPTQ, §4, and the authors' code).

    Args:
        text: the windows.
        scores: what `score_batch` returned for some of them; at least one.
        vocabulary: tokens that the model chooses among, which is the perplexity of guessing.
        corpus: id of the corpus.
        origin: where its text came from.
    """
    scores = sorted(scores, key=lambda score: int(score["window"]))
    nll = [float(score["nll"]) for score in scores]
    window = text.tokens_wt.shape[1]
    return Perplexity(
        value=_exp(math.fsum(nll) / len(nll)),
        protocol=PROTOCOL,
        corpus=corpus,
        origin=origin,
        window=window,
        windows=len(nll),
        planned=text.planned,
        tokens=len(nll) * (window - 1),
        nll=nll,
        index=[int(score["window"]) for score in scores],
        kl=[float(score["kl"]) for score in scores if "kl" in score],
        agreement=[float(score["agreement"]) for score in scores if "agreement" in score],
        tokens_sha256=text.tokens_sha256,
        vocabulary=vocabulary,
    )


def perplexity(
    loaded: LoadedModel,
    token_ids: torch.Tensor,
    *,
    window: int,
    windows: int | None = None,
    batch_tokens: int | None = None,
    progress: Progress | None = None,
    scorer: Scorer | None = None,
    name: str = "the corpus",
) -> Perplexity:
    """Measure perplexity on non-overlapping windows, in the order of the text.

    A model that gives NaN or infinity is not an error of the measurement: those windows count as infinity, and so
    does the perplexity, which no gate lets pass.

    Args:
        loaded: the model, with whatever a recipe has done to it.
        token_ids: as in `prepare_text`, like `window`, `windows` and `batch_tokens`.
        window: tokens a window.
        windows: how many at most.
        batch_tokens: tokens a batch.
        progress: called with windows done and windows in all.
        scorer: kept from an earlier call, to save finding out again how the model can be run.
        name: of the text, for messages.

    Raises:
        InfraError: there are fewer tokens than one window (`too-short`).
    """
    if windows is not None and windows < 1:
        raise ValueError(f"expected at least 1 window, found {windows}")
    _cut(token_ids, window, name)  # told before the model is tried
    model = ResidentModel(scorer or Scorer(loaded))
    text = prepare_text(
        loaded, token_ids, window=window, windows=windows, batch_tokens=batch_tokens, shuffled=False, name=name
    )
    scores: list[dict[str, Any]] = []
    for batch in text.batches:
        scores += score_batch(model, text, batch)
        if progress:
            progress(len(scores), text.planned)
    return perplexity_figure(text, scores, vocabulary=model.vocabulary, corpus=name)


def _drawn(available: int, wanted: int | None) -> list[int]:
    """Numbers of windows in the order they are visited."""
    if wanted is None or wanted >= available:
        return visiting_order(available)
    return visiting_order(max(wanted, available - available // _LEFT_TO_CALIBRATION))[:wanted]


def _cut(token_ids: torch.Tensor, window: int, name: str) -> torch.Tensor:
    if window < 2:
        raise ValueError(f"expected a window of at least 2 tokens, found {window}")
    available = token_ids.numel() // window
    if not available:
        raise InfraError(
            f"{name} has {token_ids.numel()} tokens, fewer than one window of {window}. "
            "Use a longer text or a shorter window.",
            reason="too-short",
        )
    return token_ids.flatten()[: available * window].view(available, window)


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
